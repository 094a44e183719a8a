package main

import (
	"crypto/rand"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/pec/message"
)

// TestVirusListZone: until when an infected message is kept is told in legal time.
func TestVirusListZone(t *testing.T) {
	s := newSite(t)
	store, err := logstore.Open(t.Context(), logstore.Options{Dir: filepath.Join(s.dir, "store"), Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	e := logstore.Entry{At: time.Date(2026, 3, 1, 23, 30, 0, 0, time.UTC), Type: logstore.EntryVirus, Sender: "alice@alfa.example", SendingProvider: "Alfa PEC S.p.A."}
	_, err = store.Commit(t.Context(), logstore.Tx{At: e.At, Acts: []logstore.Act{{Entry: e, Keep: &logstore.Kept{Content: message.Text([]byte("infetto")), Virus: "Eicar",
		Until: e.At.AddDate(3, 0, 0), Source: logstore.KeptReception}}}})
	if err := errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
	code, out, errs := pecd("virus", "list", "--config", s.config)
	if code != 0 || !strings.Contains(out, "2026-03-02 00:30:00") || !strings.Contains(out, "2029-03-02") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}
