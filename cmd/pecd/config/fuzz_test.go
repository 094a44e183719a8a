package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzLoad: whatever a configuration holds, it is loaded the same each time, or
// refused with the name of the file.
func FuzzLoad(f *testing.F) {
	example, err := os.ReadFile("../../../packaging/pecd.toml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	f.Add("[provider]\nname = \"Alfa\"\ndomain = \"alfa.example\"\n[seal]\nurl = \"http://\"\n[[plugin]]\nname = \"x\"\n[plugin.settings]\na = [1]\n")
	f.Add("[signer]\nkey = \"k\"\n[signer.next]\nfrom = 2026-11-29T10:00:00Z\n[time]\nntp = [\"\"]\n")
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "pecd.toml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		first, err := Load(file)
		second, again := Load(file)
		if (err == nil) != (again == nil) || !reflect.DeepEqual(first, second) {
			t.Errorf("loaded twice: %v, then %v", err, again)
		}
		if err != nil && !strings.Contains(err.Error(), file) {
			t.Errorf("the error does not name the file: %v", err)
		}
	})
}
