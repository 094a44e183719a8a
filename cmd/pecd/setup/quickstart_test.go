package setup

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/pec/directory"
	"pecd/signer"
)

func quick(t *testing.T) Quickstart {
	dir := filepath.Join(t.TempDir(), "etc", "pecd")
	return Quickstart{Domain: "PEC.example", Name: "Esempio PEC", Dir: dir, Store: "/var/lib/pecd", Mailboxes: "unix:/run/dovecot/lmtp", Now: time.Now(), Rand: rand.Reader}
}

// TestQuickstartBesideAPackage: a pecd.toml that sets no key, as packages have it, stays
// as it is, and one that sets a key is not replaced.
func TestQuickstartBesideAPackage(t *testing.T) {
	for text, want := range map[string]string{"# all keys stand here\n#[provider]\n": "conf.d/50-quickstart.toml", "[provider]\nname = \"x\"\n": ""} {
		q := quick(t)
		if err := os.MkdirAll(q.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		main := filepath.Join(q.Dir, "pecd.toml")
		if err := os.WriteFile(main, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		files, err := q.Files(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteNew(files, -1, -1); (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrExists) {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(main); err != nil || string(got) != text {
			t.Errorf("pecd.toml is now %q (%v)", got, err)
		}
		if want == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(q.Dir, want)); err != nil {
			t.Error(err)
		}
		if _, err := config.Load(main); err != nil {
			t.Error(err)
		}
	}
}

// TestQuickstartBesideConfD: a configuration in conf.d is somebody's work, too.
func TestQuickstartBesideConfD(t *testing.T) {
	q := quick(t)
	if err := os.MkdirAll(filepath.Join(q.Dir, "conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(q.Dir, "conf.d", "10-x.toml")
	for name, text := range map[string]string{filepath.Join(q.Dir, "pecd.toml"): "# empty\n", mine: "[provider]\nname = \"x\"\n", filepath.Join(q.Dir, "conf.d", "00-y.toml"): "# empty\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := q.Files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(files, -1, -1); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), mine) {
		t.Errorf("%v", err)
	}
}

// TestQuickstartInterrupted: what an interrupted one has left is named.
func TestQuickstartInterrupted(t *testing.T) {
	q := quick(t)
	files, err := q.Files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(files[:2], -1, -1); err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(files, -1, -1); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "remove the files test-* in "+q.Dir) {
		t.Errorf("%v", err)
	}
}

// TestQuickstart: what is written loads, its key signs, its directory holds just us,
// and all of it says that it is a test.
func TestQuickstart(t *testing.T) {
	q := quick(t)
	files, err := q.Files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(files, -1, -1); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(filepath.Join(q.Dir, "pecd.toml"))
	if err != nil {
		t.Fatal(err)
	}
	id, err := signer.LoadPEM(cfg.Signer.Key.Key, cfg.Signer.Certificate, q.Now)
	if err != nil {
		t.Fatal(err)
	}
	if id.Address() != "posta-certificata@pec.example" || !strings.Contains(id.Certificate().Subject.String(), "NO LEGAL VALUE") {
		t.Errorf("%s, %s", id.Address(), id.Certificate().Subject)
	}
	anchors, _, err := signer.LoadAnchors(cfg.Trust.Anchors)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := id.Certificate().Verify(x509.VerifyOptions{Roots: anchors, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}}); err != nil {
		t.Error(err)
	}
	p7m, err := os.ReadFile(cfg.Directory.File)
	if err != nil {
		t.Fatal(err)
	}
	ldif, _, err := signer.OpenSignedData(p7m, anchors, q.Now)
	if err != nil {
		t.Fatal(err)
	}
	d, err := directory.Parse(ldif)
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := d.Signer(id.Certificate().Raw, "pec.example"); !ok || p.Name != q.Name || len(d.Providers()) != 1 {
		t.Errorf("directory: %v", p)
	}
	if err := WriteNew(files, -1, -1); !errors.Is(err, ErrExists) {
		t.Errorf("a second time: %v", err)
	}
}

// TestQuickstartSendmail: where Sendmail is the MTA nothing is Postfix's, whose group
// need not be there.
func TestQuickstartSendmail(t *testing.T) {
	q := quick(t)
	groups := func() []string {
		t.Helper()
		files, err := q.Files(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteNew(files, -1, -1); err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Load(filepath.Join(q.Dir, "pecd.toml"))
		if err != nil {
			t.Fatal(err)
		}
		return []string{cfg.Access.SocketGroup, cfg.Gate.SocketGroup, cfg.Reception.SocketGroup}
	}
	for _, g := range groups() {
		if g != "postfix" {
			t.Errorf("with Postfix a socket is of the group %q", g)
		}
	}
	q = quick(t)
	q.Sendmail = true
	for _, g := range groups() {
		if g != "" {
			t.Errorf("with Sendmail a socket is of the group %q", g)
		}
	}
}

// TestQuickstartWhole: a file in the way leaves nothing behind, whichever it is.
func TestQuickstartWhole(t *testing.T) {
	q := quick(t)
	files, err := q.Files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(q.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(f.Path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := WriteNew(files, -1, -1); !errors.Is(err, ErrExists) {
			t.Fatalf("%s: %v", f.Path, err)
		}
		left, err := os.ReadDir(q.Dir)
		if b, rerr := os.ReadFile(f.Path); err != nil || len(left) != 1 || rerr != nil || !bytes.Equal(b, []byte("mine")) {
			t.Errorf("%s: left %v", f.Path, left)
		}
		if err := os.Remove(f.Path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestQuickstartRefuses(t *testing.T) {
	for _, change := range []func(*Quickstart){
		func(q *Quickstart) { q.Domain = "a b" }, func(q *Quickstart) { q.Domain = "localhost" }, func(q *Quickstart) { q.Domain = "-x.example" },
		func(q *Quickstart) { q.Domain = "a\"\n.example" }, func(q *Quickstart) { q.Name = "a\"b" }, func(q *Quickstart) { q.Name = "" },
		func(q *Quickstart) { q.Key = "/x" },
	} {
		q := quick(t)
		change(&q)
		if _, err := q.Files(t.Context()); !errors.Is(err, ErrUsage) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}
