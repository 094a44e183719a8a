package test

import (
	"context"
	"database/sql"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pecd/cmd/pecd/clockwatch/clockwatchtest"
	"pecd/packaging/demo/stage"
	"pecd/pec"
	"pecd/signer/timestamp/timestamptest"
)

// A stampServer is an authority whose clock goes with the test, and that can be
// away.
type stampServer struct {
	*timestamptest.Authority
	away atomic.Bool
}

func (s *stampServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.away.Load() {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	s.reply(w, r)
}

func (s *stampServer) reply(w http.ResponseWriter, r *http.Request) {
	query, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	reply, err := s.Answer(query)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	w.Write(reply)
}

// ask runs a command of pecd about a provider and returns its exit code and all
// that it prints.
func ask(t *testing.T, p *stage.Provider, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(p.Pecd.Bin, append(args, "--config", p.Pecd.ConfigFile)...)
	cmd.Env = append(os.Environ(), p.Pecd.Env...)
	out, err := cmd.CombinedOutput()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// TestSeal has Alfa seal its register: the authority is away when the day ends, the
// daemon is down for three midnights, and then all days are sealed. What is altered
// afterwards in what is sealed or witnessed is found, and for the rest it is said
// that nothing covers it.
func TestSeal(t *testing.T) {
	tsa := &stampServer{Authority: timestamptest.New(t, nil)}
	server := httptest.NewServer(tsa)
	t.Cleanup(server.Close)
	anchors := filepath.Join(t.TempDir(), "tsa.pem")
	if err := os.WriteFile(anchors, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tsa.CA.Certificate.Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	// From noon to noon: a midnight more or less is a day more or less to seal.
	moved := untilNoon(t)
	tsa.Now = func() time.Time { return time.Now().Add(moved) }
	s, clock := clockAhead(t, moved, func(o *stage.Options) {
		o.Configure = func(_ string, c *stage.PecdConfig) {
			c.Seal = stage.SealConfig{TSA: []string{server.URL}, TSAAnchors: anchors}
			c.Witness = stage.WitnessConfig{Interval: "1h", Timestamp: true, Receipts: true}
		}
	})
	send(t, s, compose("seal one", "", "anna@alfa.example"), "anna@alfa.example")
	await(t, s, "alice@alfa.example", pec.KindDelivery, "seal one")
	if code, out := ask(t, s.Alfa, "log", "seal"); code != 0 || !strings.Contains(out, "all days that are over are sealed") {
		t.Errorf("before the day is over: exit %d\n%s", code, out)
	}
	if code, out := ask(t, s.Alfa, "log", "verify"); code != 0 || !strings.Contains(out, "not covered    1 to ") {
		t.Errorf("before anything is sealed: exit %d\n%s", code, out)
	}

	if err := s.Alfa.Pecd.Kill(); err != nil {
		t.Fatal(err)
	}
	moved += 73 * time.Hour
	clock(moved)
	tsa.away.Store(true)
	if err := s.Alfa.Pecd.Start(within(t)); err != nil {
		t.Fatal(err)
	}
	until(t, "the daemon says that it could not seal", func() bool { return logged(t, s.Alfa, `msg="sealing the register failed"`) > 0 })
	if code, out := ask(t, s.Alfa, "log", "seal"); code != 1 || !strings.Contains(out, "no time stamp can be had now") {
		t.Errorf("while the authority is away: exit %d\n%s", code, out)
	}
	if _, out := ask(t, s.Alfa, "doctor", "--no-dns", "--postfix-config-dir", s.Alfa.PostfixDir); !strings.Contains(out, "[seal-failing]") || !strings.Contains(out, "attempts to seal a day failed") {
		t.Errorf("the doctor, while the authority is away:\n%s", out)
	}
	// The administrator names another authority, of the same anchors.
	other := httptest.NewServer(http.HandlerFunc(tsa.reply))
	t.Cleanup(other.Close)
	named := strings.Replace(fileText(t, s.Alfa.Pecd.ConfigFile), server.URL, other.URL, 1)
	hangUp(t, s.Alfa.Pecd, named, "msg=reloaded")
	code, out := ask(t, s.Alfa, "log", "seal") // what the daemon has not sealed yet
	days, err := filepath.Glob(filepath.Join(s.Alfa.Pecd.Config.Store.Path, "seals", "20*"))
	if code != 0 || err != nil || len(days) != 3 {
		t.Errorf("after three midnights: exit %d, %q, %v\n%s", code, days, err, out)
	}
	send(t, s, compose("seal two", "", "anna@alfa.example"), "anna@alfa.example")
	await(t, s, "alice@alfa.example", pec.KindDelivery, "seal two")
	settled(t, s)

	code, out = ask(t, s.Alfa, "log", "verify")
	if code != 0 || !strings.Contains(out, "chain          whole") || !strings.Contains(out, "vouched for    up to ") || !strings.Contains(out, "not covered    ") {
		t.Errorf("exit %d\n%s", code, out)
	}
	t.Log(out)
	if code, out := ask(t, s.Alfa, "log", "export"); code != 0 || !strings.Contains(out, "tipo=accettazione (Accettazione): ") {
		t.Errorf("export: exit %d\n%s", code, out)
	}
	rightRegister(t, s)
	witness := filepath.Join(t.TempDir(), "receipt.eml")
	if err := os.WriteFile(witness, await(t, s, "alice@alfa.example", pec.KindDelivery, "seal two").raw, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, out := ask(t, s.Alfa, "log", "verify", "--heads", witness); code != 0 || strings.Contains(out, "not covered    11 to") {
		t.Errorf("with a receipt as witness: exit %d\n%s", code, out)
	}
	saved := filepath.Join(s.Alfa.Pecd.Config.Store.Path, "saved")
	if code, out := ask(t, s.Alfa, "backup", saved); code != 0 || !strings.Contains(out, "read back and checked") {
		t.Errorf("backup: exit %d\n%s", code, out)
	}
	if code, out := ask(t, s.Alfa, "backup", saved); code != 1 || !strings.Contains(out, "not empty") {
		t.Errorf("backup: exit %d\n%s", code, out)
	}
	stop(t, s.Alfa)
	db, err := sql.Open("sqlite3", filepath.Join(s.Alfa.Pecd.Config.Store.Path, "pecd.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tamper(t, db)
	if code, out := ask(t, s.Alfa, "log", "verify"); code != 1 || !strings.Contains(out, "BROKEN         entry 1") {
		t.Errorf("altered: exit %d\n%s", code, out)
	}
}

// untilNoon is how far away the next noon of the registers is.
func untilNoon(t *testing.T) time.Duration {
	t.Helper()
	rome, err := time.LoadLocation("Europe/Rome")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().In(rome)
	return time.Date(now.Year(), now.Month(), now.Day()+1, 12, 0, 0, 0, rome).Sub(now)
}

// rightRegister asks Alfa's commands about a register that is right.
func rightRegister(t *testing.T, s *stage.Stage) {
	t.Helper()
	if code, out := ask(t, s.Alfa, "log", "check", "--all"); code != 0 || !strings.Contains(out, ": 0 things wrong, 0 explained") {
		t.Errorf("check: exit %d\n%s", code, out)
	}
	receipt := await(t, s, "alice@alfa.example", pec.KindDelivery, "seal two")
	id := string(receipt.event.Identifier)
	if code, out := ask(t, s.Alfa, "log", "show", id); code != 0 || !strings.Contains(out, "accettazione ") || !strings.Contains(out, "delivered, known since") {
		t.Errorf("show: exit %d\n%s", code, out)
	} else {
		t.Log(out)
	}
	dir := t.TempDir()
	if code, out := ask(t, s.Alfa, "receipt", "rebuild", id, "-o", dir); code != 0 || strings.Count(out, ".eml") != 3 {
		t.Errorf("rebuild: exit %d\n%s", code, out)
	}
	files, err := filepath.Glob(dir + "/*.eml")
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		out, err := exec.Command(s.Alfa.Pecd.Bin, "verify", f, "--ca", s.CA, "--directory", s.Directory).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "a duplicate, made from the provider's register") {
			t.Errorf("%s: %v\n%s", f, err, out)
		}
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stage.VerifyMessage(within(t), raw, s.CA); err != nil {
			t.Errorf("OpenSSL: %v", err)
		}
	}
	if code, out := ask(t, s.Alfa, "receipt", "rebuild", "none@alfa.example"); code != 1 || !strings.Contains(out, "no receipt or notice of ours") {
		t.Errorf("exit %d\n%s", code, out)
	}
}

// tamper changes the first entry of a register, as who can write to the file.
func tamper(t *testing.T, db *sql.DB) {
	t.Helper()
	rows, err := db.QueryContext(context.Background(), "SELECT name FROM sqlite_master WHERE type = 'trigger'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var drop []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		drop = append(drop, "DROP TRIGGER "+name)
	}
	for _, q := range append(drop, "UPDATE entry SET record = replace(record, 'alice', 'mario') WHERE seq = 1") {
		if _, err := db.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// TestClock gives Alfa an NTP server that is five seconds ahead: messages wait until
// it is right.
func TestClock(t *testing.T) {
	var ahead atomic.Int64
	ahead.Store(int64(5 * time.Second))
	server := clockwatchtest.Serve(t, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	s := newStage(t, func(o *stage.Options) {
		o.Configure = func(domain string, c *stage.PecdConfig) {
			if domain == "alfa.example" {
				c.Time = stage.TimeConfig{NTP: []string{server}, OnOffset: "refuse", Interval: "1s"}
			}
		}
	})
	waitMetric(t, s.Alfa, "pecd_clock_doubted", 1)
	raw := compose("clock", "", "anna@alfa.example")
	_, err := s.Submit(within(t), "alice@alfa.example", "alice@alfa.example", []string{"anna@alfa.example"}, []byte(raw))
	wantLater(t, err)
	ahead.Store(0)
	waitMetric(t, s.Alfa, "pecd_clock_doubted", 0)
	send(t, s, raw, "anna@alfa.example")
	await(t, s, "alice@alfa.example", pec.KindDelivery, "clock")
}
