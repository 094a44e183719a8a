package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// unit is a copy of a unit that systemd-analyze can judge on a machine where pecd
// is not installed.
func unit(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile("packaging/systemd/" + name)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "/usr/sbin/pecd", "/bin/true")), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// systemd understands the units, every line of them.
func TestUnits(t *testing.T) {
	dir := t.TempDir()
	service, socket := unit(t, dir, "pecd.service"), unit(t, dir, "pecd.socket")
	if out := tool(t, "systemd-analyze", "verify", "--man=no", service, socket); out != "" {
		t.Error(out)
	}
}

// The service reaches little of the system: at most 2.0 on systemd's scale of 10.
func TestExposure(t *testing.T) {
	out := tool(t, "systemd-analyze", "security", "--offline=true", "--no-pager", unit(t, t.TempDir(), "pecd.service"))
	m := regexp.MustCompile(`Overall exposure level for pecd.service: ([0-9.]+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatal(out)
	}
	if level, err := strconv.ParseFloat(m[1], 64); err != nil || level > 2.0 {
		t.Errorf("exposure %s, %v\n%s", m[1], err, out)
	}
}

// The service may use what plugins are confined by, and the signal that ends a
// stuck daemon comes after its longest pause.
func TestServiceAllows(t *testing.T) {
	text, err := os.ReadFile("packaging/systemd/pecd.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "close_range", "Type=notify\n", "WatchdogSec=", "RestartPreventExitStatus=78"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is not in it", want)
		}
	}
	allow := strings.LastIndex(string(text), "SystemCallFilter=landlock")
	if deny := strings.LastIndex(string(text), "SystemCallFilter=~"); deny > allow {
		t.Error("what is allowed is taken back")
	}
}

func TestAppArmor(t *testing.T) {
	tool(t, "apparmor_parser", "-Q", "-T", "-K", "packaging/apparmor/pecd")
}

// The socket unit listens where the example configuration says.
func TestSocketPaths(t *testing.T) {
	socket, err := os.ReadFile("packaging/systemd/pecd.socket")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("packaging/pecd.toml")
	if err != nil {
		t.Fatal(err)
	}
	paths := regexp.MustCompile(`ListenStream=(.*)`).FindAllStringSubmatch(string(socket), -1)
	if len(paths) != 3 {
		t.Errorf("%v", paths)
	}
	for _, p := range paths {
		if !strings.Contains(string(example), `"unix:`+p[1]+`"`) {
			t.Errorf("%s is not in the example", p[1])
		}
	}
}
