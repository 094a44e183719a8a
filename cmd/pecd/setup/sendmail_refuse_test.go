package setup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSendmailRefuses: what is not understood is not touched, and the words say what
// it is.
func TestSendmailRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		mc     string // instead of the mailers of minimalMC
		more   map[string]string
		change func(t *testing.T, dir string)
		want   func(w *Wants)
		is     error
		says   string
	}{
		"by hand": {change: func(t *testing.T, dir string) {
			appendTo(t, filepath.Join(dir, CFFile), "O MaxMessageSize=5000\n")
		}, is: ErrByHand, says: `has "O MaxMessageSize=5000"`},
		"no mc": {change: func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, MCFile)); err != nil {
				t.Fatal(err)
			}
		}, is: ErrSendmail, says: "written by hand"},
		"mc broken": {change: func(t *testing.T, dir string) {
			appendTo(t, filepath.Join(dir, MCFile), "include(`/nonexistent/x.m4')\n")
		}, is: ErrSendmail, says: "/nonexistent/x.m4"},
		"daemon in an include": {mc: "include(`m4/provider.m4')dnl\n", more: map[string]string{"m4/provider.m4": "DAEMON_OPTIONS(`Name=hidden, Port=2525')dnl\n"},
			is: ErrSendmail, says: "hidden (Name=hidden, Port=2525) is not written in"},
		"filter in an include": {mc: "include(`m4/provider.m4')dnl\n", more: map[string]string{"m4/provider.m4": "MAIL_FILTER(`old', `S=unix:/run/pecd/access.sock, F=')dnl\n"},
			is: ErrSendmail, says: "the filter old (S=unix:/run/pecd/access.sock, F=) is not written in"},
		"own name":       {mc: "LOCAL_DOMAIN(`pec.example')dnl\n", is: ErrSendmail, says: "takes pec.example for a name of this machine"},
		"table in LDAP":  {mc: "FEATURE(`mailertable', `LDAP')dnl\n", is: ErrSendmail, says: "hash and btree tables only"},
		"another mailer": {mc: "MAILER_DEFINITIONS\nMpecd, P=/bin/false, F=l, A=false\n", is: ErrSendmail, says: "a mailer pecd that does not go to unix:/run/pecd/lmtp.sock"},
		"sender by MTA":  {want: func(w *Wants) { w.MTAChecksSender = true }, is: ErrSendmail, says: `set it to "match"`},
		"odd address":    {want: func(w *Wants) { w.Access = "unix:/run/it's" }, is: ErrSendmail, says: "cannot be written"},
		"unix courier":   {want: func(w *Wants) { w.Reinject = "unix:/run/x" }, is: ErrSendmail, says: "inet:host:port only"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, program := mail(t, func(string) string { return strings.Replace(minimalMC, "MAILER(`local')", c.mc+"MAILER(`local')", 1) }, c.more)
			if c.change != nil {
				c.change(t, dir)
			}
			before, w := snapshot(t, dir), wants()
			if c.want != nil {
				c.want(&w)
			}
			s, err := ReadSendmail(t.Context(), dir, program)
			if err == nil {
				_, err = s.Plan(t.Context(), w)
			}
			if !errors.Is(err, c.is) || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
			same(t, before, snapshot(t, dir))
		})
	}
}

func appendTo(t *testing.T, file, text string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, append(b, text...), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestNoSendmail: what goes by the name may be Postfix's.
func TestNoSendmail(t *testing.T) {
	dir, _ := mail(t, func(string) string { return minimalMC }, nil)
	if _, err := ReadSendmail(t.Context(), dir, "/usr/sbin/sendmail"); !errors.Is(err, ErrSendmail) || !strings.Contains(err.Error(), "no Sendmail at /usr/sbin/sendmail") {
		t.Errorf("%v", err)
	}
}

// TestSendmailPutBack: where the file undoes what was changed, everything is put back.
func TestSendmailPutBack(t *testing.T) {
	for name, late := range map[string]string{
		"undone by a later line": "LOCAL_RULESETS\nO MaxHeadersLength=4000\n",
		"what Sendmail dislikes": "ifdef(`_MAILER_TABLE_', `LOCAL_CONFIG\nO Nonsense=3')\n", // once there is a mailertable
		"mail goes elsewhere":    "LOCAL_RULE_0\nR$* < @ pec.example $* > $*\t$#esmtp $@ elsewhere.example $: $1 < @ pec.example >\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, program := mail(t, func(string) string { return minimalMC + late }, nil)
			before := snapshot(t, dir)
			s := readSendmail(t, dir, program)
			if _, err := s.Apply(t.Context(), planSendmail(t, s), wants(), noon); !errors.Is(err, ErrSendmail) || !strings.Contains(err.Error(), "everything was put back") {
				t.Errorf("%v", err)
			} else {
				t.Log(err)
			}
			same(t, before, snapshot(t, dir))
			left, err := filepath.Glob(filepath.Join(dir, "*.db"))
			if backups, _ := filepath.Glob(filepath.Join(dir, backupPrefix+"*")); err != nil || len(left)+len(backups) > 0 {
				t.Errorf("left behind: %v %v", left, backups)
			}
			if _, _, err := UndoSendmail(t.Context(), dir, program); !errors.Is(err, ErrNothing) {
				t.Errorf("undo: %v", err)
			}
		})
	}
}

// TestSendmailMeanwhile: what somebody has written since the plan was made stays, and a
// table that he has removed hinders no undo.
func TestSendmailMeanwhile(t *testing.T) {
	dir, program := mail(t, func(string) string { return minimalMC }, nil)
	s := readSendmail(t, dir, program)
	plan := planSendmail(t, s)
	appendTo(t, filepath.Join(dir, MCFile), "dnl mine\n")
	before := snapshot(t, dir)
	if _, err := s.Apply(t.Context(), plan, wants(), noon); !errors.Is(err, ErrMeanwhile) {
		t.Errorf("%v", err)
	}
	same(t, before, snapshot(t, dir))
	applySendmail(t, readSendmail(t, dir, program), noon)
	if err := os.Remove(filepath.Join(dir, "mailertable")); err != nil {
		t.Fatal(err)
	}
	if _, left, err := UndoSendmail(t.Context(), dir, program); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	same(t, before, snapshot(t, dir))
	// What was made of that table would still send mail to a mailer that is gone.
	if made, err := filepath.Glob(filepath.Join(dir, "*.db")); err != nil || len(made) > 0 {
		t.Errorf("left behind: %v, %v", made, err)
	}
}

// TestSendmailAgain: a second application, for a new domain and a pecd that moved,
// changes that alone, and each can be taken back.
func TestSendmailAgain(t *testing.T) {
	dir, program := mail(t, func(dir string) string { return debianMC(t, dir) }, nil)
	before := snapshot(t, dir)
	applySendmail(t, readSendmail(t, dir, program), noon)
	between := snapshot(t, dir)
	w := wants()
	w.Domains, w.LMTP = append(w.Domains, "new.example"), "inet:127.0.0.1:10024"
	s := readSendmail(t, dir, program)
	plan, err := s.Plan(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), plan, w, noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.Diff(plan, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"+RELAY_DOMAIN(`new.example')dnl\n", "+new.example\tpecd:new.example\n", "+\tT=DNS/RFC822/SMTP, A=TCP [127.0.0.1] 10024\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if n := strings.Count(out.String(), "\n+"); n != 5 { // and the names of two files
		t.Errorf("%d lines are new:\n%s", n, out.String())
	}
	for _, want := range []map[string]string{between, before} {
		if _, left, err := UndoSendmail(t.Context(), dir, program); err != nil || len(left) > 0 {
			t.Fatal(left, err)
		}
		same(t, want, snapshot(t, dir))
	}
}

// TestSendmailDiffApplies: patch(1) makes of the old files what Apply makes of them.
func TestSendmailDiffApplies(t *testing.T) {
	f := sendmails["Debian in use"]
	dir, program := mail(t, func(dir string) string { return f.mc(t, dir) }, f.more)
	s := readSendmail(t, dir, program)
	plan := planSendmail(t, s)
	var diff bytes.Buffer
	if err := s.Diff(plan, &diff); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("patch", "-p0", "--unified")
	cmd.Stdin, cmd.Dir = &diff, "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	now := snapshot(t, dir)
	for _, r := range plan.Files {
		if now[r.Name] != string(r.New) {
			t.Errorf("%s:\n%s", r.Name, now[r.Name])
		}
	}
}

// TestSendmailManyPeers: the whole directory of providers, twice as large as it is,
// takes a moment.
func TestSendmailManyPeers(t *testing.T) {
	dir, program := mail(t, func(string) string { return minimalMC }, nil)
	w := wants()
	for i := range 20_000 {
		w.Peers = append(w.Peers, fmt.Sprintf("d%d.example", i))
	}
	s := readSendmail(t, dir, program)
	start := time.Now()
	plan, err := s.Plan(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.Diff(plan, &out); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), plan, w, noon); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n > 300 {
		t.Errorf("%d lines are shown", n)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	} else {
		t.Log(took)
	}
}

func TestSendmailTime(t *testing.T) {
	for s, want := range map[string]time.Duration{"5d": 120 * time.Hour, "1d12h": 36 * time.Hour, "2": 48 * time.Hour, "30m": 30 * time.Minute, "": 0, "now": 0} {
		if got := sendmailTime(s, 24*time.Hour); got != want {
			t.Errorf("%q is %v, want %v", s, got, want)
		}
	}
}

// TestSendmailUndoToTheOctet: what m4 and makemap made is again as it was too, with the
// comments that tell when; but not where the table would lack what somebody added.
func TestSendmailUndoToTheOctet(t *testing.T) {
	for name, others := range map[string]bool{"alone": false, "others too": true} {
		t.Run(name, func(t *testing.T) {
			dir, program := mail(t, func(dir string) string { return debianMC(t, dir) }, map[string]string{"access": "x.example\tREJECT\n"})
			at := func(name string) string { return filepath.Join(dir, name) }
			appendTo(t, at(CFFile), "##### built by hand\n")
			if out, err := exec.Command("sh", "-c", `cd "$1" && ./makemap -C sendmail.cf hash access <access`, "sh", dir).CombinedOutput(); err != nil {
				t.Fatal(err, string(out))
			}
			made := func() [2]string {
				t.Helper()
				cf, err := os.ReadFile(at(CFFile))
				db, dberr := os.ReadFile(at("access.db"))
				if err := errors.Join(err, dberr); err != nil {
					t.Fatal(err)
				}
				return [2]string{string(cf), string(db)}
			}
			before := made()
			applySendmail(t, readSendmail(t, dir, program), noon)
			if after := made(); after[0] == before[0] || after[1] == before[1] {
				t.Error("nothing was made anew")
			}
			if others {
				appendTo(t, at("access"), "y.example\tREJECT\n")
			}
			if _, _, err := UndoSendmail(t.Context(), dir, program); err != nil {
				t.Fatal(err)
			}
			after := made()
			if after[0] != before[0] {
				t.Error("sendmail.cf is not what it was")
			}
			if (after[1] == before[1]) == others || strings.Contains(after[1], "y.example") != others {
				t.Errorf("the same table: %v", after[1] == before[1])
			}
		})
	}
}
