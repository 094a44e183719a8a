package host

import (
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"pecd/pec/message"
	"pecd/points"
)

// result is what the plugin's attempt came to; it tells in its log.
func result(t *testing.T, mode, path string) string {
	t.Helper()
	o, r := options(t)
	s := spec("clean")
	s.Table["path"] = path
	switch path {
	case "messages":
		s.Table["path"] = filepath.Join(o.Messages, "to-check")
	case "state":
		s.Table["path"] = filepath.Join(o.State, "check", "file")
	case "other":
		s.Table["path"] = filepath.Join(o.State, "file")
	}
	h := start(t, o, s)
	if st := h.Status()[0]; !st.Confined || st.Landlock < 6 {
		t.Fatalf("this kernel confines too little: Landlock %d", st.Landlock)
	}
	q := question(inFile(t, filepath.Dir(o.Messages), strings.Repeat("Subject: prova\r\n", 10_000)))
	q.Login = "mode:" + mode
	ask(t, h, q)
	_, after, _ := strings.Cut(r.String(), `detail="result: `)
	said, _, _ := strings.Cut(after, `"`)
	return said
}

// TestConfined: a plugin has its own directory, its state and the message, and
// nothing else of what pecd's user has.
func TestConfined(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, syscall.SIGUSR1)
	defer signal.Stop(usr1)
	for _, c := range []struct{ mode, path, want string }{
		{"read", secret, "permission denied"},
		{"read", "/proc/self/root" + secret, "permission denied"},
		{"read", "/etc/shadow", "permission denied"},
		{"read", "/etc/hosts", "<nil>"},
		{"write", secret, "permission denied"},
		{"write", "other", "permission denied"},
		{"write", "state", "<nil>"},
		{"append", "messages", "permission denied"},
		{"signal", "", "operation not permitted"},
		// What Landlock does not restrict, on this kernel or on all.
		{"chmod", secret, "operation not permitted"},
		{"chmod", "state", "operation not permitted"},
		{"truncate", secret, "operation not permitted"},
		{"empty", secret, "operation not permitted"},
		{"empty", "state", "operation not permitted"},
		{"empty-read", secret, "operation not permitted"},
		{"empty-read", "state", "operation not permitted"},
		{"openat2", secret, "function not implemented"},
		{"setxattr", secret, "operation not permitted"},
		{"rlimit", "", "operation not permitted"},
	} {
		if got := result(t, c.mode, c.path); !strings.HasSuffix(got, c.want) {
			t.Errorf("%s %s: %q, want %q", c.mode, c.path, got, c.want)
		}
	}
	if len(usr1) > 0 {
		t.Error("the plugin has sent us a signal")
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "secret" {
		t.Errorf("the key holds %q, %v", b, err)
	}
}

// TestOwnCopy: the file that a plugin is shown is for it alone. A link to the
// store's would be what is delivered later, and a copy that another plugin has too
// what that one says of the message.
func TestOwnCopy(t *testing.T) {
	o, r := options(t)
	var specs []Spec
	for _, name := range []string{"check", "second"} {
		s := spec("links")
		s.Name, s.Table["path"] = name, filepath.Join(o.Messages, "to-"+name)
		specs = append(specs, s)
	}
	h := start(t, o, specs...)
	text := strings.Repeat("Subject: prova\r\n", 10_000)
	for name, q := range map[string]Question{"file": question(inFile(t, filepath.Dir(o.Messages), text)), "memory": question(message.Bytes(text))} {
		for i, p := range h.plugins {
			p.check(limit(t), points.Submission, q, h.newContent(q.Source, q.Range, q.Facts))
			if n := strings.Count(r.String(), `detail="result: 1 link"`); n != i+1 {
				t.Errorf("%s: plugin %s is shown a file of others: %s", name, p.spec.Name, r)
			}
		}
		r.clear()
	}
}

// TestConfinement: what is missing of Landlock or of the filter is said.
func TestConfinement(t *testing.T) {
	for want, s := range map[string]Status{
		"yes":                             {Confined: true, Landlock: 6, Filtered: true},
		"no":                              {Filtered: true},
		"partly (Landlock 2)":             {Landlock: 2, Filtered: true},
		"partly (Landlock 6, no seccomp)": {Landlock: 6},
	} {
		if got := s.Confinement(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestDial: a plugin reaches the sockets of others, such as a scanner's.
func TestDial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clamd")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := result(t, "dial", path); got != "<nil>" {
		t.Errorf("%s", got)
	}
}

// TestAllowed: further paths are allowed by the configuration.
func TestAllowed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "list"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]string{"read": "<nil>", "write": "permission denied"} {
		o, r := options(t)
		s := spec(mode)
		s.Read, s.Table["path"] = []string{filepath.Join(dir, "list")}, filepath.Join(dir, "list")
		ask(t, start(t, o, s), small(""))
		if !strings.Contains(r.String(), want+`"`) {
			t.Errorf("%s: not %q", mode, want)
		}
	}
}

// TestEnvironment: nothing of the daemon's environment and files reaches a
// plugin.
func TestEnvironment(t *testing.T) {
	t.Setenv("PECD_SECRET", "moonshine")
	f, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// As a descriptor that the daemon itself was started with.
	if _, err := syscall.Dup(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	o, _ := options(t)
	pid := start(t, o, spec("clean")).Status()[0].Pid
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil || strings.Contains(string(env), "moonshine") || !strings.Contains(string(env), "PECD_PLUGIN_STATE=") {
		t.Errorf("environment %q, %v", env, err)
	}
	links, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	if err != nil || len(links) == 0 {
		t.Fatalf("no descriptors: %v", err)
	}
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil && strings.HasSuffix(target, filepath.Base(os.Args[0])) {
			t.Errorf("the plugin holds %s", target)
		}
	}
	limits, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/limits")
	if err != nil || !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0") {
		t.Errorf("limits %s, %v", limits, err)
	}
	// The control socket knows plugins by it.
	if status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status"); err != nil || !strings.Contains(string(status), "\nNoNewPrivs:\t1\n") {
		t.Errorf("status %s, %v", status, err)
	}
}
