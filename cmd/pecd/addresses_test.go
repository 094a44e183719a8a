package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"pecd/pec/message"
	"pecd/points/pointstest"
)

// TestNoAddressLogged: the log names messages by identifiers, not by who wrote them.
// (A recipient whom the mailbox store refuses stands there: docs/security.md.)
func TestNoAddressLogged(t *testing.T) {
	shared := pointstest.New(t)
	for name, tt := range map[string]struct{ raw, line string }{
		"unreadable": {strings.Repeat("X: y\r\n", 20000), "header cannot be read"},
		"foreign":    {string(foreignEnvelope(t, shared)), "does not manage the domain beta.example"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCrashWorld(t, shared, shared.Beta)
			t.Cleanup(w.close)
			var log bytes.Buffer
			w.doors.log = slog.New(slog.NewTextHandler(&log, nil))
			w.arrive([]byte(tt.raw), "carlo@elsewhere.example", "bob@beta.example")
			if !strings.Contains(log.String(), tt.line) || strings.Contains(log.String(), "carlo@") || strings.Contains(log.String(), "bob@") {
				t.Errorf("%s", &log)
			}
		})
	}
}

// foreignEnvelope is an envelope by Alfa in the name of a user of Beta's.
func foreignEnvelope(t *testing.T, w *pointstest.World) []byte {
	t.Helper()
	ev := new(crashWorld).event("bob@beta.example")
	ev.Sender = "anna@beta.example"
	m, err := message.Read(message.Bytes(fmt.Sprintf(matrixMessage, "bob@beta.example")))
	if err != nil {
		t.Fatal(err)
	}
	d, err := w.Alfa.Issuer.Transport(ev, m, message.Facts{}, rand.Reader)
	return signed(t, w.Alfa, d, err)
}
