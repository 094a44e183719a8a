package scaffold

import (
	"bytes"
	"context"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd"
)

var update = flag.Bool("update", false, "make the go.mod and go.sum of the projects anew, after those of this module")

const fix = "go test ./plugins/scaffold -run TestModules -update"

// TestModules: the modules of the projects want the versions that this module
// wants, and nothing that they do not need.
func TestModules(t *testing.T) {
	if *update {
		makeModules(t)
		t.Log("made anew; run the test again")
		return
	}
	ours := requires(t, read(t, "../../go.mod"))
	for _, name := range []string{"sdk", "check", "point"} {
		for module, version := range requires(t, read(t, "module/"+name+".mod")) {
			if v := ours[module]; v != "" && v != version {
				t.Errorf("%s.mod has %s %s, go.mod %s; run %s", name, module, version, v, fix)
			}
		}
	}
	for _, kind := range Kinds() {
		dir := filepath.Join(t.TempDir(), "words")
		if err := New(dir, "words", kind); err != nil {
			t.Fatal(err)
		}
		for _, d := range []string{dir, filepath.Join(dir, "sdk")} {
			if out, err := run(t, d, "go", "mod", "tidy", "-diff"); err != nil {
				t.Errorf("%s: %s: %v; run %s\n%s", kind, d, err, fix, out)
			}
		}
	}
}

// requires are the modules of a go.mod with their versions.
func requires(t *testing.T, mod string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	for _, line := range strings.Split(mod, "\n") {
		f := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(f) >= 2 && strings.HasPrefix(f[1], "v") {
			found[f[0]] = f[1]
		}
	}
	if len(found) == 0 {
		t.Fatalf("no requirements in %q", mod)
	}
	return found
}

func makeModules(t *testing.T) {
	for kind, name := range map[string]string{"check": "check", "access": "point"} {
		dir := filepath.Join(t.TempDir(), kind)
		if err := New(dir, "words", kind); err != nil {
			t.Fatal(err)
		}
		sdk := filepath.Join(dir, "sdk")
		for _, f := range []string{"go.mod", "go.sum"} {
			b, err := pecd.SDK.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			store(t, filepath.Join(sdk, f), b)
			store(t, filepath.Join(dir, f), b)
		}
		tidy(t, sdk)
		store(t, filepath.Join(dir, "go.mod"), []byte("module example.com/words\n\ngo 1.25.0\n\nrequire pecd v0.0.0\n\nreplace pecd => ./sdk\n"))
		tidy(t, dir)
		store(t, "module/sdk.mod", []byte(read(t, filepath.Join(sdk, "go.mod"))))
		store(t, "module/sdk.sum", []byte(read(t, filepath.Join(sdk, "go.sum"))))
		store(t, "module/"+name+".mod", []byte(strings.TrimPrefix(read(t, filepath.Join(dir, "go.mod")), "module example.com/words\n")))
		store(t, "module/"+name+".sum", []byte(read(t, filepath.Join(dir, "go.sum"))))
	}
}

func tidy(t *testing.T, dir string) {
	t.Helper()
	if out, err := run(t, dir, "go", "mod", "tidy"); err != nil {
		t.Fatalf("%s: %v\n%s", dir, err, out)
	}
}

// run runs a command in dir with the environment as it is.
func run(t *testing.T, dir, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func store(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestSource: the module carries all packages that the SDK needs, and no others.
func TestSource(t *testing.T) {
	out, err := run(t, "../..", "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./plugins/sdk/...")
	if err != nil {
		t.Fatal(out)
	}
	needed := make(map[string]bool)
	for _, p := range strings.Fields(out) {
		if dir, ours := strings.CutPrefix(p, "pecd/"); ours {
			needed[dir] = true
		}
	}
	carried := make(map[string]bool)
	err = fs.WalkDir(pecd.SDK, ".", func(name string, d fs.DirEntry, err error) error {
		if strings.HasSuffix(name, ".go") {
			carried[path.Dir(name)] = true
		}
		return err
	})
	if err != nil || len(needed) < 5 {
		t.Fatalf("%v: %v", needed, err)
	}
	for dir := range needed {
		if !carried[dir] {
			t.Errorf("source.go lacks %s/*.go", dir)
		}
	}
	for dir := range carried {
		if !needed[dir] {
			t.Errorf("source.go has %s/*.go, which nothing needs", dir)
		}
	}
}
