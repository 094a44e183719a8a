package seal_test

import (
	"os"
	"path/filepath"
	"testing"

	"pecd/logstore/seal"
)

// TestNoFolder has a file where the folder of the seals should be: attempts count,
// and the alarm is raised when it is time; when the folder can be made, all is well.
func TestNoFolder(t *testing.T) {
	s := newScene(t)
	s.register.event(t, "2026-03-02 10:00:00")
	parent := filepath.Dir(s.dir)
	s.dir = filepath.Join(parent, "mount", "seals")
	if err := os.WriteFile(filepath.Join(parent, "mount"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sealer := s.sealer(nil)
	for n, now := range []string{"2026-03-03 01:00:00", "2026-03-03 07:00:00"} {
		s.set(now)
		if _, err := sealer.Seal(t.Context()); err == nil {
			t.Fatal("sealed into a file")
		}
		if st := sealer.Status(); st.Attempts != n+1 || st.Err == nil || st.Late != (n == 1) {
			t.Errorf("at %s: %+v", now, st)
		}
	}
	if err := os.Remove(filepath.Join(parent, "mount")); err != nil {
		t.Fatal(err)
	}
	if _, err := sealer.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := sealer.Status(); st.Attempts != 0 || st.Err != nil || st.Late {
		t.Errorf("afterwards: %+v", st)
	}
	s.sound(1)
}

// TestNoFolderForWitnesses is the same about the proofs of witnesses: who cannot be
// told is known to be failing, also if he never heard anything.
func TestNoFolderForWitnesses(t *testing.T) {
	s := newScene(t)
	s.register.event(t, "2026-03-02 10:00:00")
	s.set("2026-03-02 10:01:00")
	parent := filepath.Dir(s.dir)
	s.dir = filepath.Join(parent, "mount", "seals")
	if err := os.WriteFile(filepath.Join(parent, "mount"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w := s.watch(nil, seal.NewStampWitness("authority", s.tsa))
	if err := w.Attest(t.Context()); err == nil || w.Status()[0].Err == nil {
		t.Errorf("%v, %+v", err, w.Status())
	}
	if err := os.Remove(filepath.Join(parent, "mount")); err != nil {
		t.Fatal(err)
	}
	if err := w.Attest(t.Context()); err != nil || w.Status()[0].Err != nil || w.Status()[0].Head.Seq != 1 {
		t.Errorf("afterwards: %v, %+v", err, w.Status())
	}
}
