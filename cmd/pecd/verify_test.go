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
	"pecd/signer"
	"pecd/signer/signertest"
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
	ev := offer()
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

// offer is the event of which the papers are.
func offer() pec.Event {
	return pec.Event{At: pointstest.At, Identifier: "20261122x@alfa.example", MsgID: "<c1@alfa.example>", Sender: "alice@alfa.example",
		Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}}, Subject: "Offerta", Receipt: pec.Complete, Error: pec.NoError}
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

// verifyBlocks are the blocks of commands of docs/verify.md from a heading on.
func verifyBlocks(t *testing.T, heading string, least int) [][]string {
	t.Helper()
	page, err := os.ReadFile("../../docs/verify.md")
	if err != nil {
		t.Fatal(err)
	}
	_, from, _ := strings.Cut(string(page), "\n"+heading+"\n")
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(from, -1)
	if len(blocks) < least {
		t.Fatalf("only %d blocks of commands", len(blocks))
	}
	return blocks
}

// shell runs blocks of commands in one shell, in the directory of s.
func (s *site) shell(t *testing.T, blocks [][]string) (string, error) {
	t.Helper()
	script := ""
	for _, b := range blocks {
		script += b[1]
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-eu")
	cmd.Dir, cmd.Env, cmd.Stdin = s.dir, s.command(t), strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestVerifyPageLater runs the commands of docs/verify.md for OpenSSL when all
// certificates have expired long since, on a receipt and on a duplicate of it that a
// renewed certificate signed, which was not valid yet at the certified instant.
func TestVerifyPageLater(t *testing.T) {
	at, from, until := pointstest.At, signertest.NotBefore, signertest.NotAfter
	t.Cleanup(func() { pointstest.At, signertest.NotBefore, signertest.NotAfter = at, from, until })
	pointstest.At = time.Date(2012, 11, 22, 10, 45, 37, 0, at.Location())
	signertest.NotBefore, signertest.NotAfter = pointstest.At.AddDate(-1, 0, 0), pointstest.At.AddDate(2, 0, 0)
	blocks := verifyBlocks(t, "## With OpenSSL alone", 9)
	s := newSite(t)
	s.papers(t)
	out, err := s.shell(t, blocks)
	if err != nil || strings.Contains(out, "Duplicato") || strings.Count(out, "CMS Verification successful") != 6 {
		t.Errorf("%v\n%s", err, out)
	}

	made := pointstest.At.AddDate(0, 6, 0)
	renewed := s.CA.Template(s.Beta.Issuer.Name, string(s.Beta.Issuer.Address))
	renewed.NotBefore = pointstest.At.AddDate(0, 1, 0)
	s.Beta.Signer = signer.NewSigner(s.CA.IdentityOf(t, signertest.Key(t, "renewed"), renewed).Identity)
	ev := offer()
	ev.Kind, ev.Recipient = pec.KindDelivery, "bob@beta.example"
	d, err := s.Beta.Issuer.Duplicate(ev, ev.Sender, issue.Duplicate{Made: made, Of: "first@beta.example"}, rand.Reader)
	s.write(t, "receipt.eml", signed(t, s.Beta, d, err))
	// The directory of this site does not know the renewed certificate, and a duplicate
	// has no original.
	out, err = s.shell(t, append(blocks[:len(blocks)-2:len(blocks)-2], []string{"", "echo \"judged as of $at\"\n"}))
	if err != nil || !strings.Contains(out, "X-Duplicato: 2013-05-22T") || !strings.Contains(out, fmt.Sprint("judged as of ", made.Unix())) || !strings.Contains(out, "signer.pem: OK") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestVerifyPage runs the commands of docs/verify.md, in one shell.
func TestVerifyPage(t *testing.T) {
	blocks := verifyBlocks(t, "## With pecd", 10)
	s := newSite(t)
	s.papers(t)
	out, err := s.shell(t, blocks)
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
	if out, err := s.shell(t, blocks[len(blocks)-1:]); err == nil || strings.Count(out, "CMS Verification successful") != 2 {
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
