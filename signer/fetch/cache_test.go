package fetch

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func item(key, body string) *Item {
	return &Item{Key: key, Fetched: time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC),
		Validators: Validators{ETag: `"x"`, LastModified: "yesterday"}, Body: []byte(body)}
}

func openCache(t *testing.T, dir string) *Cache {
	t.Helper()
	c, err := OpenCache(dir, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func save(t *testing.T, c *Cache, it *Item) {
	t.Helper()
	if err := c.Save(it); err != nil {
		t.Fatal(err)
	}
}

func TestCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "cache")
	c := openCache(t, dir)
	if _, err := c.Load("a", 100); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("nothing there: %v", err)
	}
	save(t, c, item("a", "one"))
	save(t, c, item("a", "two\nlines"))
	save(t, c, item("b", "other"))
	got, err := openCache(t, dir).Load("a", 100)
	if err != nil || !reflect.DeepEqual(got, item("a", "two\nlines")) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := c.Load("a", 8); !errors.Is(err, ErrTorn) {
		t.Errorf("larger than the limit: %v", err)
	}
	if err := c.Remove("a"); err != nil {
		t.Error(err)
	}
	if _, err := c.Load("a", 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
	if err := c.Remove("a"); err != nil {
		t.Error(err)
	}
	if got, err := c.Load("b", 100); err != nil || string(got.Body) != "other" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestCacheMode(t *testing.T) {
	for _, mode := range []os.FileMode{0o600, 0o644} {
		dir := t.TempDir()
		c, err := OpenCache(dir, mode)
		if err != nil {
			t.Fatal(err)
		}
		save(t, c, item("a", "one"))
		st, err := os.Stat(c.file("a"))
		if err != nil || st.Mode().Perm() != mode {
			t.Errorf("%v %v, want %v", st.Mode(), err, mode)
		}
		if files, _ := os.ReadDir(dir); len(files) != 1 {
			t.Errorf("%d files", len(files))
		}
	}
}

// TestTorn: no prefix of a file and no file with one octet altered is used.
func TestTorn(t *testing.T) {
	c := openCache(t, t.TempDir())
	save(t, c, item("a", "a revocation list"))
	whole, err := os.ReadFile(c.file("a"))
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, n int, data []byte) {
		t.Helper()
		if err := os.WriteFile(c.file("a"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if it, err := c.Load("a", 100); !errors.Is(err, ErrTorn) || it != nil {
			t.Errorf("%s %d: %v, %v", what, n, it, err)
		}
	}
	for n := range whole {
		try("cut at", n, whole[:n])
		altered := bytes.Clone(whole)
		altered[n] ^= 1
		try("altered at", n, altered)
	}
	try("more", 1, append(bytes.Clone(whole), 0))
	if err := os.WriteFile(c.file("b"), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Load("b", 100); !errors.Is(err, ErrTorn) {
		t.Errorf("the file of another: %v", err)
	}
	save(t, c, item("a", "again"))
	if it, err := c.Load("a", 100); err != nil || string(it.Body) != "again" {
		t.Errorf("%v, %v", it, err)
	}
}

// TestLeftOver: what a crash left half written is not used and goes away; what
// others have in the folder stays.
func TestLeftOver(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir)
	save(t, c, item("a", "one"))
	for _, name := range []string{"123" + cacheName + ".tmp", "other.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c = openCache(t, dir)
	if it, err := c.Load("a", 100); err != nil || string(it.Body) != "one" {
		t.Errorf("%v, %v", it, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	if err != nil || len(files) != 1 || filepath.Base(files[0]) != "other.tmp" {
		t.Errorf("%v %v", files, err)
	}
}

// TestSaveFails: the last good one stays when the new one cannot be put there.
func TestSaveFails(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir)
	save(t, c, item("a", "one"))
	if err := c.Save(item(strings.Repeat("k", maxHead), "x")); err == nil {
		t.Error("a name that could not be read again")
	}
	if err := os.Mkdir(c.file("dir"), 0o755); err != nil { // a rename cannot replace a folder
		t.Fatal(err)
	}
	if err := c.Save(item("dir", "x")); err == nil {
		t.Error("a folder in the way went unnoticed")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if it, err := c.Load("a", 100); err != nil || string(it.Body) != "one" {
		t.Errorf("%v, %v", it, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := c.Save(item("a", "two")); err == nil {
		t.Error("no folder went unnoticed")
	}
	if _, err := OpenCache(filepath.Join(c.dir, "a\x00"), 0o600); err == nil {
		t.Error("a bad name went unnoticed")
	}
}

// TestNoProxy: the environment has no say in where requests go.
func TestNoProxy(t *testing.T) {
	r, err := http.NewRequest(http.MethodGet, "http://ca.example/list", nil)
	if err != nil {
		t.Fatal(err)
	}
	if p := transport(Options{}).Proxy; p != nil {
		t.Error("there is a rule for proxies")
	}
	proxy := &url.URL{Scheme: "http", Host: "proxy.example:3128"}
	if u, err := transport(Options{Proxy: proxy}).Proxy(r); err != nil || u != proxy {
		t.Errorf("%v, %v", u, err)
	}
}

// FuzzDecode: what decodes is written the same again.
func FuzzDecode(f *testing.F) {
	for _, body := range []string{"", "x", "two\nlines", strings.Repeat("long ", 100)} {
		data, err := encode(item("https://ca.example/list", body))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		it, err := decode(data)
		if err != nil {
			// With its digest mended, which no mutation finds.
			if it, err = decode(mend(data)); err != nil {
				return
			}
		}
		again, err := encode(it)
		if err != nil {
			return // a name that grows when it is written
		}
		back, err := decode(again)
		if err != nil || !back.Fetched.Equal(it.Fetched) || back.Key != it.Key || back.Validators != it.Validators || !bytes.Equal(back.Body, it.Body) {
			t.Errorf("%+v became %+v, %v", it, back, err)
		}
	})
}

func mend(data []byte) []byte {
	sum := sha256.Sum256(data)
	return append(bytes.Clone(data), sum[:]...)
}

// TestReadCache: who only reads changes nothing.
func TestReadCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nobody made it")
	c := ReadCache(dir)
	if err := c.Save(&Item{Key: "k", Body: []byte("x")}); err != nil {
		t.Error(err)
	}
	if err := c.Remove("k"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it wrote: %v", err)
	}
}
