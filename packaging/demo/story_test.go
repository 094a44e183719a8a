package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// arrived is the story's mail as it should come.
func arrived() []arrival {
	var all []arrival
	add := func(mailbox, kind, delivered string, taken ...string) {
		s := &system{kind: kind}
		s.data.Delivered, s.data.Taken = delivered, taken
		all = append(all, arrival{mailbox: mailbox, system: s})
	}
	add(sender, "accettazione", "")
	for _, r := range recipients {
		add(r, "posta-certificata", "")
	}
	for _, r := range certified {
		add(sender, "avvenuta-consegna", r)
	}
	add("ricevute@alfa.example", "presa-in-carico", "", bob, bruna)
	add("ricevute@alfa.example", "presa-in-carico", "", anna)
	return all
}

func TestMissingAndOnce(t *testing.T) {
	all := arrived()
	if list := missing(all); len(list) != 0 {
		t.Errorf("missing: %v", list)
	}
	if err := once(all); err != nil {
		t.Error(err)
	}
	for i := range all {
		rest := append(append([]arrival{}, all[:i]...), all[i+1:]...)
		if len(missing(rest)) == 0 {
			t.Errorf("nobody misses the %s for %s", all[i].name(), all[i].mailbox)
		}
	}
	if err := once(append(all, all[0])); err == nil {
		t.Error("a second acceptance receipt passes")
	}
	stray := arrival{mailbox: bruna, system: &system{kind: "avvenuta-consegna"}}
	if err := once(append(all, stray)); err == nil {
		t.Error("a delivery receipt for a recipient passes")
	}
}

func TestTable(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	term := newTerminal(f)
	term.begin("a step")
	term.done()
	term.table([]string{"a", "b"}, [][]string{{"perché", "1"}, {"x", ""}})
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(string(got), "\x1b\r") {
		t.Errorf("escape sequences in a file: %q", got)
	}
	if want := "  a       b\n  perché  1\n  x\n"; !strings.HasSuffix(string(got), want) {
		t.Errorf("table:\n%s\nwant:\n%s", got, want)
	}
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(dir); err == nil {
		t.Error("locked twice")
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the empty directory stays: %v", err)
	}
	unlock, err = lock(dir)
	if err != nil {
		t.Fatalf("after the unlock: %v", err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
}
