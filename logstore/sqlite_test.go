package logstore_test

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/storetest"
)

func open(t testing.TB, o logstore.Options) *logstore.SQLite {
	t.Helper()
	o.Now, o.Rand = time.Now, rand.Reader
	s, err := logstore.Open(context.Background(), o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

func TestStore(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit int64
	}{
		{"inline and files", 0},
		{"only files", -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			storetest.Test(t, func(t *testing.T, dir string) logstore.Store {
				return open(t, logstore.Options{Dir: dir, InlineLimit: c.limit})
			})
		})
	}
}
