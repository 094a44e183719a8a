package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func checksum(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// TestStartFails: a plugin that cannot start keeps pecd from starting, with words
// that name it and help.
func TestStartFails(t *testing.T) {
	writable := named(t, "plugin")
	copied := copyTo(t, filepath.Dir(writable), 0o775)
	open := filepath.Join(t.TempDir(), "open")
	if err := errors.Join(os.Mkdir(open, 0o755), os.Link(binary, filepath.Join(open, "plugin")), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	for name, c := range map[string]struct {
		spec Spec
		err  error
		say  []string
	}{
		"crash":     {Spec{Path: named(t, "crash-start")}, ErrHandshake, []string{"exit status 3", "no such moon"}},
		"junk":      {Spec{Path: named(t, "junk")}, ErrHandshake, []string{`"Hello, I am a plugin!"`, "standard error"}},
		"silent":    {Spec{Path: named(t, "silent")}, ErrHandshake, []string{"in time"}},
		"future":    {Spec{Path: named(t, "future")}, ErrProtocol, []string{"version 9", "go 9.1.0", "[1]", "build it again"}},
		"elsewhere": {Spec{Path: named(t, "elsewhere")}, ErrHandshake, []string{"/run/other.sock"}},
		"checksum":  {Spec{Path: binary, SHA256: strings.Repeat("0", 64)}, ErrChecksum, []string{checksum(t)}},
		"writable":  {Spec{Path: copied}, ErrUnsafe, []string{"chmod go-w " + copied}},
		"directory": {Spec{Path: filepath.Join(open, "plugin")}, ErrUnsafe, []string{open}},
		"missing":   {Spec{Path: "/nowhere/plugin"}, nil, []string{"/nowhere"}},
		"text":      {Spec{Path: "/etc/passwd"}, nil, []string{"executed"}},
		"relative":  {Spec{Path: "plugin"}, nil, []string{"absolute"}},
		"bad":       {Spec{Path: binary, Table: map[string]any{"mode": "bad"}}, ErrConfigured, []string{"mode: it is bad; make it good", "no better"}},
		"unknown":   {Spec{Path: binary, Table: map[string]any{"moon": 1}}, ErrConfigured, []string{"moon", "no such setting"}},
		"hangs":     {Spec{Path: binary, Table: map[string]any{"mode": "open-hangs"}}, ErrTimeout, []string{"Configure"}},
	} {
		o, _ := options(t)
		o.StartTimeout = 10 * time.Second
		if name == "silent" { // the others must get beyond the handshake, however slow the machine
			o.StartTimeout = time.Second
		}
		c.spec.Name = "luna"
		h, err := Start(limit(t), []Spec{c.spec}, o)
		if err == nil {
			t.Errorf("%s: it started", name)
			h.Close(context.Background())
			continue
		}
		for _, say := range append(c.say, "plugin luna") {
			if !strings.Contains(err.Error(), say) {
				t.Errorf("%s: the error does not say %q: %v", name, say, err)
			}
		}
		if c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
	}
	until(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

// copyTo copies the plugin into dir with the given mode.
func copyTo(t *testing.T, dir string, mode os.FileMode) string {
	t.Helper()
	b, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "copy")
	if err := errors.Join(os.WriteFile(name, b, 0o700), os.Chmod(name, mode)); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestNames(t *testing.T) {
	o, _ := options(t)
	for _, specs := range [][]Spec{
		{{Name: "Luna", Path: binary}}, {{Name: "", Path: binary}}, {{Name: "../etc", Path: binary}}, {{Name: strings.Repeat("l", 41), Path: binary}},
		{{Name: "luna", Path: binary}, {Name: "luna", Path: binary}},
	} {
		if h, err := Start(limit(t), specs, o); err == nil {
			h.Close(context.Background())
			t.Errorf("%+v started", specs)
		}
	}
}

// TestOnePoint: two plugins cannot take the same place.
func TestOnePoint(t *testing.T) {
	o, _ := options(t)
	specs := []Spec{{Name: "one", Path: binary, Table: map[string]any{"point": "access"}}, {Name: "two", Path: binary, Table: map[string]any{"point": "access"}}}
	if _, err := Start(limit(t), specs, o); err == nil || !strings.Contains(err.Error(), "taken by the plugin one") {
		t.Errorf("%v", err)
	}
}

func TestPinned(t *testing.T) {
	o, _ := options(t)
	s := spec("clean")
	s.SHA256 = strings.ToUpper(checksum(t))
	st := start(t, o, s).Status()[0]
	if !st.Pinned || st.SHA256 != checksum(t) || st.Description.Name != "misbehaving" || st.Description.Version != "0.1" ||
		!strings.HasPrefix(st.Description.SDK, "go ") || len(st.Description.Keys) != 1 || st.Description.Kind != "check" || len(st.Description.Stages) != 2 {
		t.Errorf("status %+v", st)
	}
}

// TestPredecessor: messages that a killed host left are removed.
func TestPredecessor(t *testing.T) {
	o, _ := options(t)
	for _, name := range []string{"to-gone", "spool"} { // the second of an earlier version
		left := filepath.Join(o.Messages, name)
		if err := errors.Join(os.Mkdir(left, 0o700), os.WriteFile(filepath.Join(left, "1"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	start(t, o, spec("clean"))
	if left, err := os.ReadDir(o.Messages); err != nil || len(left) != 1 || left[0].Name() != "to-check" {
		t.Errorf("there is %v, %v", left, err)
	}
}

// TestGiveDir: root gives away a directory and not what a link in its place leads to.
func TestGiveDir(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives files to another user: it needs root")
	}
	dir := t.TempDir()
	own, other, file, link := filepath.Join(dir, "own"), filepath.Join(dir, "other"), filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(own, 0o700), os.Mkdir(other, 0o700), os.WriteFile(file, nil, 0o600), os.Symlink(other, link)); err != nil {
		t.Fatal(err)
	}
	p := &process{owner: &syscall.Credential{Uid: 12345, Gid: 12345}}
	for path, given := range map[string]bool{own: true, link: false, file: false} {
		if err := p.listenIn(path, nil); (err == nil) != given {
			t.Errorf("%s: %v", path, err)
		}
	}
	for path, want := range map[string]uint32{own: 12345, other: 0, file: 0} {
		if fi, err := os.Stat(path); err != nil || fi.Sys().(*syscall.Stat_t).Uid != want {
			t.Errorf("%s: %+v, %v", path, fi, err)
		}
	}
}

func TestValidate(t *testing.T) {
	o, _ := options(t)
	d, problems, err := Validate(limit(t), spec("clean"), o)
	if err != nil || len(problems) > 0 || d.Name != "misbehaving" || d.Kind != "check" {
		t.Errorf("%+v, %v, %v", d, problems, err)
	}
	s := spec("bad")
	s.Table["moon"] = 3
	_, problems, err = Validate(limit(t), s, o)
	if err != nil || len(problems) != 1 || problems[0].Key != "moon" || !strings.Contains(problems[0].Fix, "mode") {
		t.Errorf("%v, %v", problems, err)
	}
	if _, problems, err = Validate(limit(t), spec("bad"), o); err != nil || len(problems) != 2 || problems[0] != (Problem{"mode", "it is bad", "make it good"}) {
		t.Errorf("%v, %v", problems, err)
	}
	s.Path = named(t, "junk")
	if _, _, err = Validate(limit(t), s, o); !errors.Is(err, ErrHandshake) {
		t.Errorf("%v", err)
	}
}

// TestOwner: root tries a plugin as the user of the store, whose program it may be.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test starts a process of another user: it needs root")
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "pecd-owner") // one of t has a directory above it that is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, o := spec("clean"), Options{Dir: filepath.Join(dir, "s"), Log: slog.New(slog.DiscardHandler), Now: time.Now}
	s.Path = copyTo(t, dir, 0o755)
	if err := errors.Join(os.Mkdir(o.Dir, 0o700), os.Chmod(dir, 0o755), os.Chown(dir, nobody, nobody), os.Chown(o.Dir, nobody, nobody), os.Chown(s.Path, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Validate(limit(t), s, o); !errors.Is(err, ErrUnsafe) {
		t.Errorf("as root: %v", err)
	}
	o.Owner = &syscall.Credential{Uid: nobody, Gid: nobody}
	if d, problems, err := Validate(limit(t), s, o); err != nil || len(problems) > 0 || d.Name != "misbehaving" {
		t.Errorf("%+v, %v, %v", d, problems, err)
	}
}

// TestCloseEach: a kernel without the call for it leaves no descriptor open either.
func TestCloseEach(t *testing.T) {
	f, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := closeEachAtExec(); err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %d, %v", flags, err)
	}
}
