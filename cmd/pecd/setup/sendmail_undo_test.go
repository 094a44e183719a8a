package setup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// change puts a text in the place of another one in a file.
func change(t *testing.T, file, old, text string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		t.Fatalf("no %q in %s:\n%s", old, file, b)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), old, text, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestSendmailUndoAfterOthers: what others have changed since stays, the rest is taken
// back.
func TestSendmailUndoAfterOthers(t *testing.T) {
	dir, program := mail(t, func(string) string { return minimalMC }, nil)
	applySendmail(t, readSendmail(t, dir, program), noon)
	mc, err := os.ReadFile(filepath.Join(dir, MCFile))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(mc), "`confTO_QUEUERETURN', `1d'", "`confTO_QUEUERETURN', `12h'", 1)
	text = strings.Replace(text, "MAILER(`smtp')", "FEATURE(`nocanonify')dnl\nMAILER(`smtp')", 1)
	if err := os.WriteFile(filepath.Join(dir, MCFile), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	appendTo(t, filepath.Join(dir, "mailertable"), "x.example\tesmtp:[192.0.2.2]\n")
	_, left, err := UndoSendmail(t.Context(), dir, program)
	if err != nil || len(left) != 1 || left[0] != filepath.Join(dir, MCFile) {
		t.Fatalf("left %v, %v", left, err)
	}
	now := snapshot(t, dir)
	for _, want := range []string{"`confTO_QUEUERETURN', `12h'", "FEATURE(`nocanonify')", "`goaway,noreceipts'"} {
		if !strings.Contains(now[filepath.Join(dir, MCFile)], want) {
			t.Errorf("%s is gone:\n%s", want, now[filepath.Join(dir, MCFile)])
		}
	}
	if strings.Contains(now[filepath.Join(dir, MCFile)], "MAIL_FILTER") || now[filepath.Join(dir, "mailertable")] != "x.example\tesmtp:[192.0.2.2]\n" {
		t.Errorf("not taken back:\n%s", now[filepath.Join(dir, MCFile)])
	}
}

// TestSendmailUndoStillCalled: while something that somebody has changed calls pecd, pecd
// can hand in what it signs, by the listener and with what stands in the files for it.
// Without the filter that is asked for Sendmail would not even start. Once nothing calls
// pecd any more, all of that goes.
func TestSendmailUndoStillCalled(t *testing.T) {
	for name, c := range map[string]struct{ file, old, text, out string }{
		"a daemon":                  {MCFile, "InputMailFilters=pecdaccess'", "InputMailFilters=spam;pecdaccess'", "InputMailFilters=spam'"},
		"a daemon on several lines": {MCFile, "M=E, InputMailFilters=pecdaccess'", "M=E,\n\tInputMailFilters=pecdaccess'", "M=E'"},
		"a table":                   {"mailertable", "pec.example\tpecd:pec.example", "pec.example pecd:pec.example", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, program := mail(t, func(string) string {
				return strings.Replace(minimalMC, "MAILER(`local')", "MAIL_FILTER(`spam', `S=unix:/run/spam.sock')dnl\nMAILER(`local')", 1)
			}, nil)
			applySendmail(t, readSendmail(t, dir, program), noon)
			file := filepath.Join(dir, c.file)
			change(t, file, c.old, c.text)
			backup, left, err := UndoSendmail(t.Context(), dir, program)
			if err != nil || strings.HasSuffix(backup, UndoneSuffix) || !slices.Contains(left, filepath.Join(dir, MCFile)) {
				t.Fatalf("%s, left %v, %v", backup, left, err)
			}
			now := readSendmail(t, dir, program)
			if names := now.cf.undefined(); len(names) > 0 {
				t.Errorf("asked for and not defined: %v", names)
			}
			if _, ok := now.Listener(wants().Reinject); !ok {
				t.Error("what pecd signs does not leave")
			}
			routes, err := now.Routes(t.Context(), []string{"pec.example"})
			if err != nil || !now.RoutesTo(routes["pec.example"], wants().LMTP) || len(now.Demands(wants())) > 0 {
				t.Errorf("the files are not as pecd needs them: %v, %v, %v", routes, now.Demands(wants()), err)
			}
			if _, ok := now.cf.filters["pecdgate"]; ok {
				t.Error("the gate, which nobody asks for, was not taken back")
			}
			change(t, file, c.text, c.out)
			if backup, _, err = UndoSendmail(t.Context(), dir, program); err != nil || !strings.HasSuffix(backup, UndoneSuffix) {
				t.Errorf("%s, %v", backup, err)
			}
			now = readSendmail(t, dir, program)
			if _, ok := now.Listener(wants().Reinject); ok || len(now.Demands(wants())) == 0 || now.cf.filters["pecdaccess"].Name != "" {
				t.Error("the rest was not taken back")
			}
			if n := strings.Count(now.cf.text, "\nO DaemonPortOptions=Port=587, Name=MSA"); n != 1 {
				t.Errorf("%d daemons listen for users", n)
			}
		})
	}
}

// TestSendmailUndoRefuses: with what would be left Sendmail would not start, for a reason
// that does not stand in sendmail.mc itself: then nothing is changed.
func TestSendmailUndoRefuses(t *testing.T) {
	t.Parallel()
	dir, program := mail(t, func(string) string {
		return strings.Replace(minimalMC, "MAILER(`local')", "include(`m4/provider.m4')dnl\nMAILER(`local')", 1)
	}, map[string]string{"m4/provider.m4": ""})
	applySendmail(t, readSendmail(t, dir, program), noon)
	if err := os.WriteFile(filepath.Join(dir, "m4/provider.m4"), []byte("DAEMON_OPTIONS(`Name=more, Port=2525, InputMailFilters=pecdaccess')dnl\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	rebuildCF(t, dir)
	before := snapshot(t, dir)
	if _, _, err := UndoSendmail(t.Context(), dir, program); err == nil || !strings.Contains(err.Error(), "pecdaccess") {
		t.Errorf("%v", err)
	}
	same(t, before, snapshot(t, dir))
}

// TestUndoAdjacent: of daemons that stand one after the other, the one that somebody has
// changed stays, and the other is again as it was.
func TestUndoAdjacent(t *testing.T) {
	for _, block := range []string{"", "dnl mark\nMAIL_FILTER(`q', `S=local:/q')dnl\n"} { // what setup adds right behind them
		old, after := "a\nDAEMON_OPTIONS(`Name=MTA')dnl\nDAEMON_OPTIONS(`Name=MSA')dnl\nz\n", "a\nDAEMON_OPTIONS(`Name=MTA, I=g')dnl\nDAEMON_OPTIONS(`Name=MSA, I=p')dnl\n"+block+"z\n"
		for _, c := range []struct{ mine, theirs, stays, want string }{
			{"I=p", "I=x;p", "`Name=MSA'", "`Name=MSA, I=x;p'"},
			{"I=g", "I=x;g", "`Name=MTA'", "`Name=MTA, I=x;g'"},
		} {
			text, whole, calls := revertMC([]byte(strings.Replace(after, c.mine, c.theirs, 1)), []byte(old), []byte(after), false)
			if want := strings.Replace(old, c.stays, c.want, 1); string(text) != want || whole || calls {
				t.Errorf("%v, %v:\n%s", whole, calls, text)
			}
		}
	}
}
