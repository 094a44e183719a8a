package seal_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pecd/logstore/seal"
	"pecd/signer/timestamp"
	"pecd/signer/timestamp/timestamptest"
)

// commands returns the shell commands of docs/evidence.md, as one script.
func commands(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/evidence.md")
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	script.WriteString("set -eu\n")
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllSubmatch(page, -1)
	for _, b := range blocks {
		script.Write(b[1])
	}
	if len(blocks) < 7 {
		t.Fatalf("%d blocks of commands in the page", len(blocks))
	}
	return script.String()
}

// evidence seals the days of the page, with OpenSSL as time-stamping authority;
// one that is down and one whose certificate has expired are asked before it.
func evidence(t *testing.T) *scene {
	s := newScene(t)
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	expired := timestamptest.New(t, func(c *x509.Certificate) { c.NotAfter = c.NotBefore.AddDate(1, 0, 0) })
	client, err := timestamp.New(timestamp.Options{
		Authorities: []timestamp.Authority{{URL: down.URL}, {URL: expired.Server(t).URL}, {URL: s.tsa.Server(t).URL}},
		Verifier:    s.tsa.Verifier(), HTTP: http.DefaultClient, Now: time.Now, Random: rand.Reader,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.register.event(t, "2026-03-28 12:00:00")
	for _, at := range []string{"2026-03-29 01:59:59", "2026-03-29 03:00:00", "2026-03-29 23:00:00"} {
		odd := entry(`Caf\u00e9 "due"@alfa.example`)
		odd.Subject = "  due blank,  \\ e \\n \u2028 \" $(id) ${HOME} `id` %s \x01 " + strings.Repeat("lungo ", 400)
		s.register.add(t, romeTime(at), odd)
	}
	s.set("2026-03-29 23:01:00")
	watch, err := seal.NewWatch(seal.WatchOptions{Dir: s.dir, Zone: rome, Register: s.register, Now: s.clock,
		Witnesses: []seal.Witness{seal.NewStampWitness("tsa", client)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Attest(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.register.event(t, "2026-03-29 23:30:00")
	s.set("2026-03-30 08:00:00")
	if _, err := s.sealer(func(o *seal.Options) { o.Stamper = client }).Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.sound(2)
	for name, der := range map[string][]byte{"provider-ca.pem": s.ca.Certificate.Raw, "tsa-ca.pem": s.tsa.CA.Certificate.Raw} {
		if err := os.WriteFile(filepath.Join(s.dir, name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func run(dir, script string) (string, error) {
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestEvidence: a stranger with OpenSSL and a shell finds a sealed day good, with
// the commands of docs/evidence.md, and finds whatever was done to it.
func TestEvidence(t *testing.T) {
	s, script := evidence(t), commands(t)
	out, err := run(s.dir, script)
	if err != nil || !strings.Contains(out, "Alfa PEC S.p.A.") || strings.Count(out, "Verification: OK") != 2 {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, change := range map[string]func([]byte) []byte{
		"2026-03-29/2026-03-29.log":          lastByte,
		"2026-03-29/2026-03-29.jsonl":        lastByte,
		"2026-03-29/2026-03-29.json":         middleByte,
		"2026-03-29/2026-03-29.json.p7m":     lastByte,
		"2026-03-29/2026-03-29.json.p7m.tst": lastByte,
		"2026-03-28/2026-03-28.json.p7m":     lastByte,
		"witness/2026-03-29.jsonl":           func(b []byte) []byte { return bytes.Replace(b, []byte(`"seq":4`), []byte(`"seq":3`), 1) },
	} {
		altered(t, filepath.Join(s.dir, name), change, func() {
			if out, err := run(s.dir, script); err == nil {
				t.Errorf("%s altered, and nothing is noticed:\n%s", name, out)
			}
		})
	}
	if out, err := run(s.dir, script); err != nil {
		t.Errorf("at the end: %v\n%s", err, out)
	}
}

func lastByte(b []byte) []byte   { b[len(b)-1] ^= 1; return b }
func middleByte(b []byte) []byte { b[len(b)/2] ^= 1; return b }

// altered does something while a file is altered.
func altered(t *testing.T, file string, change func([]byte) []byte, do func()) {
	t.Helper()
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := change(bytes.Clone(good))
	if bytes.Equal(bad, good) {
		t.Fatalf("%s is not altered", file)
	}
	if err := os.WriteFile(file, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	do()
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
}
