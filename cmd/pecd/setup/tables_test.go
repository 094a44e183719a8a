package setup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTableAway: what a table cannot say is not taken for missing.
func TestTableAway(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"virtual_mailbox_domains", "transport_maps", "smtp_tls_policy_maps"} {
		dir := instance(t, name+" = hash:/nonexistent/domains\n", panels["plain"].master)
		if _, err := read(t, dir).Plan(t.Context(), wants()); !errors.Is(err, ErrPostfix) || !strings.Contains(err.Error(), name+": hash:/nonexistent/domains") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A table of ours that is gone comes back.
	dir := instance(t, "transport_maps = hash:DIR/pecd_transport\n", panels["plain"].master)
	if _, err := run(t.Context(), "postconf", "-c", dir, "-e", "transport_maps=hash:"+filepath.Join(dir, TransportFile)); err != nil {
		t.Fatal(err)
	}
	apply(t, read(t, dir))
}

// TestTableNotMade: a table of ours is made where there is only its text, and replaced where
// Postfix's type of tables is another one now.
func TestTableNotMade(t *testing.T) {
	for name, c := range map[string]struct {
		partial bool
		change  func(t *testing.T, dir string)
		kind    string
	}{
		"lost": {change: func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, TransportFile+".db")); err != nil {
				t.Fatal(err)
			}
		}, kind: "hash"},
		"lost, and the directory cannot be had": {partial: true, change: func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, PolicyFile+".db")); err != nil {
				t.Fatal(err)
			}
			postconf(t, dir, "-e", "smtp_tls_policy_maps=")
		}, kind: "hash"},
		"another type": {change: func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, TransportFile+".db")); err != nil {
				t.Fatal(err)
			}
			postconf(t, dir, "-e", "default_database_type=btree")
		}, kind: "btree"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := instance(t, panels["ISPConfig"].main+"default_database_type = hash\n", panels["ISPConfig"].master)
			apply(t, read(t, dir))
			c.change(t, dir)
			w := wants()
			if w.Partial = c.partial; c.partial {
				w.Peers = nil
			}
			p := read(t, dir)
			pl, err := p.Plan(t.Context(), w)
			if err != nil || pl.Empty() {
				t.Fatalf("%v, %v", pl, err)
			}
			if _, err := p.Apply(t.Context(), pl, w, noon.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			now := read(t, dir)
			for list, file := range map[string]string{"transport_maps": TransportFile, "smtp_tls_policy_maps": PolicyFile} {
				if got := Words(now.Get(list)); len(got) != 1 || got[0] != c.kind+":"+filepath.Join(dir, file) || now.Broken(t.Context(), got[0]) != nil {
					t.Errorf("%s is %q: %v", list, got, now.Broken(t.Context(), got[0]))
				}
			}
			if _, ok := now.Lookup(t.Context(), now.Get("smtp_tls_policy_maps"), "beta.example"); !ok || !now.RoutesTo(t.Context(), "pec.example", wants().LMTP) {
				t.Error("the tables do not say what they must")
			}
			undo(t, dir)
			for _, list := range []string{"transport_maps", "smtp_tls_policy_maps"} {
				for _, table := range Words(read(t, dir).Get(list)) {
					if now.Broken(t.Context(), table) != nil {
						t.Errorf("undone, %s is %s: %v", list, table, now.Broken(t.Context(), table))
					}
				}
			}
		})
	}
}

// TestLearn: what was learned of many domains at once is what each would have been
// answered alone, and no table is opened again for it.
func TestLearn(t *testing.T) {
	t.Parallel()
	dir := instance(t, "", panels["plain"].master)
	tables := map[string]string{
		"transport_maps":          "pec.example lmtp:unix:/run/pecd/lmtp.sock\n.beta.example smtp:[192.0.2.1]\n* smtp:[192.0.2.2]\n",
		"virtual_mailbox_domains": "pec.example OK\nmail.beta.example OK\n",
		"relay_domains":           "gamma.example OK\n",
	}
	for name, text := range tables {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		postconf(t, dir, "-e", name+"=texthash:"+filepath.Join(dir, name))
	}
	domains := []string{"pec.example", "mail.beta.example", "beta.example", "gamma.example", "sub.gamma.example", "elsewhere.example", "pec.example"}
	say := func(p *Postfix) (all []string) {
		for _, d := range domains {
			all = append(all, d+" "+p.Class(t.Context(), d)+" "+p.Route(t.Context(), d))
		}
		return all
	}
	alone, learned := say(read(t, dir)), read(t, dir)
	learned.Learn(t.Context(), domains)
	for name := range tables {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if got := say(learned); !slices.Equal(got, alone) {
		t.Errorf("learned:\n%s\nalone:\n%s", strings.Join(got, "\n"), strings.Join(alone, "\n"))
	}
	want := []string{
		"pec.example virtual_mailbox_domains lmtp:unix:/run/pecd/lmtp.sock", "mail.beta.example virtual_mailbox_domains smtp:[192.0.2.1]",
		"beta.example  smtp:[192.0.2.2]", "gamma.example relay_domains smtp:[192.0.2.2]", "sub.gamma.example relay_domains smtp:[192.0.2.2]",
		"elsewhere.example  smtp:[192.0.2.2]", "pec.example virtual_mailbox_domains lmtp:unix:/run/pecd/lmtp.sock",
	}
	if !slices.Equal(alone, want) {
		t.Errorf("answers:\n%s", strings.Join(alone, "\n"))
	}
}
