package setup

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Demand is what an option of sendmail.cf must be, and why.
type Demand struct {
	ID     string // of the doctor's finding
	Option string // of sendmail.cf
	Is     string // what it is
	define string
	value  string
	Reason string
}

// Demands returns the options that are not as pecd needs them.
func (s *Sendmail) Demands(want Wants) (demands []Demand) {
	broken := func(d Demand) { demands = append(demands, d) }
	if v := s.Option("EightBitMode", "pass8"); !strings.HasPrefix(v, "p") {
		broken(Demand{"mime-conversion", "EightBitMode", v, "confEIGHT_BIT_HANDLING", "pass8", "8-bit text stays as it is: a conversion breaks signatures"})
	}
	if n := number(s.Option("MaxMessageSize", "0")); n != 0 && n < want.MinSize() {
		broken(Demand{"size-limit", "MaxMessageSize", fmt.Sprint(n), "confMAX_MESSAGE_SIZE", fmt.Sprint(want.Size), "the envelope of the largest original fits (access.max_size)"})
	}
	if v := s.Option("MaxHeadersLength", "32768"); number(v) != 0 && number(v) < MinHeaders {
		broken(Demand{"header-limit", "MaxHeadersLength", v, "confMAX_HEADERS_LENGTH", fmt.Sprint(MinHeaders), "messages with long headers are not refused when they come back signed"})
	}
	if v := s.Option("MaxMimeHeaderLength", "unset"); v != "0/0" && v != "0" {
		broken(Demand{"header-limit", "MaxMimeHeaderLength", v, "confMAX_MIME_HEADER_LENGTH", "0/0", "MIME header fields are not cut"})
	}
	if v := strings.ToLower(s.Option("SuperSafe", "True")); strings.HasPrefix(v, "f") || v == "0" {
		broken(Demand{"queue-unsafe", "SuperSafe", v, "confSAFE_QUEUE", "True", "what Sendmail has taken is on the disk"})
	}
	demands = append(demands, s.lifetimes()...)
	if v, ok := s.privacy(); !ok {
		broken(Demand{"bounces", "PrivacyOptions", s.Option("PrivacyOptions", ""), "confPRIVACY_FLAGS", v, "Sendmail offers DSN, so that bounces can be matched to their envelopes"})
	}
	macros := s.Option("Milter.macros.envfrom", "i, {auth_authen}")
	if words := list(macros); !slices.Contains(words, "{auth_authen}") || !slices.Contains(words, "i") {
		broken(Demand{"auth-macro", "Milter.macros.envfrom", macros, "confMILTER_MACROS_ENVFROM", strings.Join(add(words, "i", "{auth_authen}"), ", "), "pecd must hear who has logged in, and the queue id"})
	}
	if n := number(s.Option("MaxRecipientsPerMessage", "0")); n != 0 && n < MinRecipients {
		broken(Demand{"recipient-limit", "MaxRecipientsPerMessage", fmt.Sprint(n), "confMAX_RCPTS_PER_MESSAGE", fmt.Sprint(MinRecipients), "an envelope to many recipients is not split"})
	}
	return demands
}

// add adds the words that are not there.
func add(words []string, more ...string) []string {
	for _, m := range more {
		if !slices.Contains(words, m) {
			words = append(words, m)
		}
	}
	return words
}

// lifetimes are the demands on how long Sendmail tries.
func (s *Sendmail) lifetimes() (list []Demand) {
	const reason = "the queue lives 24 hours (RFC 6109, 2.2.2)"
	for _, t := range []struct{ option, define, standard string }{
		{"Timeout.queuereturn", "confTO_QUEUERETURN", "5d"},
		{"Timeout.queuereturn.normal", "confTO_QUEUERETURN_NORMAL", ""},
		{"Timeout.queuereturn.urgent", "confTO_QUEUERETURN_URGENT", ""},
		{"Timeout.queuereturn.non-urgent", "confTO_QUEUERETURN_NONURGENT", ""},
		{"Timeout.queuereturn.dsn", "confTO_QUEUERETURN_DSN", ""},
	} {
		if v := s.Option(t.option, t.standard); sendmailTime(v, 24*time.Hour) > QueueLife {
			list = append(list, Demand{"queue-lifetime", t.option, v, t.define, "1d", reason})
		}
	}
	if v := s.Option("MinQueueAge", "0"); sendmailTime(v, time.Minute) > MaxPause {
		list = append(list, Demand{"backoff", "MinQueueAge", v, "confMIN_QUEUE_AGE", "30m", "within the 24 hours the last word must be pecd's notice, not Sendmail's bounce"})
	}
	return list
}

// sendmailTime reads a time of Sendmail, such as 1d12h; a number alone counts in
// standard.
func sendmailTime(s string, standard time.Duration) (d time.Duration) {
	start := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			d += Duration(s[start:i+1], standard)
			start = i + 1
		}
	}
	return d + Duration(s[start:], standard)
}

// privacy reports whether PrivacyOptions lets Sendmail offer DSN, and what they would
// be if it did. goaway does not take DSN away.
func (s *Sendmail) privacy() (string, bool) {
	words := list(s.Option("PrivacyOptions", ""))
	rest := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return strings.EqualFold(w, "noreceipts") })
	return strings.Join(rest, ","), len(rest) == len(words)
}

// settings plans what must hold for all mail.
func (pl *sendmailPlanner) settings() error {
	for _, d := range pl.s.Demands(pl.want) {
		if !pl.mc.define(d.define, d.value, d.Reason) {
			return fmt.Errorf("%w: %s is %s in %s although %s defines %s as %s: something after that, or in what it includes, changes it", ErrSendmail, d.Option, d.Is, CFFile, MCFile, d.define, d.value)
		}
	}
	if pl.s.Option("ServerCertFile", "") == "" {
		pl.note("Sendmail has no TLS certificate: give it one (confSERVER_CERT, confSERVER_KEY, confCACERT, confCACERT_PATH); providers talk over TLS (RFC 6109, 5.3), and passwords must not travel in clear.")
	}
	if !pl.s.Logins() {
		pl.note("Sendmail takes no logins (TRUST_AUTH_MECH, confAUTH_MECHANISMS): without a login nothing is certified. The name with which a user logs in must be his whole address (access.sender_login).")
	}
	return nil
}

// networkMailers are those of MAILER(`smtp'), with the names by which m4 changes their
// flags and their longest line.
var networkMailers = []struct{ name, flags, line string }{
	{"smtp", "SMTP", "SMTP_MAILER_LL"}, {"esmtp", "ESMTP", "SMTP_MAILER_LL"}, {"smtp8", "SMTP8", "SMTP_MAILER_LL"},
	{"dsmtp", "DSMTP", "SMTP_MAILER_LL"}, {"relay", "RELAY", "RELAY_MAILER_LL"},
}

// Converts reports whether a mailer changes 8-bit text where the next server does not
// offer 8BITMIME, or the encoding of parts.
func (m Mailer) Converts() bool {
	return !strings.Contains(m.Flags, "8") || strings.ContainsAny(m.Flags, "79")
}

// Cuts reports whether a mailer cuts lines that SMTP can carry.
func (m Mailer) Cuts() bool { return m.Line != 0 && m.Line < 998 }

// mailers plans that nothing is changed on its way out, and the mailer to pecd.
func (pl *sendmailPlanner) mailers() error {
	limits := map[string]bool{}
	for _, w := range networkMailers {
		m, ok := pl.s.said.mailers[w.name]
		if !ok {
			continue
		}
		const reason = "8-bit text stays as it is: a conversion breaks signatures"
		if !strings.Contains(m.Flags, "8") {
			pl.mc.add(fmt.Sprintf("MODIFY_MAILER_FLAGS(`%s', `+8')dnl", w.flags), reason)
		}
		for _, flag := range []string{"7", "9"} {
			if strings.Contains(m.Flags, flag) {
				pl.mc.add(fmt.Sprintf("MODIFY_MAILER_FLAGS(`%s', `-%s')dnl", w.flags, flag), reason)
			}
		}
		if m.Cuts() && !limits[w.line] {
			limits[w.line] = true
			if !pl.mc.define(w.line, "0", "long lines are not cut: that breaks signatures") {
				return fmt.Errorf("%w: the mailer %s cuts lines although %s defines %s as 0: write that before MAILER(`smtp')", ErrSendmail, w.name, MCFile, w.line)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(pl.s.said.mailers)) {
		m := pl.s.said.mailers[name]
		known := slices.ContainsFunc(networkMailers, func(w struct{ name, flags, line string }) bool { return w.name == name })
		if m.Program == "[IPC]" && !known && name != pecdMailer && (m.Converts() || m.Cuts()) {
			pl.note("The mailer %s converts 8-bit text or cuts lines (F=%s, L=%d): see to it if certified mail goes that way.", name, m.Flags, m.Line)
		}
	}
	m, ok := pl.s.said.mailers[pecdMailer]
	if !ok {
		pl.mc.append("the way to pecd: LMTP (flag z), 8-bit text as it is (8), no limit to lines", pecdMailerLines(pl.want.LMTP)...)
		return nil
	}
	sound := strings.Contains(m.Flags, "z") && !m.Converts() && !m.Cuts()
	if !sound || !m.reaches(pl.want.LMTP) {
		old := "A=" + m.Args
		if !sound || !pl.mc.replace(old, "A="+mailerArgs(pl.want.LMTP), "the way to pecd") {
			return fmt.Errorf("%w: there is a mailer %s that does not go to %s by LMTP; rename it, or write it as docs/sendmail.md has it", ErrSendmail, pecdMailer, pl.want.LMTP)
		}
	}
	return nil
}

func pecdMailerLines(lmtp string) []string {
	return []string{
		"M" + pecdMailer + ", P=[IPC], F=mDFMuXz8, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP, E=\\r\\n, L=0, r=1000,",
		"\tT=DNS/RFC822/SMTP, A=" + mailerArgs(lmtp),
	}
}

// mailerArgs is how a mailer names a socket of pecd's.
func mailerArgs(addr string) string {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return "FILE " + path
	}
	hostport := strings.TrimPrefix(addr, "inet:")
	i := strings.LastIndexByte(hostport, ':')
	return "TCP [" + plainHost(strings.Trim(hostport[:i], "[]")) + "] " + hostport[i+1:]
}

// reaches reports whether a mailer goes to a socket of pecd's.
func (m Mailer) reaches(addr string) bool {
	strip := strings.NewReplacer("[", "", "]", "")
	return m.Program == "[IPC]" && strip.Replace(m.Args) == strip.Replace(mailerArgs(addr))
}
