package main

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/smtp"
	"time"

	"pecd/cmd/pecd/clockwatch/clockwatchtest"
	"pecd/logstore"
	"pecd/pec"
	"pecd/signer/timestamp/timestamptest"
)

// history configures the seal, and writes a register that begins with March 2026 as pecd's user.
func (m *pagesMachine) history() {
	m.Helper()
	tsa := timestamptest.New(m.T, nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, err := io.ReadAll(r.Body)
		reply, aerr := tsa.Answer(query)
		if err = errors.Join(err, aerr); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Write(reply)
	}))
	m.Cleanup(server.Close)
	m.write("/etc/pecd/tsa.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tsa.CA.Certificate.Raw})))
	m.sh("/", "mkdir -p /etc/pecd/conf.d")
	m.write("/etc/pecd/conf.d/60-pages.toml", fmt.Sprintf("[seal]\ntsa = [%q]\ntsa_anchors = \"/etc/pecd/tsa.pem\"\n[time]\nntp = [%q]\ninterval = \"1s\"\n",
		server.URL, clockwatchtest.Serve(m.T, time.Now)))
	store, err := logstore.Open(m.Context(), logstore.Options{Dir: "/var/lib/pecd", Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		m.Fatal(err)
	}
	for _, day := range []int{1, 9, 30, 40} {
		at := time.Date(2026, 3, day, 9, 0, 0, 0, time.UTC)
		e := logstore.Entry{At: at, Type: "rifiuto", Identifier: pec.Identifier(fmt.Sprintf("day%d@example.it", day)), Sender: "alice@example.it",
			Recipients: []pec.Recipient{}, SendingProvider: "TEST example.it", Subject: "Offerta"}
		if _, err := store.Commit(m.Context(), logstore.Tx{At: at, Acts: []logstore.Act{{Entry: e}}}); err != nil {
			m.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		m.Fatal(err)
	}
	m.sh("/", "chown -R pecd:pecd /var/lib/pecd")
}

// mail sends a certified message from Alice to Anna and waits for the delivery receipt.
func (m *pagesMachine) mail() {
	m.Helper()
	m.write(canaryFile, "alice@example.it\nsecret\n")
	const text = "From: alice@example.it\r\nTo: anna@example.it\r\nSubject: Offerta\r\nMessage-ID: <c1@client.example>\r\n\r\nCiao\r\n"
	c, err := smtp.Dial("127.0.0.1:587")
	if err != nil {
		m.Fatal(err)
	}
	defer c.Close()
	if err := errors.Join(c.StartTLS(&tls.Config{InsecureSkipVerify: true}), c.Auth(smtp.PlainAuth("", "alice@example.it", "secret", "127.0.0.1")),
		c.Mail("alice@example.it"), c.Rcpt("anna@example.it")); err != nil {
		m.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		m.Fatal(err)
	}
	_, err = io.WriteString(w, text)
	if err := errors.Join(err, w.Close()); err != nil {
		m.Fatal(err)
	}
	m.sh("/", "for i in $(seq 200); do grep -qs '^X-Ricevuta: avvenuta-consegna' /var/vmail/example.it/alice/new/* && exit 0; sleep 0.05; done; cat /var/log/pecd.log; exit 1")
}
