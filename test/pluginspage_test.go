package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// nothing is how the page writes defaults that are empty.
var nothing = map[string]string{"[]": "none", "{}": "none"}

// TestPluginsPage holds the tables of docs/plugins.md against what the checks that come
// along say of themselves: each of their settings, in their order, with its default.
func TestPluginsPage(t *testing.T) {
	page, err := os.ReadFile("../docs/plugins.md")
	if err != nil {
		t.Fatal(err)
	}
	shipped, err := filepath.Glob("../plugins/*/settings.go")
	if err != nil {
		t.Fatal(err)
	}
	held := 0
	for _, file := range shipped {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(source), "package main\n") {
			continue
		}
		held++
		name := filepath.Base(filepath.Dir(file))
		out, err := exec.Command("go", "run", "../plugins/"+name, "describe", "--json").Output()
		if err != nil {
			t.Fatal(err)
		}
		var told struct {
			Keys []struct{ Name, Default string }
		}
		if err := json.Unmarshal(out, &told); err != nil {
			t.Fatal(err)
		}
		_, section, _ := strings.Cut(string(page), "\n### "+name+"\n")
		section, _, _ = strings.Cut(section, "\n### ")
		rows := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| [^|]+ \\| ([^|]+) \\| ").FindAllStringSubmatch(section, -1)
		if len(rows) != len(told.Keys) || len(rows) == 0 {
			t.Errorf("%s has %d settings, the page %d", name, len(told.Keys), len(rows))
			continue
		}
		for i, k := range told.Keys {
			if rows[i][1] != k.Name || !says(rows[i][2], k.Default) {
				t.Errorf("%s: the page has %s by default %s, the plugin %s by default %s", name, rows[i][1], rows[i][2], k.Name, k.Default)
			}
		}
	}
	if held < 3 {
		t.Errorf("only %d plugins were found", held)
	}
}

// says reports whether the cell is the default, or names some of a list that is too
// long for it.
func says(cell, value string) bool {
	if empty, ok := nothing[value]; ok {
		return cell == empty
	}
	if len(value) < 80 {
		return strings.Trim(cell, "`") == value
	}
	some := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1)
	for _, s := range some {
		if !strings.Contains(value, `"`+s[1]+`"`) {
			return false
		}
	}
	return len(some) > 0
}
