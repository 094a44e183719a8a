package seal_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pecd/logstore/seal"
)

// spring is a scene with all days from 29 March to 1 May sealed, and a witness.
func spring(t *testing.T) *scene {
	s := newScene(t)
	s.register.event(t, "2026-03-29 09:00:00")
	s.register.event(t, "2026-04-10 09:00:00")
	s.set("2026-04-10 09:05:00")
	if err := s.watch(nil, seal.NewStampWitness("tsa", s.tsa)).Attest(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.register.event(t, "2026-04-30 09:00:00")
	s.register.event(t, "2026-05-01 09:00:00")
	s.set("2026-05-02 09:00:00")
	if sealed, err := s.sealer(nil).Seal(t.Context()); err != nil || len(sealed) != 34 {
		t.Fatalf("%d days, %v", len(sealed), err)
	}
	return s
}

func (s *scene) archive(month string) ([]byte, seal.Pack) {
	s.t.Helper()
	var b bytes.Buffer
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.Certificate.Raw})
	pack, err := s.verifier.Archive(s.t.Context(), os.DirFS(s.dir), month, []seal.Extra{{Name: "provider-ca.pem", Data: ca}}, &b)
	if err != nil {
		s.t.Fatal(err)
	}
	return b.Bytes(), pack
}

// TestArchive: a month as one file, which verifies as it is and unpacked.
func TestArchive(t *testing.T) {
	s := spring(t)
	data, pack := s.archive("2026-04")
	if pack.FirstDay.String() != "2026-04-01" || pack.LastDay.String() != "2026-04-30" || pack.First != 2 || pack.Last != 3 || pack.Entries != 2 ||
		len(pack.Files) != 30*5+2 || pack.Size != int64(len(data)) || pack.SHA256 != sha256.Sum256(data) || pack.ChainAfter != s.register.links[2].Chain {
		t.Errorf("%+v", pack)
	}
	p, r, err := s.verifier.VerifyArchive(t.Context(), bytes.NewReader(data), int64(len(data)), nil)
	if err != nil || !r.OK() || r.Sound != 30 || p.ChainBefore != s.register.links[0].Chain {
		t.Errorf("%v, %+v", err, p)
	}
	if again, _ := s.archive("2026-04"); !bytes.Equal(again, data) {
		t.Error("not the same twice")
	}
	dir := t.TempDir()
	cmd := exec.Command("tar", "-x", "-f", "-", "-C", dir)
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if r, err := s.verifier.VerifyDays(t.Context(), os.DirFS(dir), nil); err != nil || !r.OK() || r.Sound != 30 {
		t.Errorf("unpacked: %v, %+v", err, r)
	}
	if anchors, problems, err := s.verifier.Anchors(t.Context(), os.DirFS(dir)); err != nil || len(anchors) != 31 || len(problems) > 0 {
		t.Errorf("unpacked: %d anchors, %v, %v", len(anchors), problems, err)
	}
	// The first month begins with its first day.
	if _, pack := s.archive("2026-03"); pack.FirstDay.String() != "2026-03-29" || pack.Entries != 1 {
		t.Errorf("%+v", pack)
	}
}

func TestArchiveRefuses(t *testing.T) {
	s := spring(t)
	refuse := func(name, month string, want error, extra ...seal.Extra) {
		t.Helper()
		var b bytes.Buffer
		_, err := s.verifier.Archive(t.Context(), os.DirFS(s.dir), month, extra, &b)
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if want != nil && b.Len() > 0 {
			t.Errorf("%s: %d octets were written", name, b.Len())
		}
	}
	refuse("a month that is not over", "2026-05", seal.ErrIncomplete)
	refuse("before all", "2026-02", seal.ErrIncomplete)
	refuse("no month", "2026-4", nil)
	refuse("a name that leads elsewhere", "2026-04", nil, seal.Extra{Name: "../ca.pem"})
	altered(t, filepath.Join(s.dir, "2026-04-10", "2026-04-10.log"), lastByte, func() { refuse("altered", "2026-04", seal.ErrUnsound) })
	if err := os.RemoveAll(filepath.Join(s.dir, "2026-04-15")); err != nil {
		t.Fatal(err)
	}
	refuse("a gap", "2026-04", seal.ErrUnsound)
	if err := os.RemoveAll(filepath.Join(s.dir, "2026-04-01")); err != nil {
		t.Fatal(err)
	}
	refuse("no beginning", "2026-04", seal.ErrIncomplete)
}

// TestTamperArchive: whatever is altered in a package is noticed.
func TestTamperArchive(t *testing.T) {
	s := spring(t)
	data, _ := s.archive("2026-03")
	verify := func(b []byte) error {
		_, _, err := s.verifier.VerifyArchive(t.Context(), bytes.NewReader(b), int64(len(b)), nil)
		return err
	}
	if err := verify(data); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		content, err2 := io.ReadAll(r)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if i := bytes.Index(data, content); len(content) > 0 {
			b := bytes.Clone(data)
			b[i+len(content)/2] ^= 1
			if err := verify(b); !errors.Is(err, seal.ErrUnsound) {
				t.Errorf("%s altered: %v", h.Name, err)
			}
		}
	}
	for name, change := range map[string]func(h *tar.Header) bool{
		"without a certificate": func(h *tar.Header) bool { return h.Name != "certificates/provider-ca.pem" },
		"without a day":         func(h *tar.Header) bool { return !strings.HasPrefix(h.Name, "2026-03-31") },
		"without an index":      func(h *tar.Header) bool { return h.Name != "index.json" },
		"renamed":               func(h *tar.Header) bool { h.Name = strings.Replace(h.Name, "provider", "other", 1); return true },
		"outside":               func(h *tar.Header) bool { h.Name = strings.Replace(h.Name, "certificates", "..", 1); return true },
		"link":                  func(h *tar.Header) bool { h.Linkname = "x"; return true },
	} {
		if err := verify(repack(t, data, change)); !errors.Is(err, seal.ErrUnsound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	all := func(*tar.Header) bool { return true }
	if err := verify(repack(t, data, all)); err != nil {
		t.Errorf("packed anew: %v", err)
	}
	if err := verify(repack(t, data, all, "witness/2026-03-30.jsonl")); !errors.Is(err, seal.ErrUnsound) {
		t.Errorf("one file more: %v", err)
	}
	if err := verify(data[:len(data)/2]); !errors.Is(err, seal.ErrUnsound) {
		t.Errorf("cut off: %v", err)
	}
	if err := verify(append(data[:len(data)-1024:len(data)-1024], data...)); !errors.Is(err, seal.ErrUnsound) {
		t.Errorf("twice: %v", err)
	}
}

// repack changes the headers of a package, leaves out files, and adds empty ones.
func repack(t *testing.T, data []byte, change func(*tar.Header) bool, more ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	r, w := tar.NewReader(bytes.NewReader(data)), tar.NewWriter(&b)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !change(h) {
			continue
		}
		if h.Linkname != "" {
			h.Typeflag, h.Size = tar.TypeSymlink, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Linkname != "" {
			continue
		}
		if _, err := io.Copy(w, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range more {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
