package doctor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/packaging/demo/stage"
)

// TestCanary sends it through real servers and a real pecd, to where it is refused,
// and to where nothing comes of it.
func TestCanary(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "pecd")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "pecd/cmd/pecd").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	st := raise(t, stage.Options{PecdBinary: bin})
	alice, mario := st.Alfa.Users[0], st.Ordinary.Users[0]
	good := Canary{Submission: st.Alfa.Submission, Address: alice.Address, Password: alice.Password, MessageID: "<one@alfa.example>",
		Store: st.Alfa.Pecd.Config.Store.Path, Now: time.Now(), Pause: 50 * time.Millisecond}
	fly := func(c Canary, patience time.Duration) []Finding {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return c.Fly(ctx, Site{ConfigFile: "pecd.toml"})
	}
	if found := fly(good, time.Minute); len(found) > 0 {
		t.Errorf("%+v", found)
	}
	wrong := good
	wrong.Password = "wrong"
	if found := fly(wrong, time.Minute); len(found) != 1 || found[0].ID != "canary-refused" || !strings.Contains(found[0].What, "535") {
		t.Errorf("%+v", found)
	}
	lost := good
	lost.Submission, lost.Address, lost.Password, lost.MessageID = st.Ordinary.Submission, mario.Address, mario.Password, "<two@alfa.example>"
	if found := fly(lost, 3*time.Second); len(found) != 1 || found[0].ID != "canary-lost" || !strings.Contains(found[0].What, "there is none") {
		t.Errorf("%+v", found)
	}
}

func TestReadCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "canary")
	for _, c := range []struct {
		text string
		mode os.FileMode
		good bool
	}{{"a@b.example\nsecret\n", 0o600, true}, {"a@b.example\r\nsecret", 0o400, true}, {"a@b.example\nsecret\n", 0o644, false},
		{"a@b.example\n", 0o600, false}, {"a\nb\n", 0o600, false}, {"a@b\nc\nd\n", 0o600, false}} {
		os.Remove(file)
		if err := os.WriteFile(file, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		address, password, err := ReadCredentials(file)
		if c.good != (err == nil) || !c.good && !errors.Is(err, ErrCredentials) || c.good && (address != "a@b.example" || password != "secret") {
			t.Errorf("%q %o: %q %q %v", c.text, c.mode, address, password, err)
		}
	}
	if _, _, err := ReadCredentials(file + "x"); !errors.Is(err, ErrCredentials) {
		t.Error(err)
	}
}
