package doctor

import (
	"bufio"
	"context"
	"slices"
	"strings"
	"time"
)

// dovecotTime bounds the question to Dovecot what its settings are.
const dovecotTime = 10 * time.Second

// dovecot looks at the mailbox store's settings, where it is a Dovecot of this
// machine: its 250 is what a delivery receipt certifies (docs/dovecot.md).
func (v *visit) dovecot(ctx context.Context) {
	if v.Dovecot == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, dovecotTime)
	defer cancel()
	said, err := v.Dovecot(ctx)
	if err != nil {
		v.add("mailboxes-unread", "doveconf -n: %s", text(err))
		return
	}
	s := readDovecot(said)
	if s.lmtp("mail_fsync") == "never" {
		v.add("mailboxes-unsynced", "mail_fsync is never")
	}
	for _, setting := range s {
		if strings.HasSuffix(setting.key, "allow_all_users") && setting.value == "yes" || slices.Contains(strings.Fields(setting.value), "allow_all_users=yes") {
			v.add("mailboxes-anybody", "Dovecot has %s = %s", setting.key, setting.value)
		}
	}
	v.sieve(s)
}

// sieve looks for rules of users that take a message away although Dovecot says 250.
func (v *visit) sieve(s dovecotSettings) {
	if !slices.Contains(strings.Fields(s.lmtp("mail_plugins")), "sieve") && s.lmtp("mail_plugins/sieve") != "yes" {
		return
	}
	var can []string
	if s.plugin("sieve_max_redirects") != "0" {
		can = append(can, "redirect")
	}
	if !slices.Contains(strings.Fields(s.plugin("sieve_extensions")), "-reject") {
		can = append(can, "reject")
	}
	if len(can) > 0 {
		v.add("sieve", "Sieve is loaded for LMTP, and scripts may %s", strings.Join(can, " and "))
		return
	}
	v.add("sieve-discard", "Sieve is loaded for LMTP")
}

// A dovecotSetting is one, with the names of the blocks around it before its own,
// each with a slash.
type dovecotSetting struct{ key, value string }

// dovecotSettings are those that doveconf -n prints.
type dovecotSettings []dovecotSetting

// readDovecot reads what doveconf -n prints. What it does not understand it leaves out.
func readDovecot(text string) (list dovecotSettings) {
	var blocks []string
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		key, value, setting := strings.Cut(line, " = ")
		switch {
		case strings.HasPrefix(line, "#"):
		case line == "}":
			blocks = blocks[:max(0, len(blocks)-1)]
		case strings.HasSuffix(line, "{"):
			blocks = append(blocks, strings.TrimSpace(strings.TrimSuffix(line, "{"))+"/")
		case setting:
			list = append(list, dovecotSetting{strings.Join(blocks, "") + key, strings.Trim(strings.TrimSpace(value), `"`)})
		}
	}
	return list
}

// get is the value of a setting, the last one if it stands there several times, or "".
func (s dovecotSettings) get(key string) (value string) {
	for _, one := range s {
		if one.key == key {
			value = one.value
		}
	}
	return value
}

// lmtp is a setting as it counts for LMTP.
func (s dovecotSettings) lmtp(key string) string {
	if own := s.get("protocol lmtp/" + key); own != "" {
		return own
	}
	return s.get(key)
}

// plugin is a setting of a plugin: Dovecot 2.3 has them in a block, 2.4 has not.
func (s dovecotSettings) plugin(key string) string {
	if own := s.get("plugin/" + key); own != "" {
		return own
	}
	return s.lmtp(key)
}
