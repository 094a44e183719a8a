package test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pecd/packaging/demo/stage"
	"pecd/pec"
)

// TestOperate looks at a provider as an operator does: health, log, backup, report.
func TestOperate(t *testing.T) {
	s := newStage(t)
	send(t, s, compose("operate", "", "bob@beta.example"), "bob@beta.example")
	await(t, s, "alice@alfa.example", pec.KindDelivery, "operate")
	settled(t, s)
	t.Run("health", func(t *testing.T) { healthy(t, s) })
	t.Run("log lines", func(t *testing.T) { logLines(t, s) })
	t.Run("report", func(t *testing.T) { reported(t, s) })
	t.Run("canary", func(t *testing.T) { canary(t, s) })
	t.Run("backup", func(t *testing.T) { backedUp(t, s) })
}

// page fetches a page of a provider's metrics listener.
func page(t *testing.T, p *stage.Provider, path string) (int, string) {
	t.Helper()
	res, err := http.Get("http://" + p.Pecd.Config.Metrics.Listen + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func healthy(t *testing.T, s *stage.Stage) {
	if code, text := page(t, s.Alfa, "/healthz"); code != 200 || text != "ok\n" {
		t.Errorf("/healthz: %d %s", code, text)
	}
	var code int
	var text string
	until(t, "all is ready", func() bool { code, text = page(t, s.Alfa, "/readyz"); return code == 200 })
	var ready struct {
		Ready  bool
		Checks []struct {
			Name  string
			OK    bool
			Error string
		}
	}
	if err := json.Unmarshal([]byte(text), &ready); err != nil || code != 200 || !ready.Ready || len(ready.Checks) < 4 {
		t.Errorf("/readyz: %d %s: %v", code, text, err)
	}
	if code, text := page(t, s.Alfa, "/metrics"); code != 200 || strings.Count(text, "\npecd_ready{check=") < 4 {
		t.Errorf("/metrics: %d, %d checks", code, strings.Count(text, "\npecd_ready{check="))
	}
}

// logLines wants the MTA's name of the message and the identifier in each line
// about a message, at every door.
func logLines(t *testing.T, s *stage.Stage) {
	both := regexp.MustCompile(`.*\bqid=([0-9A-Za-z]{6,}|P[0-9]+ ).*`) // P: straight from the outbox, by its number
	about := map[string]int{}
	for _, p := range s.Providers() {
		f, err := os.Open(p.Pecd.Log)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for sc := bufio.NewScanner(f); sc.Scan(); {
			for _, what := range []string{`msg="message accepted"`, `msg="message received"`, `msg="courier: taken by the MTA"`} {
				if !strings.Contains(sc.Text(), what) {
					continue
				}
				about[what]++
				if !both.MatchString(sc.Text()) || !strings.Contains(sc.Text(), " id=") || strings.Contains(sc.Text(), ` id=""`) {
					t.Errorf("a line without the MTA's queue id and the identifier: %s", sc.Text())
				}
			}
		}
	}
	// An envelope and five receipts, in or out of both providers.
	if about[`msg="message accepted"`] != 1 || about[`msg="message received"`] < 4 || about[`msg="courier: taken by the MTA"`] < 3 {
		t.Errorf("lines about messages: %v", about)
	}
}

// backedUp copies Alfa's store while messages come, puts the copy in its place, and
// wants a provider that goes on: the register verifies, each message before the copy
// is in it once, and another one is certified.
func backedUp(t *testing.T, s *stage.Stage) {
	before := registered(t, s.Alfa, register(t, s.Alfa)[0].Identifier)
	done := make(chan error, 1)
	stopLoad := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stopLoad:
				return
			default:
			}
			subject := fmt.Sprintf("load %d", n)
			if _, err := s.Submit(context.Background(), "alice@alfa.example", "alice@alfa.example", []string{"bob@beta.example"},
				[]byte(compose(subject, "", "bob@beta.example"))); err != nil {
				done <- err
				return
			}
		}
	}()
	until(t, "messages come", func() bool { return logged(t, s.Alfa, `msg="message accepted"`) > 5 })
	dir := filepath.Join(t.TempDir(), "copy")
	code, out := ask(t, s.Alfa, "backup", dir)
	if code != 0 || !strings.Contains(out, "read back and checked") {
		t.Errorf("exit %d\n%s", code, out)
	}
	t.Log(out)
	if code, out := ask(t, s.Alfa, "backup", dir); code != 1 || !strings.Contains(out, "not empty") {
		t.Errorf("over a backup: exit %d\n%s", code, out)
	}
	close(stopLoad)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	settled(t, s)
	stop(t, s.Alfa)
	store := s.Alfa.Pecd.Config.Store.Path
	if err := errors.Join(os.Rename(store, store+".old"), os.Rename(dir, store)); err != nil {
		t.Fatal(err)
	}
	start(t, s.Alfa)
	if code, out := ask(t, s.Alfa, "log", "verify"); code != 0 || !strings.Contains(out, "chain          whole") {
		t.Errorf("restored: exit %d\n%s", code, out)
	}
	if after := registered(t, s.Alfa, register(t, s.Alfa)[0].Identifier); after != before {
		t.Errorf("restored: the first message has %s, had %s", after, before)
	}
	send(t, s, compose("restored", "", "bob@beta.example"), "bob@beta.example")
	await(t, s, "alice@alfa.example", pec.KindDelivery, "restored")
}

// reported wants the figures of one certified message from Alfa to Beta.
func reported(t *testing.T, s *stage.Stage) {
	month := register(t, s.Alfa)[0].At.Format("2006-01")
	until(t, "availability is noted", func() bool {
		_, out := ask(t, s.Beta, "report", "--period", month)
		_, alfa := ask(t, s.Alfa, "report", "--period", month)
		return strings.Contains(out, "per cent available") && strings.Contains(alfa, "acceptances measured")
	})
	if code, out := ask(t, s.Alfa, "report", "--period", month); code != 0 || !strings.Contains(out, "messages accepted from users         1\n") ||
		!strings.Contains(out, "acceptances measured                 1\n") {
		t.Errorf("Alfa: exit %d\n%s", code, out)
	} else {
		t.Log(out)
	}
	code, out := ask(t, s.Beta, "report", "--period", month, "--json")
	var r struct {
		Messages     map[string]int
		Availability struct {
			Percent float64
		}
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		t.Fatalf("exit %d, %v: %s", code, err, out)
	}
	if m := r.Messages; m["received"] != 1 || m["delivered"] != 1 || m["accepted"] != 0 || m["mailboxes"] != 1 || r.Availability.Percent == 0 {
		t.Errorf("Beta: %s", out)
	}
	if code, out := ask(t, s.Beta, "report", "--period", "2026-Q4"); code != 2 {
		t.Errorf("a period that is none: exit %d\n%s", code, out)
	}
}

// canary has Beta's daemon send a message through the whole way, and then finds that
// it cannot: the password is wrong.
func canary(t *testing.T, s *stage.Stage) {
	u := s.Beta.Users[0]
	file := filepath.Join(t.TempDir(), "canary")
	write := func(password string) {
		if err := os.WriteFile(file, []byte(u.Address+"\n"+password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(u.Password)
	dir := filepath.Join(filepath.Dir(s.Beta.Pecd.ConfigFile), "conf.d")
	text := fmt.Sprintf("[canary]\ncredentials = %q\ninterval = \"5s\"\nsubmission = %q\n", file, s.Beta.Submission)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "canary.toml"), []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	stop(t, s.Beta)
	start(t, s.Beta)
	until(t, "a canary is delivered", func() bool { return logged(t, s.Beta, `msg="canary delivered"`) > 0 })
	if _, text := page(t, s.Beta, "/metrics"); !strings.Contains(text, "\npecd_canary_failed 0\n") {
		t.Error("the figures know nothing of the canary")
	}
	write("wrong")
	until(t, "a canary is refused", func() bool { return logged(t, s.Beta, "level=ERROR msg=canary") > 0 })
	if _, text := page(t, s.Beta, "/metrics"); !strings.Contains(text, "\npecd_canary_failed 1\n") {
		t.Error("the figures do not know that the canary failed")
	}
	if err := os.Remove(filepath.Join(dir, "canary.toml")); err != nil {
		t.Fatal(err)
	}
	stop(t, s.Beta)
	start(t, s.Beta)
}
