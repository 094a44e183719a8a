package main

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/points/pointstest"
)

// asCommand makes this test binary the command pecd.
const asCommand = "PECD_TEST_AS_COMMAND"

func init() {
	if os.Getenv(asCommand) != "" {
		main()
	}
}

// command writes a script pecd that is this binary, and returns the environment
// in which it is found.
func (s *site) command(t *testing.T) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := s.write(t, "pecd", fmt.Appendf(nil, "#!/bin/sh\n%s=1 exec '%s' \"$@\"\n", asCommand, self))
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	return append(os.Environ(), "PATH="+s.dir+":"+os.Getenv("PATH"))
}

// papers writes what docs/verify.md names.
func (s *site) papers(t *testing.T) {
	t.Helper()
	at := pointstest.At
	const original = "From: alice@alfa.example\r\nTo: bob@beta.example\r\nSubject: Offerta\r\nMessage-ID: <c1@alfa.example>\r\n\r\nTesto.\r\n--\r\nAlice\r\n"
	m, err := message.Read(message.Bytes(original))
	if err != nil {
		t.Fatal(err)
	}
	ev := pec.Event{At: at, Identifier: "20261122x@alfa.example", MsgID: "<c1@alfa.example>", Sender: "alice@alfa.example",
		Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}}, Subject: "Offerta", Receipt: pec.Complete, Error: pec.NoError}
	d, err := s.Alfa.Issuer.Transport(ev, m, message.Facts{}, rand.Reader)
	envelope := signed(t, s.Alfa, d, err)
	another, err := message.Read(message.Bytes(strings.Replace(original, "Testo.", "Altro.", 1)))
	if err != nil {
		t.Fatal(err)
	}
	d, err = s.Alfa.Issuer.Transport(ev, another, message.Facts{}, rand.Reader)
	s.write(t, "another.eml", signed(t, s.Alfa, d, err))
	accepted := ev
	accepted.Receipt = ""
	d, err = s.Alfa.Issuer.Acceptance(accepted, rand.Reader)
	acceptance := signed(t, s.Alfa, d, err)
	ev.Recipient = "bob@beta.example"
	d, err = s.Beta.Issuer.Delivery(ev, message.Relabel(m, ev.Identifier, ev.MsgID), false, rand.Reader)
	receipt := signed(t, s.Beta, d, err)
	s.write(t, "envelope.eml", envelope)
	s.write(t, "receipt.eml", receipt)
	const separator = "From alfa.example Sun Nov 22 10:45:37 2026\n"
	s.write(t, "inbox.mbox", slices.Concat([]byte(separator), acceptance, []byte("\n"+separator), receipt))
	ca, err := os.ReadFile(s.CA.File)
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "authorities.pem", ca)
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: at.Add(-time.Hour), NextUpdate: at.AddDate(1, 0, 0),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(7), RevocationTime: at.Add(-2 * time.Hour)}}}, s.CA.Certificate, s.CA.Key)
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "crl.pem", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list}))
}

func signed(t *testing.T, p *pointstest.Provider, d issue.Draft, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Signer.Sign(d)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := s.Content().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestVerifyPage runs the commands of docs/verify.md, in one shell.
func TestVerifyPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/verify.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 10 {
		t.Fatalf("only %d blocks of commands", len(blocks))
	}
	s := newSite(t)
	s.papers(t)
	env := s.command(t)
	run := func(blocks [][]string) (string, error) {
		script := ""
		for _, b := range blocks {
			script += b[1]
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-eu")
		cmd.Dir, cmd.Env, cmd.Stdin = s.dir, env, strings.NewReader(script)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run(blocks)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"receipt.eml: VALID", "ALL HOLD", "its original is that of the transport envelope", "as asked with --at",
		"CMS Verification successful", `tipo="avvenuta-consegna"`, "signer.pem: OK", "not revoked", "verify OK", "providerCertificateHash: "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	verdicts, err := os.ReadFile(filepath.Join(s.dir, "verdicts.json"))
	if err != nil || bytes.Count(verdicts, []byte("\n")) != 3 || !bytes.Contains(verdicts, []byte(`{"case":{"identifier":"20261122x@alfa.example"`)) {
		t.Errorf("%v %s", err, verdicts)
	}
	if err := os.Rename(filepath.Join(s.dir, "another.eml"), filepath.Join(s.dir, "envelope.eml")); err != nil {
		t.Fatal(err)
	}
	if out, err := run(blocks[len(blocks)-1:]); err == nil || strings.Count(out, "CMS Verification successful") != 2 {
		t.Errorf("the last command takes another original: %v\n%s", err, out)
	}
}

// TestVerifyCodes holds the exit codes of the options.
func TestVerifyCodes(t *testing.T) {
	s := newSite(t)
	s.papers(t)
	file := func(name string) string { return filepath.Join(s.dir, name) }
	for name, tt := range map[string]struct {
		args []string
		code int
	}{
		"all":          {[]string{file("receipt.eml"), file("inbox.mbox"), "--ca", s.CA.File, "--crl", file("crl.pem")}, 0},
		"two lists":    {[]string{file("receipt.eml"), "--ca", s.CA.File, "--crl", file("crl.pem"), "--crl", file("crl.pem")}, 0},
		"no instant":   {[]string{file("receipt.eml"), "--ca", s.CA.File, "--at", "soon"}, exitUsage},
		"too late":     {[]string{file("receipt.eml"), "--ca", s.CA.File, "--at", "2060-01-01"}, exitNo},
		"list, no CA":  {[]string{file("receipt.eml"), "--crl", file("crl.pem")}, exitUsage},
		"not a list":   {[]string{file("receipt.eml"), "--ca", s.CA.File, "--crl", s.CA.File}, exitNo},
		"not there":    {[]string{file("none.eml"), file("receipt.eml"), "--ca", s.CA.File}, exitNo},
		"no directory": {[]string{file("receipt.eml"), "--ca", s.CA.File, "--directory", file("none")}, exitNo},
	} {
		if code, out, errs := pecd(append([]string{"verify"}, tt.args...)...); code != tt.code {
			t.Errorf("%s: exit %d, want %d\n%s%s", name, code, tt.code, out, errs)
		}
	}
}
