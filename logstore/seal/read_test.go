package seal

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"pecd/logstore"
)

// TestRecordFields: the text knows every field that an entry has. If it does not,
// FormatText needs a successor.
func TestRecordFields(t *testing.T) {
	names := func(v any) map[string]bool {
		m := map[string]bool{}
		for f := range fields(reflect.TypeOf(v)) {
			m[f] = true
		}
		return m
	}
	ours, theirs := names(record{}), names(logstore.Entry{})
	for name := range theirs {
		if !ours[name] {
			t.Errorf("entries have %q, the text does not", name)
		}
	}
}

func fields(t reflect.Type) map[string]bool {
	m := map[string]bool{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		m[name] = true
	}
	return m
}

// TestEscape: no value looks like a field or a line of its own.
func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"perché no":       "perché no",
		"a: tipo=b":       `a:\ tipo=b`,
		"a:b":             "a:b",
		"a:":              `a\{3A}`,
		`:\ `:             `:\\ `,
		"a\nb\x1b[2J\x7f": `a\{A}b\{1B}[2J\{7F}`,
		"a\u2028\u202eb":  `a\{2028}\{202E}b`,
		"a\xffb":          `a\{FFFD}b`,
	} {
		if got := escape(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	if got := list([]string{"a,b@x", "c"}); got != `a\,b@x, c` {
		t.Error(got)
	}
}

// FuzzLine: a line of text is one line, and its fields can be told apart.
func FuzzLine(f *testing.F) {
	f.Add([]byte(`{"seq":1,"at":"2026-05-04T09:00:00Z","type":"accettazione","identifier":"a","subject":"b: mittente=c","taken":["d,e"]}`))
	f.Add([]byte(`{"seq":-1,"recipients":[{"address":"a\n","type":"\\"},{}],"error":": "}`))
	f.Fuzz(func(t *testing.T, octets []byte) {
		r, err := readRecord(octets)
		if err != nil {
			return
		}
		line := r.line(time.UTC)
		if bytes.IndexByte(line, '\n') != len(line)-1 || bytes.ContainsAny(line, "\x00\x1b\r") {
			t.Errorf("%q", line)
		}
		seen := map[string]bool{}
		for i, part := range strings.Split(strings.TrimSuffix(string(line), "\n"), ": ") {
			if i < 2 { // what stands before the fields
				continue
			}
			name, _, _ := strings.Cut(part, "=")
			if seen[name] {
				t.Errorf("%s stands twice in %q", name, line)
			}
			seen[name] = true
		}
	})
}

func example() Manifest {
	rome, err := time.LoadLocation("Europe/Rome")
	if err != nil {
		panic(err) // the tests need the database of time zones
	}
	d := Day{time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC)}
	since, until := d.Bounds(rome)
	return Manifest{Format: FormatSeal, Text: FormatText, Provider: `Alfa & "Beta"`, Day: d, Zone: "Europe/Rome", Since: since, Until: until,
		Sealed: until.Add(time.Hour), SealedUnix: until.Add(time.Hour).Unix(), First: 3, Last: 4, Entries: 2, ChainAfter: logstore.Digest{1}}
}

func FuzzReadManifest(f *testing.F) {
	good, err := example().marshal()
	if err != nil {
		f.Fatal(err)
	}
	if _, err := readManifest(good); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte("+01:00"), []byte("+02:00"), 1))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := readManifest(data)
		if err != nil {
			return
		}
		if again, err := m.marshal(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s\n%s", data, again)
		}
	})
}

// TestReadManifest: what is not written as manifests are, or says what cannot be.
func TestReadManifest(t *testing.T) {
	for name, change := range map[string]func(*Manifest){
		"format":    func(m *Manifest) { m.Format = "pecd-seal-2" },
		"text":      func(m *Manifest) { m.Text = "" },
		"entries":   func(m *Manifest) { m.Entries = 3 },
		"none":      func(m *Manifest) { m.First = 0 },
		"negative":  func(m *Manifest) { m.Entries, m.Last = -1, 1 },
		"empty":     func(m *Manifest) { m.Entries, m.Last = 0, 2 },
		"too early": func(m *Manifest) { m.Sealed = m.Until.Add(-time.Hour); m.SealedUnix = m.Sealed.Unix() },
		"two times": func(m *Manifest) { m.SealedUnix++ },
		"two days": func(m *Manifest) {
			m.Until = m.Until.Add(24 * time.Hour)
			m.Sealed = m.Until
			m.SealedUnix = m.Until.Unix()
		},
		"another day":  func(m *Manifest) { m.Day = m.Day.Next() },
		"wrong way":    func(m *Manifest) { m.Since, m.Until = m.Until, m.Since },
		"other middle": func(m *Manifest) { m.Since = m.Since.UTC() },
	} {
		m := example()
		change(&m)
		data, err := m.marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readManifest(data); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	good, err := example().marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"blank":   append(bytes.Clone(good), ' '),
		"twice":   bytes.Replace(good, []byte(`  "last": 4,`), []byte("  \"last\": 9,\n  \"last\": 4,"), 1),
		"more":    bytes.Replace(good, []byte(`  "last"`), []byte("  \"more\": 1,\n  \"last\""), 1),
		"large":   append(bytes.Clone(good), make([]byte, maxManifest)...),
		"capital": bytes.Replace(good, []byte(`"last"`), []byte(`"Last"`), 1),
	} {
		if _, err := readManifest(data); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// FuzzEntries: hostile files of a day end in a problem.
func FuzzEntries(f *testing.F) {
	m := example()
	m.Provider = "Alfa"
	head, err := m.header()
	if err != nil {
		f.Fatal(err)
	}
	record := `{"seq":3,"at":"2026-05-04T09:00:00Z"}`
	chain := m.ChainBefore.Next([]byte(record))
	line := linePrefix + chain.String() + lineMiddle + record + lineSuffix
	f.Add([]byte(string(head)+line), []byte("May  4 11:00:00 2026 +0200 pecd[3]: \n"))
	f.Add([]byte(linePrefix+lineMiddle), []byte{})
	f.Fuzz(func(t *testing.T, records, text []byte) {
		files := fstest.MapFS{m.Day.name(nameRecords): {Data: records}, m.Day.name(nameText): {Data: text}}
		if verifyEntries(t.Context(), files, m) == nil {
			t.Error("digests that nobody can meet were met")
		}
	})
}

func FuzzTar(f *testing.F) {
	f.Add(make([]byte, 1024))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := openTar(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		if _, err := files.index(); err == nil && len(files.files) == 0 {
			t.Error("an index out of nothing")
		}
		if _, err := Days(files); err != nil {
			t.Error(err)
		}
	})
}

// FuzzReadHeads also holds the round trip.
func FuzzReadHeads(f *testing.F) {
	f.Add("seq=1; chain="+strings.Repeat("ab", 32), int64(7))
	f.Fuzz(func(t *testing.T, text string, seq int64) {
		h := Head{Seq: max(1, seq), Chain: logstore.Digest{}.Next([]byte(text))}
		var last Head
		if err := ReadHeads(strings.NewReader(text+"\n"+h.Field()), func(h Head) error { last = h; return nil }); err == nil && last != h {
			t.Errorf("%+v, want %+v", last, h)
		}
	})
}
