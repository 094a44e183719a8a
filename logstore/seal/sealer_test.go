package seal_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/seal"
)

// TestSeal: two days with entries and one without, sealed in order and sound.
func TestSeal(t *testing.T) {
	s := newScene(t)
	s.register.event(t, "2026-05-04 09:00:00")
	s.register.event(t, "2026-05-04 23:59:59")
	third := s.register.event(t, "2026-05-06 00:00:00")
	s.seal("2026-05-05 00:09:59") // not yet
	first := s.seal("2026-05-05 00:10:00", "2026-05-04")
	rest := s.seal("2026-05-07 08:00:00", "2026-05-05", "2026-05-06")
	s.seal("2026-05-07 08:00:00") // nothing is left
	if m := first[0]; m.First != 1 || m.Last != 2 || m.Entries != 2 || m.PreviousSHA256 != (logstore.Digest{}) {
		t.Errorf("%+v", m)
	}
	if m := rest[0]; m.First != 3 || m.Last != 2 || m.Entries != 0 || m.ChainBefore != first[0].ChainAfter || m.ChainAfter != m.ChainBefore {
		t.Errorf("empty day: %+v", m)
	}
	if m := rest[1]; m.First != 3 || m.Last != 3 || m.ChainAfter != third.Chain || m.PreviousSHA256 == (logstore.Digest{}) {
		t.Errorf("%+v", m)
	}
	s.sound(3)
	if got := list(t, filepath.Join(s.dir, "2026-05-05")); len(got) != 5 {
		t.Errorf("files: %v", got)
	}
	if got := list(t, s.dir); len(got) != 4 { // three days and the lock
		t.Errorf("left over: %v", got)
	}
}

// TestText: the line of text that people read.
func TestText(t *testing.T) {
	s := newScene(t)
	s.register.event(t, "2026-05-04 09:00:00")
	s.seal("2026-05-05 01:00:00", "2026-05-04")
	got, err := os.ReadFile(filepath.Join(s.dir, "2026-05-04", "2026-05-04.log"))
	const want = `May  4 09:00:00 2026 +0200 pecd[1]: opec1@alfa.example: tipo=accettazione (Accettazione): mittente=alice@alfa.example: ` +
		`destinatari=bob@beta.example (certificato), mario@ordinary.example (esterno): oggetto=Offerta:\ <prezzo & sconto> perché no: ` +
		`msgid=<1@client.example>: message-id=m1@alfa.example: gestore=Alfa PEC S.p.A.: ` +
		"sha256=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
}

// TestSummerTime: days of 23 and 25 hours, and a leap day.
func TestSummerTime(t *testing.T) {
	for _, tc := range []struct {
		day    string
		hours  float64
		inside []string // UTC
		after  string
	}{
		{"2026-03-29", 23, []string{"2026-03-28T23:00:00Z", "2026-03-29T21:59:59Z"}, "2026-03-29T22:00:00Z"},
		{"2026-10-25", 25, []string{"2026-10-24T22:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T22:59:59Z"}, "2026-10-25T23:00:00Z"},
		{"2028-02-29", 24, []string{"2028-02-28T23:00:00Z", "2028-02-29T22:59:59Z"}, "2028-02-29T23:00:00Z"},
	} {
		s := newScene(t)
		for _, at := range append(tc.inside, tc.after) {
			instant, err := time.Parse(time.RFC3339, at)
			if err != nil {
				t.Fatal(err)
			}
			s.register.add(t, instant, entry("x@alfa.example"))
			s.setTime(instant.Add(9 * time.Minute))
		}
		if sealed, err := s.sealer(nil).Seal(t.Context()); err != nil || len(sealed) > 0 {
			t.Errorf("%s: sealed too early: %v, %v", tc.day, sealed, err)
		}
		s.setTime(s.clock().Add(time.Minute))
		sealed, err := s.sealer(nil).Seal(t.Context())
		if err != nil || len(sealed) != 1 {
			t.Fatalf("%s: %v, %v", tc.day, sealed, err)
		}
		m := sealed[0]
		if m.Day.String() != tc.day || m.Until.Sub(m.Since).Hours() != tc.hours || m.Entries != int64(len(tc.inside)) {
			t.Errorf("%s: %+v", tc.day, m)
		}
		s.sound(1)
	}
}

// TestBothHours: in the hour that comes twice a line tells which one it is.
func TestBothHours(t *testing.T) {
	s := newScene(t)
	for _, hour := range []int{0, 1} {
		s.register.add(t, time.Date(2026, 10, 25, hour, 30, 0, 0, time.UTC), entry("x@alfa.example"))
	}
	s.seal("2026-10-26 01:00:00", "2026-10-25")
	text, err := os.ReadFile(filepath.Join(s.dir, "2026-10-25", "2026-10-25.log"))
	if err != nil || !strings.Contains(string(text), "Oct 25 02:30:00 2026 +0200 pecd[1]") || !strings.Contains(string(text), "Oct 25 02:30:00 2026 +0100 pecd[2]") {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestDown: three days without a daemon are made up for, day by day.
func TestDown(t *testing.T) {
	s := newScene(t)
	s.register.event(t, "2026-05-04 09:00:00")
	s.seal("2026-05-05 01:00:00", "2026-05-04")
	s.register.event(t, "2026-05-05 10:00:00")
	// Down from then on, over three midnights.
	s.register.event(t, "2026-05-08 11:00:00")
	made := s.seal("2026-05-08 11:00:01", "2026-05-05", "2026-05-06", "2026-05-07")
	if made[0].Entries != 1 || made[1].Entries != 0 || made[2].Entries != 0 {
		t.Errorf("%+v", made)
	}
	s.sound(4)
	r := s.verify()
	if d := r.Days[1].Seal.Delay(); d < 2*24*time.Hour {
		t.Errorf("sealed two days late, and it shows only %s", d)
	}
}

// TestOrder: entries are sealed in the order of their numbers, whatever their
// instants.
func TestOrder(t *testing.T) {
	s := newScene(t)
	s.register.event(t, "2026-05-04 09:00:00")
	s.register.event(t, "2026-05-05 00:00:01") // written first
	s.register.event(t, "2026-05-04 23:59:59")
	if m := s.seal("2026-05-05 01:00:00", "2026-05-04")[0]; m.Last != 3 {
		t.Errorf("%+v", m)
	}
	s.register.event(t, "2026-05-04 23:59:58") // written after the seal
	s.register.event(t, "2026-05-05 10:00:00")
	if m := s.seal("2026-05-06 01:00:00", "2026-05-05")[0]; m.First != 4 || m.Last != 5 {
		t.Errorf("%+v", m)
	}
	s.register.event(t, "2031-01-01 00:00:00") // the clock was wrong for a moment
	s.register.event(t, "2026-05-06 10:00:00")
	if m := s.seal("2026-05-07 01:00:00", "2026-05-06")[0]; m.First != 6 || m.Last != 7 {
		t.Errorf("%+v", m)
	}
	s.sound(3)
}

func TestNothingYet(t *testing.T) {
	s := newScene(t)
	s.seal("2026-05-05 01:00:00")
	if st := s.sealer(nil).Status(); st.Late || !st.Next.IsZero() {
		t.Errorf("%+v", st)
	}
}

func TestNewRefuses(t *testing.T) {
	s := newScene(t)
	for name, change := range map[string]func(*seal.Options){
		"no register": func(o *seal.Options) { o.Register = nil },
		"no provider": func(o *seal.Options) { o.Provider = "" },
		"own zone":    func(o *seal.Options) { o.Zone = time.FixedZone("Mine", 3600) },
	} {
		o := s.options()
		change(&o)
		if _, err := seal.New(o); err == nil {
			t.Error(name)
		}
	}
}

// TestPublishFollows: a day is not published that would not follow from the day before for
// whoever verifies both; what two authorities' clocks may differ by is no reason, nor is
// a new name.
func TestPublishFollows(t *testing.T) {
	s := newScene(t)
	s.register.event(t, "2026-05-04 09:00:00")
	s.register.event(t, "2026-05-05 09:00:00")
	s.register.event(t, "2026-05-06 09:00:00")
	// The first day is stamped by one authority, the others by one whose clock is behind.
	late := time.Hour
	s.tsa.Now = func() time.Time {
		if len(list(t, filepath.Join(s.dir, "2026-05-04"))) == 0 {
			return s.clock()
		}
		return s.clock().Add(-late)
	}
	s.set("2026-05-06 08:00:00")
	if sealed, err := s.sealer(nil).Seal(t.Context()); len(sealed) != 1 || !errors.Is(err, seal.ErrUnsound) || !strings.Contains(err.Error(), "sealed before the day before") {
		t.Errorf("an hour behind: %v, %v", sealed, err)
	}
	s.sound(1)
	late = 2 * time.Second
	s.seal("2026-05-06 08:00:00", "2026-05-05")
	s.sound(2)
	s.set("2026-05-07 08:00:00")
	renamed := s.sealer(func(o *seal.Options) { o.Provider = "Alfa Certificata S.p.A." })
	if sealed, err := renamed.Seal(t.Context()); err != nil || len(sealed) != 1 {
		t.Errorf("a new name: %v, %v", sealed, err)
	}
	s.sound(3)
}
