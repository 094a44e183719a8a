package doctor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDovecot has a real doveconf read configurations that make a receipt untrue.
func TestDovecot(t *testing.T) {
	const base = "protocols = lmtp\n"
	for _, tt := range []struct {
		name, text, words string
		ids               []string
	}{
		{name: "good", text: "userdb {\n  driver = static\n  args = uid=mail gid=mail home=/x/%u\n}\n"},
		{name: "never synced", text: "mail_fsync = never\n", words: "mail_fsync is never", ids: []string{"mailboxes-unsynced"}},
		{name: "never synced by LMTP", text: "mail_fsync = always\nprotocol lmtp {\n  mail_fsync = never\n}\n", ids: []string{"mailboxes-unsynced"}},
		{name: "synced by LMTP", text: "mail_fsync = never\nprotocol lmtp {\n  mail_fsync = always\n}\n"},
		{name: "anybody", text: "userdb {\n  driver = static\n  args = uid=mail gid=mail home=/x/%u allow_all_users=yes\n}\n", words: "allow_all_users=yes", ids: []string{"mailboxes-anybody"}},
		{name: "Sieve", text: "protocol lmtp {\n  mail_plugins = sieve\n}\n", words: "redirect and reject", ids: []string{"sieve"}},
		{name: "Sieve everywhere", text: "mail_plugins = quota sieve\nplugin {\n  sieve_extensions = +vacation-seconds -reject\n}\n", words: "may redirect", ids: []string{"sieve"}},
		{name: "Sieve of IMAP", text: "protocol imap {\n  mail_plugins = sieve\n}\n"},
		{name: "Sieve tamed", text: "protocol lmtp {\n  mail_plugins = $mail_plugins sieve\n}\nplugin {\n  sieve_max_redirects = 0\n  sieve_extensions = -reject\n}\n", ids: []string{"sieve-discard"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "dovecot.conf")
			if err := os.WriteFile(file, []byte(base+tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			v := &visit{Site: Site{Dovecot: func(ctx context.Context) (string, error) {
				out, err := exec.CommandContext(ctx, "doveconf", "-c", file, "-n").Output()
				return string(out), err
			}}}
			v.dovecot(t.Context())
			var ids []string
			said := ""
			for _, f := range v.found {
				ids, said = append(ids, f.ID), said+f.What
			}
			if !slices.Equal(ids, tt.ids) || !strings.Contains(said, tt.words) {
				t.Errorf("found %q: %s", ids, said)
			}
		})
	}
}

// TestDovecotNewer reads what doveconf of 2.4 prints, and what nobody prints.
func TestDovecotNewer(t *testing.T) {
	for text, want := range map[string]string{
		"mail_plugins {\n  sieve = yes\n}\n": "sieve",
		"protocol lmtp {\n  mail_plugins {\n    sieve = yes\n  }\n}\nsieve_max_redirects = 0\nsieve_extensions = -reject\n": "sieve-discard",
		"userdb static {\n  userdb_static_allow_all_users = yes\n}\n":                                                       "mailboxes-anybody",
		"}\n}\n= \n{\n": "",
	} {
		v := &visit{Site: Site{Dovecot: func(context.Context) (string, error) { return text, nil }}}
		v.dovecot(t.Context())
		got := ""
		for _, f := range v.found {
			got += f.ID
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	v := &visit{Site: Site{Dovecot: func(context.Context) (string, error) { return "mail_fsync = never", errors.New("gone") }}}
	v.dovecot(t.Context())
	if len(v.found) != 1 || v.found[0].ID != "mailboxes-unread" || !strings.Contains(v.found[0].What, "gone") {
		t.Errorf("found %v", v.found)
	}
}
