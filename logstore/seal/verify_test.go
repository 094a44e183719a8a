package seal_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/seal"
)

// fourDays is a scene with four sealed days; the third is empty.
func fourDays(t testing.TB) *scene {
	s := newScene(t)
	for _, at := range []string{"2026-05-04 09:00:00", "2026-05-04 10:00:00", "2026-05-04 11:00:00",
		"2026-05-05 09:00:00", "2026-05-05 10:00:00", "2026-05-07 09:00:00"} {
		s.register.event(t, at)
	}
	for _, d := range []string{"04", "05", "06", "07"} {
		s.setTime(romeTime("2026-05-"+d+" 12:00:00").AddDate(0, 0, 1))
		if _, err := s.sealer(nil).Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// broken expects that only the given day is not sound, and what is said.
func (s *scene) broken(name string, which, text string) *seal.Problem {
	s.t.Helper()
	r := s.verify()
	if r.First == nil || r.First.Day.String() != which || r.Sound != len(r.Days)-1 || r.OK() {
		var b bytes.Buffer
		r.WriteText(&b)
		s.t.Errorf("%s: want only %s broken:\n%s", name, which, b.String())
		return &seal.Problem{}
	}
	if !strings.Contains(r.First.Problem.Error(), text) {
		s.t.Errorf("%s: %q, want %q", name, r.First.Problem, text)
	}
	return r.First.Problem
}

// TestTamper: whatever octet is altered in a file of a day, that day and no other
// is not sound; the same where a file is cut, longer, empty or missing.
func TestTamper(t *testing.T) {
	s := fourDays(t)
	s.sound(4)
	for _, suffix := range []string{".log", ".jsonl", ".json", ".json.p7m", ".json.p7m.tst"} {
		file := filepath.Join(s.dir, "2026-05-05", "2026-05-05"+suffix)
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		step := len(good)/23 + 1
		for i := 0; i < len(good); i += step {
			altered(t, file, func(b []byte) []byte { b[i] ^= 4; return b }, func() {
				if r := s.verifier.VerifyDay(t.Context(), os.DirFS(s.dir), day("2026-05-05")); r.Sound || !strings.HasPrefix(r.Problem.File, "2026-05-05/") {
					t.Errorf("%s: octet %d: %+v", suffix, i, r)
				}
			})
		}
		altered(t, file, func(b []byte) []byte { return b[:len(b)-1] }, func() { s.broken(suffix+" cut", "2026-05-05", suffix) })
		altered(t, file, func(b []byte) []byte { return append(b, '\n') }, func() { s.broken(suffix+" longer", "2026-05-05", suffix) })
		altered(t, file, func(b []byte) []byte { return nil }, func() { s.broken(suffix+" empty", "2026-05-05", suffix) })
		if err := os.Rename(file, file+".away"); err != nil {
			t.Fatal(err)
		}
		s.broken(suffix+" missing", "2026-05-05", "missing")
		if err := os.Rename(file+".away", file); err != nil {
			t.Fatal(err)
		}
	}
	s.sound(4)
}

// TestTamperEntries: which entry is broken.
func TestTamperEntries(t *testing.T) {
	s := fourDays(t)
	records := filepath.Join(s.dir, "2026-05-04", "2026-05-04.jsonl")
	text := filepath.Join(s.dir, "2026-05-04", "2026-05-04.log")
	lines := func(change func(l [][]byte) [][]byte) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Join(change(bytes.SplitAfter(b, []byte("\n"))), nil) }
	}
	for name, tc := range map[string]struct {
		file   string
		change func([]byte) []byte
		line   int
		seq    int64
		text   string
	}{
		"subject": {records, func(b []byte) []byte { return bytes.Replace(b, []byte("opec2"), []byte("opec7"), 1) }, 3, 2, "follow"},
		"removed": {records, lines(func(l [][]byte) [][]byte { return append(l[:2:2], l[3:]...) }), 3, 2, "follow"},
		"swapped": {records, lines(func(l [][]byte) [][]byte { l[1], l[2] = l[2], l[1]; return l }), 2, 1, "follow"},
		"twice":   {records, lines(func(l [][]byte) [][]byte { l[2] = append(l[1][:len(l[1]):len(l[1])], l[2]...); return l }), 3, 2, "follow"},
		"last":    {records, lines(func(l [][]byte) [][]byte { return l[:3] }), 4, 3, "missing"},
		"more":    {records, lines(func(l [][]byte) [][]byte { return append(l, l[3]) }), 5, 0, "after the last"},
		"header":  {records, func(b []byte) []byte { return bytes.Replace(b, []byte("Alfa"), []byte("Beta"), 1) }, 1, 0, "seal says"},
		"text":    {text, func(b []byte) []byte { return bytes.Replace(b, []byte("10:00:00"), []byte("10:00:01"), 1) }, 2, 2, "record says"},
		"no text": {text, lines(func(l [][]byte) [][]byte { return l[:2] }), 3, 3, "missing"},
		"rechained": {records, func(b []byte) []byte {
			var chain logstore.Digest
			l := bytes.SplitAfter(b, []byte("\n"))
			for i, line := range l[1:4] {
				record := bytes.Replace(line[len(`{"chain":"","entry":`)+64:len(line)-2], []byte("perché no"), []byte("perché sì"), 1)
				chain = chain.Next(record)
				l[i+1] = []byte(`{"chain":"` + chain.String() + `","entry":` + string(record) + "}\n")
			}
			return bytes.Join(l, nil)
		}, 1, 1, "record says"}, // the text, which still says the truth
	} {
		altered(t, tc.file, tc.change, func() {
			p := s.broken(name, "2026-05-04", tc.text)
			if p.Line != tc.line || p.Seq != tc.seq {
				t.Errorf("%s: %+v", name, p)
			}
		})
	}
	s.sound(4)
}

// TestForged: somebody with the provider's key seals other days. What he cannot
// make is a token of the old time; what he does not replace does not follow.
func TestForged(t *testing.T) {
	s := fourDays(t)
	forger := newScene(t)
	forger.ca, forger.key, forger.tsa, forger.verifier = s.ca, s.key, s.tsa, s.verifier
	s.tsa.Now = forger.clock
	forger.register.links = append(forger.register.links, s.register.links...)
	rewrite(forger.register, 4)
	forger.set("2026-06-01 09:00:00")
	if _, err := forger.sealer(nil).Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	replace := func(name string) {
		os.RemoveAll(filepath.Join(s.dir, name))
		if err := os.CopyFS(filepath.Join(s.dir, name), os.DirFS(filepath.Join(forger.dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	replace("2026-05-05")
	r := s.verify()
	if r.First == nil || r.First.Day.String() != "2026-05-05" && r.First.Day.String() != "2026-05-06" || r.Through.Seq > 5 {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{"2026-05-04", "2026-05-06", "2026-05-07"} {
		replace(name)
	}
	r = s.verify()
	if !r.OK() {
		t.Fatalf("a wholly new seal is sound in itself: %+v", r.First)
	}
	if d := r.Days[1].Seal.Delay(); d.Hours() < 24*20 {
		t.Errorf("but its token tells: %s", d)
	}
}

// TestFollows: a day that is missing or of another series.
func TestFollows(t *testing.T) {
	s := fourDays(t)
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(filepath.Join(s.dir, "2026-05-05"), away); err != nil {
		t.Fatal(err)
	}
	s.broken("gap", "2026-05-05", "missing")
	if r := s.verify(); r.Through.Seq != 3 {
		t.Errorf("sound through %d", r.Through.Seq)
	}
	if err := os.Rename(away, filepath.Join(s.dir, "2026-05-05")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(s.dir, "2026-05-06"), away); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(s.dir, "2026-05-06"), os.DirFS(filepath.Join(s.dir, "2026-05-05"))); err != nil {
		t.Fatal(err)
	}
	s.broken("the day before under another name", "2026-05-06", "missing")
}

func TestSigner(t *testing.T) {
	s := fourDays(t)
	var asked *x509.Certificate
	v := s.verifier.WithSigner(func(c *x509.Certificate, m seal.Manifest) error {
		asked = c
		return errors.New("not that of " + m.Provider)
	})
	r := v.VerifyDay(t.Context(), os.DirFS(s.dir), day("2026-05-04"))
	if r.Sound || !strings.Contains(r.Problem.Text, "not that of Alfa") || !asked.Equal(s.key.cert) {
		t.Errorf("%+v", r)
	}
	if r := newScene(t).verifier.VerifyDay(t.Context(), os.DirFS(s.dir), day("2026-05-04")); r.Sound || !strings.HasSuffix(r.Problem.File, ".tst") {
		t.Errorf("another's anchors: %+v", r)
	}
}

// TestResult: for programs and for people.
func TestResult(t *testing.T) {
	s := fourDays(t)
	r := s.verify()
	data, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(data), `"sound":4`) || !strings.Contains(string(data), `"day":"2026-05-06","sound":true`) {
		t.Errorf("%v\n%s", err, data)
	}
	var b bytes.Buffer
	if err := r.WriteText(&b); err != nil || !strings.HasSuffix(b.String(), "4 days: all sound\n") ||
		!strings.HasPrefix(b.String(), "2026-05-04 sound  3 entries, through 3; stamped 2026-05-05T10:00:00Z, 12h0m0s after the day's end, by CN=Test TSA") {
		t.Errorf("%v\n%s", err, b.String())
	}
	if r.Through.Seq != 6 || r.Through.Chain != s.register.links[5].Chain {
		t.Errorf("%+v", r.Through)
	}
	heard := 0
	ctx, cancel := context.WithCancel(t.Context())
	_, err = s.verifier.VerifyDays(ctx, os.DirFS(s.dir), func(seal.DayResult) { heard++; cancel() })
	if heard != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("heard %d, %v", heard, err)
	}
}

// reseal seals 5 May anew with a changed manifest, as the provider could.
func (s *scene) reseal(change func(*seal.Manifest)) {
	s.t.Helper()
	base := filepath.Join(s.dir, "2026-05-05", "2026-05-05.json")
	data, err := os.ReadFile(base)
	if err != nil {
		s.t.Fatal(err)
	}
	var m seal.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		s.t.Fatal(err)
	}
	change(&m)
	if data, err = json.MarshalIndent(m, "", "  "); err != nil {
		s.t.Fatal(err)
	}
	data = append(data, '\n')
	p7m, err := s.key.SignSeal(s.t.Context(), data, m.Sealed)
	if err != nil {
		s.t.Fatal(err)
	}
	token, err := s.tsa.Stamp(s.t.Context(), sha256.Sum256(p7m))
	if err != nil {
		s.t.Fatal(err)
	}
	for name, data := range map[string][]byte{"": data, ".p7m": p7m, ".p7m.tst": token.Raw} {
		if err := os.WriteFile(base+name, data, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
}

// TestResealed: a manifest that is signed and stamped, and says what is not so.
func TestResealed(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*seal.Manifest)
		day    string
		text   string
	}{
		"chain after":  {func(m *seal.Manifest) { m.ChainAfter[0]++ }, "2026-05-05", "does not end"},
		"chain before": {func(m *seal.Manifest) { m.ChainBefore[0]++ }, "2026-05-05", "seal says"},
		"numbers":      {func(m *seal.Manifest) { m.First++; m.Last++ }, "2026-05-05", "seal says"},
		"digest":       {func(m *seal.Manifest) { m.RecordsSHA256[0]++ }, "2026-05-05", "digest"},
		"zone":         {func(m *seal.Manifest) { m.Zone = "Mars/Olympus" }, "2026-05-05", "not known"},
		"day before":   {func(m *seal.Manifest) { m.PreviousSHA256[0]++ }, "2026-05-05", "follow the seal"},
		"made anew":    {func(m *seal.Manifest) { m.Sealed, m.SealedUnix = m.Sealed.Add(time.Second), m.SealedUnix+1 }, "2026-05-06", "follow the seal"},
	} {
		s := fourDays(t)
		s.reseal(tc.change)
		r := s.verify()
		if r.First == nil || r.First.Day.String() != tc.day || !strings.Contains(r.First.Problem.Error(), tc.text) {
			t.Errorf("%s: %+v, want %s: %s", name, r.First, tc.day, tc.text)
		}
	}
}
