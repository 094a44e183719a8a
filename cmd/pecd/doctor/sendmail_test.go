package doctor

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/cmd/pecd/setup"
	"pecd/packaging/demo/stage"
)

// readSendmail reads a Sendmail's directory under a host name of its own, and where no
// name server is.
func readSendmail(t *testing.T, dir string) *setup.Sendmail {
	t.Helper()
	program := filepath.Join(t.TempDir(), "sendmail")
	script := "#!/bin/sh\nexec unshare --uts --net sh -c 'hostname mail.alfa.example; exec /var/cache/pecd-demo/sendmail/usr/libexec/sendmail/sendmail \"$@\"' sh \"$@\"\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := setup.ReadSendmail(t.Context(), dir, program)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sendmails are Sendmail installations as upgrades and people leave them: from and to
// are in sendmail.mc, main is a line before the mailers.
var sendmails = []broken{
	{name: "no access milter", from: "M=a, InputMailFilters=access", to: "M=a", words: `MSA: InputMailFilters is "", without inet:`, ids: []string{"submission-milter"}},
	{name: "access milter accepts", from: "@127.0.0.1, F=T, T=S:30s;R:30s;E:5m')dnl\nMAIL_FILTER(`gate'", to: "@127.0.0.1, T=S:30s;R:30s;E:5m')dnl\nMAIL_FILTER(`gate'",
		words: "has F= for when pecd is away", ids: []string{"submission-accept"}},
	{name: "access milter refuses", from: "@127.0.0.1, F=T, T=S:30s;R:30s;E:5m')dnl\nMAIL_FILTER(`gate'", to: "@127.0.0.1, F=R, T=S:30s;R:30s;E:5m')dnl\nMAIL_FILTER(`gate'",
		words: "has F=R", ids: []string{"submission-accept"}},
	{name: "milter after pecd", main: spamd, from: "InputMailFilters=access", to: "InputMailFilters=access;spamd", words: "spamd comes after pecd", ids: []string{"milter-order"}},
	{name: "filter before pecd is good", main: spamd, from: "InputMailFilters=access", to: "InputMailFilters=spamd;access"},
	{name: "signer before pecd", main: "MAIL_FILTER(`sign', `S=inet:8891@localhost')", from: "InputMailFilters=access", to: "InputMailFilters=sign;access", words: "the DKIM signer sign", ids: []string{"signer-before"}},
	{name: "no gate milter", from: ", InputMailFilters=gate", to: "", words: "without inet:", ids: []string{"gate-milter"}},
	{name: "gate accepts", from: "F=T, T=S:30s;R:30s;E:5m')dnl\ndefine(`confMILTER", to: "T=S:30s;R:30s;E:5m')dnl\ndefine(`confMILTER", words: "has F=", ids: []string{"gate-accept"}},
	{name: "filters for all", main: "INPUT_MAIL_FILTER(`spamd', `S=inet:783@localhost')", words: "PECD calls the milter spamd", ids: []string{"listener-milter"}},
	{name: "pecd for all", main: "define(`confINPUT_MAIL_FILTERS', `access')", words: "PECD calls pecd itself", ids: []string{"listener-loop"}},
	{name: "listener open", from: "Name=PECD, Family=inet, Addr=127.0.0.1, ", to: "Name=PECD, Family=inet, ", words: "listens beyond this machine", ids: []string{"listener-open"}},
	{name: "converts", main: "define(`confEIGHT_BIT_HANDLING', `mimify')", words: `EightBitMode is "mimify"`, ids: []string{"mime-conversion"}},
	{name: "size", main: "define(`confMAX_MESSAGE_SIZE', `10000000')", words: "10000000", ids: []string{"size-limit"}},
	{name: "headers", main: "define(`confMAX_HEADERS_LENGTH', `32768')", words: "32768", ids: []string{"header-limit"}},
	{name: "MIME headers", main: "define(`confMAX_MIME_HEADER_LENGTH', `256/128')", words: "256/128", ids: []string{"header-limit"}},
	{name: "unsafe queue", main: "define(`confSAFE_QUEUE', `False')", words: "SuperSafe", ids: []string{"queue-unsafe"}},
	{name: "queue of five days", main: "define(`confTO_QUEUERETURN_NORMAL', `5d')", words: "Timeout.queuereturn.normal", ids: []string{"queue-lifetime"}},
	{name: "slow queue", main: "define(`confMIN_QUEUE_AGE', `2h')", words: "MinQueueAge", ids: []string{"backoff"}},
	{name: "no DSN", main: "define(`confPRIVACY_FLAGS', `noreceipts')", words: "noreceipts", ids: []string{"bounces"}},
	{name: "no login macro", main: "define(`confMILTER_MACROS_ENVFROM', `i')", words: "Milter.macros.envfrom", ids: []string{"auth-macro"}},
	{name: "few recipients", main: "define(`confMAX_RCPTS_PER_MESSAGE', `100')", words: "100", ids: []string{"recipient-limit"}},
	{name: "no certificate", main: "undefine(`confSERVER_CERT')", words: "ServerCertFile", ids: []string{"server-tls"}},
	{name: "no logins", from: "TRUST_AUTH_MECH(`PLAIN LOGIN')dnl", to: "", words: "TrustAuthMech", ids: []string{"no-login"}},
	{name: "own name", main: "LOCAL_DOMAIN(`alfa.example')", words: "delivered by Sendmail itself", ids: []string{"route"}},
	{name: "another mailer", from: "Mlmtpin, P=[IPC], F=mDFMuXz8", to: "Mlmtpin, P=[IPC], F=mDFMuX8", words: "goes by the mailer lmtpin, not to inet:", ids: []string{"route"}},
	{name: "not relayed", from: "RELAY_DOMAIN(", to: "dnl RELAY_DOMAIN(", words: "takes no mail for alfa.example", ids: []string{"domain-refused"}},
	{name: "way to a peer converts", from: "Mtobeta, P=[IPC], F=mDFMuXa8", to: "Mtobeta, P=[IPC], F=mDFMuXa", words: "the mailer tobeta has F=", ids: []string{"mime-conversion"}},
	{name: "way to the world cuts", from: "Mtoordinary, P=[IPC], F=mDFMuXa8, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP, E=\\r\\n, L=0", to: "Mtoordinary, P=[IPC], F=mDFMuXa8, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP, E=\\r\\n, L=990",
		words: "the mailer toordinary has L=990", ids: []string{"line-limit"}},
	{name: "peers in clear", from: "FEATURE(`access_db', `hash -T<TMPF> HOME/access')dnl", to: "", words: "beta.example", ids: []string{"tls-policy"}},
	{name: "unreadable", site: func(_ *testing.T, s *Site) { s.Sendmail, s.SendmailErr = nil, errors.New("by hand") }, words: "by hand", ids: []string{"sendmail-unreadable"}},
}

const spamd = "MAIL_FILTER(`spamd', `S=inet:783@localhost')"

// breakSendmail makes a copy of a provider's Sendmail, broken.
func breakSendmail(t *testing.T, p *stage.Provider, b broken) string {
	t.Helper()
	home, dir := p.Sendmail.Home, t.TempDir()
	for _, name := range []string{"sendmail.mc", "mailertable", "mailertable.db", "access", "access.db", "hosts", "service.switch"} {
		text, err := os.ReadFile(filepath.Join(home, name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "sendmail.mc" {
			s, from, to := string(text), strings.ReplaceAll(b.from, "HOME", home), strings.ReplaceAll(b.to, "HOME", home)
			if !strings.Contains(s, from) {
				t.Fatalf("sendmail.mc has no %q:\n%s", from, s)
			}
			s = strings.Replace(s, from, to, 1)
			s = strings.Replace(s, "MAILER(`local')", b.main+"\nMAILER(`local')", 1)
			text = []byte(strings.NewReplacer(home+"/mailertable", dir+"/mailertable", home+"/access", dir+"/access").Replace(s))
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cf, err := exec.Command("m4", filepath.Join(dir, "sendmail.mc")).Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sendmail.cf"), cf, 0o644); err != nil {
		t.Fatal(err)
	}
	age(t, filepath.Join(dir, "sendmail.cf"), time.Hour) // older than the Sendmail that runs
	age(t, filepath.Join(dir, "mailertable"), time.Hour)
	age(t, filepath.Join(dir, "access"), time.Hour)
	return dir
}

// age makes a file older than it is.
func age(t *testing.T, file string, by time.Duration) {
	t.Helper()
	if err := os.Chtimes(file, time.Time{}, time.Now().Add(-by)); err != nil {
		t.Fatal(err)
	}
}

// TestBrokenSendmail breaks a Sendmail that runs in each way: what is found must be that
// and nothing else.
func TestBrokenSendmail(t *testing.T) {
	st, well := healthy(t, stage.MTASendmail)
	breakAll(t, well, append(sendmails, sendmailSites(st)...), func(t *testing.T, s *Site, b broken) {
		if b.main != "" || b.from != "" {
			s.Sendmail = readSendmail(t, breakSendmail(t, st.Alfa, b))
		}
	})
}

// sendmailSites are installations broken beside sendmail.mc.
func sendmailSites(st *stage.Stage) []broken {
	newer := func(name string) func(*testing.T, *Site) {
		return func(t *testing.T, s *Site) {
			dir := breakSendmail(t, st.Alfa, broken{})
			age(t, filepath.Join(dir, name), -time.Hour)
			s.Sendmail = readSendmail(t, dir)
		}
	}
	return []broken{
		{name: "not restarted", site: newer("sendmail.cf"), words: "has changed since Sendmail was started", ids: []string{"sendmail-restart"}},
		{name: "makemap forgotten", site: newer("mailertable"), words: "mailertable is newer", ids: []string{"table"}},
		{name: "socket for everybody", site: func(t *testing.T, s *Site) {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "gate.sock")
			listenAt(t, "unix:"+path)
			s.Config.Gate.Milter = "unix:" + path
			s.Sendmail = readSendmail(t, breakSendmail(t, st.Alfa, broken{from: "inet:" + portOf(st.Alfa.Sendmail.Gate) + "@127.0.0.1", to: "unix:" + path}))
		}, words: "everybody may write to ", ids: []string{"socket-unsafe"}},
		{name: "nobody at port 25", main: " ", from: "Name=MTA, Family=inet, Addr=127.0.0.1, Port=" + portOf(st.Alfa.SMTP), to: "Name=MTA, Family=inet, Addr=127.0.0.1, Port=1",
			words: "MTA: dial tcp 127.0.0.1:1", ids: []string{"port-closed"}},
		{name: "no listener", from: "Port=" + portOf(st.Alfa.Reinject) + ", Listen=1024, M=S')dnl", to: "Port=" + portOf(st.Alfa.SMTP) + ", M=S, InputMailFilters=gate')dnl",
			words: "listens at inet:" + st.Alfa.Reinject, ids: []string{"listener-missing"}},
		{name: "no port 25", from: "DAEMON_OPTIONS(`Name=MTA", to: "dnl (`Name=MTA", words: "listens at port 25", ids: []string{"port25-missing"}},
		{name: "no submission", from: "DAEMON_OPTIONS(`Name=MSA", to: "dnl (`Name=MSA", words: "lets users log in", ids: []string{"submission-missing"}},
	}
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// TestSendmailFixes: what mends a finding names Sendmail's commands where Sendmail is the
// MTA.
func TestSendmailFixes(t *testing.T) {
	for _, id := range []string{"submission-milter", "gate-accept", "route", "tls-policy", "port-closed", "bounces", "table", "no-login"} {
		if fix := fixOf(id, true); strings.Contains(fix, "postfix") || strings.Contains(fix, "postmap") || strings.Contains(fix, "postconf") {
			t.Errorf("%s: %s", id, fix)
		}
		if fix := fixOf(id, false); strings.Contains(fix, "sendmail") {
			t.Errorf("%s with Postfix: %s", id, fix)
		}
	}
}
