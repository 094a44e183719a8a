package test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pecd/packaging/demo/stage"
	"pecd/pec"
	"pecd/pec/directory"
	"pecd/signer/fetch/fetchtest"
)

// TestPKCS12 has the keys in PKCS #12 files.
func TestPKCS12(t *testing.T) {
	s := newStage(t, func(o *stage.Options) { o.Keys = stage.KeysPKCS12 })
	send(t, s, compose("p12", "", "bob@beta.example"), "bob@beta.example")
	await(t, s, "bob@beta.example", pec.KindTransport, "p12")
	await(t, s, "alice@alfa.example", pec.KindDelivery, "p12")
}

// TestHardwareKey takes both providers' tokens away while messages are under way,
// and gives them back: what cannot be signed is put off, nothing is lost, nothing
// comes twice.
func TestHardwareKey(t *testing.T) {
	s := newStage(t, func(o *stage.Options) { o.Keys = stage.KeysSoftHSM })
	tokens := func(p *stage.Provider, away bool) {
		t.Helper()
		from, to := p.Tokens(), p.Tokens()+".away"
		if !away {
			from, to = to, from
		}
		if err := os.Rename(from, to); err != nil {
			t.Error(err)
		}
	}
	send(t, s, compose("hw before", "", "bob@beta.example"), "bob@beta.example")
	await(t, s, "alice@alfa.example", pec.KindDelivery, "hw before")

	tokens(s.Beta, true)
	tokens(s.Alfa, true)
	// SoftHSM notices at a new session; what has one open may still sign.
	raw := compose("hw away", "", "bob@beta.example")
	until(t, "Alfa cannot sign", func() bool {
		_, err := s.Submit(within(t), "anna@alfa.example", "anna@alfa.example", []string{"bob@beta.example"}, []byte(strings.Replace(raw, "From: alice", "From: anna", 1)))
		var reply *textproto.Error
		if err != nil && (!errors.As(err, &reply) || reply.Code != 451) {
			t.Fatalf("the client heard %v, want 451", err)
		}
		return err != nil
	})
	if s.Alfa.Pecd.PID() == 0 || s.Beta.Pecd.PID() == 0 {
		t.Fatal("pecd has ended")
	}
	const messages = 20
	var wg sync.WaitGroup
	for i := range messages {
		wg.Add(1)
		go func() {
			defer wg.Done()
			submitUntilTaken(t, s, compose(fmt.Sprintf("hw %02d", i), "", "bob@beta.example"))
		}()
	}
	tokens(s.Alfa, false)
	wg.Wait()
	for i := range messages {
		await(t, s, "alice@alfa.example", pec.KindAcceptance, fmt.Sprintf("hw %02d", i))
	}
	tokens(s.Beta, false)
	until(t, "all delivery receipts", func() bool {
		if err := s.Beta.Flush(within(t)); err != nil {
			t.Fatal(err)
		}
		n := 0
		for i := range messages {
			n += min(1, count(t, s, "alice@alfa.example", pec.KindDelivery, fmt.Sprintf("hw %02d", i)))
		}
		return n == messages
	})
	settled(t, s)
	for i := range messages {
		subject := fmt.Sprintf("hw %02d", i)
		for _, c := range []struct {
			address string
			kind    pec.Kind
		}{{"alice@alfa.example", pec.KindAcceptance}, {"alice@alfa.example", pec.KindDelivery}, {"bob@beta.example", pec.KindTransport}} {
			if n := count(t, s, c.address, c.kind, subject); n != 1 {
				t.Errorf("%s has %d %s about %s", c.address, n, c.kind, subject)
			}
		}
	}
}

// TestRenewal goes over from one certificate to the next at the instant that is
// configured, without a restart and without a gap.
func TestRenewal(t *testing.T) {
	s, clock := withClock(t)
	ca, err := s.Authority()
	if err != nil {
		t.Fatal(err)
	}
	next, err := ca.Issue(s.Alfa.Name, "posta-certificata@alfa.example")
	if err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(s.Alfa.Dir, "next.pem"), filepath.Join(s.Alfa.Dir, "next-key.pem")
	if err := next.Write(cert, key, ca); err != nil {
		t.Fatal(err)
	}
	if err := s.SignDirectory(within(t), withCertificate(t, s, next.Certificate)); err != nil {
		t.Fatal(err)
	}
	change := time.Now().Add(time.Hour).Truncate(time.Second)
	s.Alfa.Pecd.Config.Signer.Next = &stage.NextConfig{KeyConfig: stage.KeyConfig{Key: key, Certificate: cert}, From: change}
	if err := s.Alfa.Pecd.WriteConfig(); err != nil {
		t.Fatal(err)
	}
	readAgain(t, s.Alfa)
	readAgain(t, s.Beta)
	signedBy := func(subject string) *big.Int {
		t.Helper()
		send(t, s, compose(subject, "", "bob@beta.example"), "bob@beta.example")
		await(t, s, "alice@alfa.example", pec.KindDelivery, subject)
		return signerOf(t, await(t, s, "bob@beta.example", pec.KindTransport, subject).raw)
	}
	if got := signedBy("rn before"); got.Cmp(next.Certificate.SerialNumber) == 0 {
		t.Error("signed with the next certificate before the change")
	}
	clock(2 * time.Hour)
	if got := signedBy("rn after"); got.Cmp(next.Certificate.SerialNumber) != 0 {
		t.Error("signed with the old certificate after the change")
	}
}

// withCertificate is the directory with one more certificate of Alfa.
func withCertificate(t *testing.T, s *stage.Stage, c *x509.Certificate) []byte {
	t.Helper()
	d, err := directory.Parse(s.LDIF())
	if err != nil {
		t.Fatal(err)
	}
	var list []directory.Provider
	for _, p := range d.Providers() {
		q := *p
		q.Hashes = nil
		if q.Name == s.Alfa.Name {
			q.Certificates = append(append([][]byte{}, q.Certificates...), c.Raw)
		}
		list = append(list, q)
	}
	var b bytes.Buffer
	if err := directory.Marshal(&b, list); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// signerOf asks OpenSSL for the serial number of a message's signer.
func signerOf(t *testing.T, raw []byte) *big.Int {
	t.Helper()
	file := filepath.Join(t.TempDir(), "signer.pem")
	cmd := exec.Command("openssl", "cms", "-verify", "-noverify", "-signer", file, "-out", os.DevNull)
	cmd.Stdin = bytes.NewReader(raw)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatalf("no certificate in\n%s", b)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c.SerialNumber
}

// TestRevocation has Beta fetch the list of the providers' authority: while none
// can be had that counts, envelopes wait; when it is there they pass; and when it
// names Alfa's certificate they are certified mail no more.
func TestRevocation(t *testing.T) {
	web := fetchtest.New(t)
	s, clock := withClock(t)
	ca, err := s.Authority()
	if err != nil {
		t.Fatal(err)
	}
	publish := func(number int64, until time.Duration, revoked ...*x509.Certificate) {
		t.Helper()
		now := time.Now()
		list := x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(until)}
		for _, c := range revoked {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now.Add(-time.Minute)})
		}
		der, err := x509.CreateRevocationList(rand.Reader, &list, ca.Certificate, ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		web.Publish("/ca.crl", der)
	}
	reload := func() {
		t.Helper()
		seen := web.Requests("/ca.crl")
		readAgain(t, s.Beta)
		until(t, "Beta fetches the list", func() bool { return web.Requests("/ca.crl") > seen })
	}
	publish(1, 24*time.Hour)
	s.Beta.Pecd.Config.Trust.CRLURLs = []string{web.URL + "/ca.crl"}
	if err := s.Beta.Pecd.WriteConfig(); err != nil {
		t.Fatal(err)
	}
	reload()
	send(t, s, compose("rv good", "", "bob@beta.example"), "bob@beta.example")
	await(t, s, "alice@alfa.example", pec.KindDelivery, "rv good")

	// The list runs out, and there is no other.
	web.Fail("/ca.crl", 503)
	clock(36 * time.Hour)
	send(t, s, compose("rv unknown", "", "bob@beta.example"), "bob@beta.example")
	await(t, s, "alice@alfa.example", pec.KindAcceptance, "rv unknown")
	until(t, "Beta puts the envelope off", func() bool { return logged(t, s.Beta, `msg="message put off"`) > 0 })
	if n := mentions(t, s, "bob@beta.example", "rv unknown"); n != 0 {
		t.Errorf("bob has %d messages", n)
	}
	publish(2, 96*time.Hour)
	reload()
	until(t, "the envelope that waited", func() bool {
		if err := s.Beta.Flush(within(t)); err != nil {
			t.Fatal(err)
		}
		return count(t, s, "bob@beta.example", pec.KindTransport, "rv unknown") == 1
	})
	await(t, s, "alice@alfa.example", pec.KindDelivery, "rv unknown")

	leaf, err := os.ReadFile(s.Alfa.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(leaf)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	publish(3, 96*time.Hour, cert)
	reload()
	revoked := func(subject string) {
		t.Helper()
		send(t, s, compose(subject, "", "bob@beta.example"), "bob@beta.example")
		if raw := anomaly(t, s, "bob@beta.example", subject); !bytes.Contains(raw, []byte("revocato")) {
			t.Errorf("it is not said why:\n%.2000s", raw)
		}
		if n := count(t, s, "alice@alfa.example", pec.KindDelivery, subject); n != 0 {
			t.Errorf("%d delivery receipts", n)
		}
	}
	until(t, "Beta knows of it", func() bool { return metric(t, s.Beta, "pecd_crl_entries") == 1 })
	revoked("rv revoked")
	// Even where the list is gone again, nobody forgets.
	web.Fail("/ca.crl", 503)
	reload()
	revoked("rv again")
}

// TestDirectory has Alfa fetch the directory from a server that demands its
// certificate, and follows it through an addition, a move, a removal, and a
// directory that somebody tampered with.
func TestDirectory(t *testing.T) {
	authority := fetchtest.NewAuthority(t)
	web := fetchtest.NewTLS(t, authority)
	cert, key := authority.Files(t, "alfa")
	anchors := filepath.Join(t.TempDir(), "tls.pem")
	if err := os.WriteFile(anchors, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate.Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newStage(t)
	file := func() []byte {
		t.Helper()
		b, err := os.ReadFile(s.Directory)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	publish := func(edit func(ldif string) string) {
		t.Helper()
		if err := s.SignDirectory(within(t), []byte(edit(string(s.LDIF())))); err != nil {
			t.Fatal(err)
		}
		web.Publish("/igpec.ldif.p7m", file())
	}
	pecdDo := func(args ...string) (string, error) {
		out, err := exec.Command(s.Alfa.Pecd.Bin, append(args, "--config", s.Alfa.Pecd.ConfigFile)...).CombinedOutput()
		return string(out), err
	}
	web.Publish("/igpec.ldif.p7m", file())
	s.Alfa.Pecd.Config.Directory = stage.DirectoryConfig{URL: web.URL + "/igpec.ldif.p7m", ClientCertificate: cert, ClientKey: key, TLSAnchors: anchors}
	if err := s.Alfa.Pecd.WriteConfig(); err != nil {
		t.Fatal(err)
	}
	readAgain(t, s.Alfa)
	kindOf := func(subject string) pec.RecipientType {
		t.Helper()
		send(t, s, compose(subject, "", "mario@ordinary.example"), "mario@ordinary.example")
		return await(t, s, "alice@alfa.example", pec.KindAcceptance, subject).event.Recipients[0].Type
	}
	update := func(want string, args ...string) {
		t.Helper()
		if out, err := pecdDo(append([]string{"directory", "update"}, args...)...); err != nil || !strings.Contains(out, want) {
			t.Errorf("update: %v\n%s\nlacks %q", err, out, want)
		}
	}
	if got := kindOf("di before"); got != pec.External {
		t.Errorf("mario is %s", got)
	}
	update("is the current one")
	at := func(domain string) func(string) string {
		return func(l string) string {
			return strings.Replace(l, "managedDomains: "+domain+"\n", "managedDomains: "+domain+"\nmanagedDomains: ordinary.example\n", 1)
		}
	}
	publish(at("beta.example"))
	update("1 domains added, 0 removed, 0 moved")
	if got := kindOf("di added"); got != pec.Certified {
		t.Errorf("mario is %s", got)
	}
	if out, err := pecdDo("directory", "show", "ordinary.example"); err != nil || !strings.Contains(out, "Beta PEC S.p.A.") {
		t.Errorf("show: %v\n%s", err, out)
	}
	publish(at("alfa.example"))
	update("0 domains added, 0 removed, 1 moved")
	if out, err := pecdDo("directory", "show", "ordinary.example"); err != nil || !strings.Contains(out, "Alfa PEC S.p.A.") {
		t.Errorf("show: %v\n%s", err, out)
	}
	tampered := bytes.Replace(file(), []byte("managedDomains: beta.example"), []byte("managedDomains: evil.example"), 1)
	web.Publish("/igpec.ldif.p7m", tampered)
	if out, err := pecdDo("directory", "update", "--force"); err == nil || !strings.Contains(out, "altered") {
		t.Errorf("a tampered directory: %v\n%s", err, out)
	}
	if got := kindOf("di tampered"); got != pec.Certified {
		t.Errorf("after a tampered directory mario is %s", got)
	}
	// One without Beta and ordinary.example lacks more than half of the domains.
	publish(func(l string) string { return l[:strings.Index(l, "\ndn: providerName=Beta")+1] })
	if out, err := pecdDo("directory", "update"); err == nil || !strings.Contains(out, "--force") {
		t.Errorf("half a directory: %v\n%s", err, out)
	}
	publish(func(l string) string { return l })
	update("0 domains added, 1 removed, 0 moved")
	if got := kindOf("di removed"); got != pec.External {
		t.Errorf("mario is %s", got)
	}
	// The last good one survives a restart without the server.
	web.Fail("/igpec.ldif.p7m", 500)
	if err := s.Alfa.Pecd.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.Alfa.Pecd.Start(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := kindOf("di offline"); got != pec.External {
		t.Errorf("mario is %s", got)
	}
	// A server that does not answer holds up no start for long.
	silent := make(chan struct{})
	t.Cleanup(func() { close(silent) })
	web.Handle("/igpec.ldif.p7m", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-silent:
		case <-r.Context().Done():
		}
	})
	stop(t, s.Alfa)
	began := time.Now()
	start(t, s.Alfa)
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("with a directory that does not answer it took %s to start", d)
	}
	out, err := pecdDo("directory", "export", "-o", "-")
	if err != nil {
		t.Fatalf("export: %v\n%s", err, out)
	}
	cmd := exec.Command("openssl", "cms", "-verify", "-inform", "DER", "-CAfile", s.CA, "-purpose", "any")
	cmd.Stdin = strings.NewReader(out)
	if ldif, err := cmd.Output(); err != nil || !bytes.Contains(ldif, []byte("managedDomains: alfa.example")) || bytes.Contains(ldif, []byte("beta.example")) {
		t.Errorf("our own record: %v\n%s", err, ldif)
	}
}
