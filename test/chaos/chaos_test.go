package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestChaos is a small run of make chaos. The seed fixes which faults there are;
// which message each meets is for the machine to say. Afterwards the judge is told
// lies about what it reads, and must find out each.
func TestChaos(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "pecd-chaos") // clamd's user must reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	o := options{seed: 20, faults: 20, messages: 250, senders: 6, settle: 3 * time.Minute, log: said{t}, dir: dir}
	o.look = func(judge func(...string) (verdict, error)) error { return lies(t, dir, judge) }
	v, err := run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range v.Violations {
		t.Error(s)
	}
	if v.Counts["accepted"] < o.messages || v.Counts["delivery"] == 0 || v.Counts["signatures verified by OpenSSL"] == 0 {
		t.Errorf("the judge counted %v", v.Counts)
	}
}

// said writes to the log of a test.
type said struct{ t *testing.T }

// Write implements io.Writer.
func (s said) Write(p []byte) (int, error) {
	s.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// lies tells the judge what is not so.
func lies(t *testing.T, dir string, judge func(...string) (verdict, error)) error {
	text, err := os.ReadFile(filepath.Join(dir, "world.json"))
	if err != nil {
		return err
	}
	var world struct {
		Sendings []sending
		Boxes    map[string]string
	}
	if err := json.Unmarshal(text, &world); err != nil {
		return err
	}
	// The first mail of each kind.
	first := map[string]string{}
	for _, box := range world.Boxes {
		files, err := filepath.Glob(filepath.Join(box, "new", "*"))
		if err != nil {
			return err
		}
		for _, f := range files {
			raw, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			header, _, _ := strings.Cut(string(raw), "\n\n")
			for _, field := range []string{"X-Ricevuta: accettazione", "X-Ricevuta: presa-in-carico", "X-Ricevuta: avvenuta-consegna", "X-Trasporto: posta-certificata"} {
				if strings.Contains(header, "\n"+field+"\n") {
					first[field] = f
				}
			}
		}
	}
	for _, lie := range []struct{ what, file, want string }{
		{"--hide", first["X-Ricevuta: accettazione"], "acceptance receipts"},
		{"--hide", first["X-Ricevuta: presa-in-carico"], "take-charge receipts"},
		{"--hide", first["X-Ricevuta: avvenuta-consegna"], "final outcomes"},
		{"--hide", first["X-Trasporto: posta-certificata"], "no copy in the mailbox"},
		{"--refused", world.Sendings[0].MsgID, "nobody had accepted"},
		{"--garbled", first["X-Ricevuta: accettazione"], "verification failure"},
	} {
		v, err := judge(lie.what, lie.file)
		if err != nil {
			return err
		}
		if !strings.Contains(strings.Join(v.Violations, "\n"), lie.want) {
			t.Errorf("the judge was told %s %s and did not say %q: %v", lie.what, lie.file, lie.want, v.Violations)
		}
	}
	return nil
}
