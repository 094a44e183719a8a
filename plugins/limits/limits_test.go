package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pecd/pec"
	"pecd/plugins/protocol"
	"pecd/plugins/sdk"
	"pecd/plugins/sdk/sdktest"
	"pecd/points"
)

// noon is an instant of a winter day in Rome, at a full hour.
var noon = time.Date(2026, 11, 22, 11, 0, 0, 0, time.UTC)

// A clock is set by the test.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

// newLimiter is a check whose counts are in dir, none if empty.
func newLimiter(t *testing.T, table, dir string, c *clock) *limiter {
	t.Helper()
	config, err := sdk.NewConfig(table, false)
	if err != nil {
		t.Fatal(err)
	}
	s := defaults()
	if err := errors.Join(config.Decode(&s), s.check(config)); err != nil {
		t.Fatal(err)
	}
	zone, err := time.LoadLocation(s.Timezone)
	if err != nil {
		t.Fatal(err)
	}
	l := &limiter{settings: s, book: newBook(zone, c.at), now: c.now, log: slog.Default()}
	if dir != "" {
		if l.journal, err = openJournal(dir, l.book, slog.Default()); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

var count int

// send offers a new message of a sender to n recipients and returns the English
// reason, empty if it passes.
func send(t *testing.T, l *limiter, sender string, n int) string {
	t.Helper()
	count++
	return offer(t, l, sender, n, fmt.Sprintf("<%d@alfa.example>", count))
}

func offer(t *testing.T, l *limiter, sender string, n int, id string) string {
	t.Helper()
	content := "From: x@alfa.example\r\n"
	if id != "" {
		content += "Message-ID: " + id + "\r\n"
	}
	m := sdk.NewMessage(points.Submission, []byte(content+"\r\nBuongiorno\r\n"))
	m.Login, m.Sender = sender, pec.Address(sender)
	for i := range n {
		m.Recipients = append(m.Recipients, pec.Recipient{Address: pec.Address(fmt.Sprintf("r%d@beta.example", i))})
	}
	f, err := l.check(t.Context(), m)
	if err != nil || f.Says != points.Clean && f.Says != points.Refused {
		t.Fatalf("%v %v", f, err)
	}
	for _, s := range []string{f.Reason.Italian, f.Reason.English} {
		if f.Says == points.Refused && s == "" || len(s) > protocol.MaxText || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("the reason %q", s)
		}
	}
	return f.Reason.English
}

// expect lets n messages pass and the next be refused for want.
func expect(t *testing.T, l *limiter, sender string, n int, want string) {
	t.Helper()
	for i := range n {
		if why := send(t, l, sender, 1); why != "" {
			t.Fatalf("%s: message %d: %s", sender, i+1, why)
		}
	}
	if why := send(t, l, sender, 1); want == "" && why != "" || !strings.Contains(why, want) || want != "" && why == "" {
		t.Errorf("%s: after %d messages: %q, want %q", sender, n, why, want)
	}
}

func TestHourAndDay(t *testing.T) {
	c := &clock{noon}
	l := newLimiter(t, `{"messages_per_hour":3,"messages_per_day":5}`, "", c)
	expect(t, l, "anna@alfa.example", 3, "3 messages per hour")
	c.at = noon.Add(time.Hour - time.Second)
	expect(t, l, "anna@alfa.example", 0, "3 messages per hour")
	expect(t, l, "bruno@alfa.example", 3, "3 messages per hour")
	c.at = noon.Add(time.Hour)
	expect(t, l, "anna@alfa.example", 2, "5 messages per day")
	c.at = time.Date(2026, 11, 22, 22, 59, 59, 0, time.UTC) // in Rome a second before midnight
	expect(t, l, "anna@alfa.example", 0, "5 messages per day")
	c.at = c.at.Add(time.Second)
	expect(t, l, "Anna@Alfa.Example", 3, "3 messages per hour")
	c.at = c.at.Add(-time.Second) // a clock that is put back begins no day again
	expect(t, l, "anna@alfa.example", 0, "3 messages per hour")
	expect(t, l, "carla@alfa.example", 3, "3 messages per hour")
}

// A clock that jumps ahead and is put right costs the counts of the day, and no
// more: days and hours begin as before.
func TestClockJumps(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	const anna = "anna@alfa.example"
	l := newLimiter(t, `{"messages_per_hour":3,"messages_per_day":5}`, dir, c)
	expect(t, l, anna, 3, "3 messages per hour")
	c.at = noon.Add(30 * 24 * time.Hour)
	expect(t, l, anna, 3, "3 messages per hour")
	for day := range 3 {
		c.at = noon.Add(time.Duration(24*day+1) * time.Hour)
		expect(t, l, anna, 3, "3 messages per hour")
		c.at = c.at.Add(time.Hour)
		expect(t, l, anna, 2, "5 messages per day")
		if n := lines(t, dir); n != 5 {
			t.Errorf("day %d: %d lines of a day with 5 messages", day, n)
		}
	}
	// Within a day it is the hour that matters.
	const bruno = "bruno@alfa.example"
	c.at = c.at.Add(5 * time.Hour)
	expect(t, l, bruno, 3, "3 messages per hour")
	c.at = c.at.Add(-5 * time.Hour)
	expect(t, l, bruno, 2, "5 messages per day")
}

func TestRecipients(t *testing.T) {
	l := newLimiter(t, `{"recipients_per_day":10}`, "", &clock{noon})
	for _, m := range []struct {
		n    int
		want bool
	}{{11, false}, {6, true}, {5, false}, {4, true}, {1, false}} {
		if why := send(t, l, "anna@alfa.example", m.n); (why == "") != m.want || why != "" && !strings.Contains(why, "10 recipients per day") {
			t.Errorf("%d recipients: %q", m.n, why)
		}
	}
}

func TestWhoHasOtherLimits(t *testing.T) {
	c := &clock{noon}
	l := newLimiter(t, `{"messages_per_day":1,"exempt":["Capo@alfa.example","libera.example"],
		"senders":{"ufficio@alfa.example":{"messages_per_day":3},"Gamma.example":{"messages_per_day":2},"poco@gamma.example":{"messages_per_hour":0},"tutto@alfa.example":{"messages_per_day":0}}}`, "", c)
	expect(t, l, "capo@Alfa.example", 5, "")
	expect(t, l, "chi@libera.example", 5, "")
	expect(t, l, "tutto@alfa.example", 5, "")
	expect(t, l, "ufficio@alfa.example", 3, "3 messages")
	expect(t, l, "uno@gamma.example", 2, "2 messages")
	expect(t, l, "due@gamma.example", 2, "2 messages")
	expect(t, l, "poco@gamma.example", 1, "1 messages per day")
	expect(t, l, "altro@alfa.example", 1, "1 messages per day")
	expect(t, l, "", 5, "")
}

// Who logged in is charged, whoever he says that he is: nobody uses up what another
// may send. Only a login that is no address goes by the sender.
func TestLogin(t *testing.T) {
	const anna, bruno = "anna@alfa.example", "bruno@alfa.example"
	l := newLimiter(t, `{"messages_per_day":2,"exempt":["capo@alfa.example"]}`, "", &clock{noon})
	says := func(login, sender string) points.Says {
		m := sdk.NewMessage(points.Submission, []byte("\r\n"))
		m.Login, m.Sender = login, pec.Address(sender)
		f, err := l.check(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		return f.Says
	}
	for i, c := range []struct {
		login, sender string
		want          points.Says
	}{
		{bruno, anna, points.Clean}, {bruno, "capo@alfa.example", points.Clean}, {bruno, anna, points.Refused}, {bruno, bruno, points.Refused},
		{"", anna, points.Clean}, {"", anna, points.Clean},
		{anna, anna, points.Clean}, {anna, anna, points.Clean}, {anna, anna, points.Refused},
		{"carla", "carla@alfa.example", points.Clean}, {"carla", "carla@alfa.example", points.Clean}, {"carla", "carla@alfa.example", points.Refused},
		{"dario", "", points.Clean}, {"dario", "", points.Clean}, {"dario", "", points.Refused},
	} {
		if got := says(c.login, c.sender); got != c.want {
			t.Errorf("%d: %q as %q: %v, want %v", i, c.login, c.sender, got, c.want)
		}
	}
}

// That an entry names another address than the login is told once for each login, and
// without it.
func TestEntryOfAnother(t *testing.T) {
	var log strings.Builder
	l := newLimiter(t, `{"exempt":["capo@alfa.example","libera.example"],"senders":{"Ufficio@alfa.example":{"messages_per_day":2}}}`, "", &clock{noon})
	l.log = slog.New(slog.NewTextHandler(&log, nil))
	for i, c := range []struct{ login, sender, want string }{
		{"anna@alfa.example", "bruno@alfa.example", ""},
		{"capo@alfa.example", "ufficio@alfa.example", ""},
		{"capo@alfa.example", "capo@alfa.example", ""},
		{"ufficio", "ufficio@alfa.example", ""},
		{"", "capo@alfa.example", ""},
		{"anna@alfa.example", "", ""},
		{"anna@alfa.example", "ufficio@Alfa.example", "entry=Ufficio@alfa.example"},
		{"Anna@alfa.example", "capo@alfa.example", ""},
		{"bruno@alfa.example", "chi@libera.example", "entry=libera.example"},
	} {
		log.Reset()
		m := sdk.NewMessage(points.Submission, []byte("\r\n"))
		m.Login, m.Sender = c.login, pec.Address(c.sender)
		if _, err := l.check(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if got := log.String(); !strings.Contains(got, c.want) || c.want == "" && got != "" || strings.Contains(got, "anna") || strings.Contains(got, "bruno") {
			t.Errorf("%d: %+v: %q", i, c, got)
		}
	}
}

// A message that is offered again counts once, but not without end.
func TestRetry(t *testing.T) {
	l := newLimiter(t, `{"messages_per_day":2}`, "", &clock{noon})
	const a = "anna@alfa.example"
	for i := range 1 + maxRepeats {
		if why := offer(t, l, a, 2, "<same@alfa.example>"); why != "" {
			t.Fatalf("offered for the %d. time: %s", i+1, why)
		}
	}
	if why := offer(t, l, a, 3, "<same@alfa.example>"); why != "" { // other recipients: another message
		t.Error(why)
	}
	if markOf(sdk.NewMessage("", []byte("Message-ID: <a>\r\n\r\nx"))) == markOf(sdk.NewMessage("", []byte("Message-ID: <a>\r\n\r\nxx"))) {
		t.Error("a message of another size is taken for the same")
	}
	for _, id := range []string{"<same@alfa.example>", "", ""} {
		if why := offer(t, l, a, 2, id); why == "" {
			t.Errorf("%q is let pass", id)
		}
	}
}

func TestRestart(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	const table = `{"messages_per_hour":3,"messages_per_day":5}`
	l := newLimiter(t, table, dir, c)
	strange := "a\"\n\xff b@alfa.example"
	expect(t, l, "anna@alfa.example", 3, "per hour")
	expect(t, l, strange, 2, "")
	offer(t, l, "bruno@alfa.example", 1, "<same@alfa.example>")
	// It is not closed: a killed program closes nothing.
	l = newLimiter(t, table, dir, c)
	expect(t, l, "anna@alfa.example", 0, "per hour")
	expect(t, l, strange, 0, "per hour")
	offer(t, l, "bruno@alfa.example", 1, "<same@alfa.example>")
	expect(t, l, "bruno@alfa.example", 2, "per hour")
	c.at = noon.Add(time.Hour)
	l = newLimiter(t, table, dir, c)
	expect(t, l, "anna@alfa.example", 2, "per day")
	// The day ends while it runs, and then while it does not.
	c.at = noon.Add(24 * time.Hour)
	expect(t, l, "anna@alfa.example", 3, "per hour")
	l = newLimiter(t, table, dir, c)
	expect(t, l, "anna@alfa.example", 0, "per hour")
	if n := lines(t, dir); n != 3 {
		t.Errorf("%d lines of a day with 3 messages", n)
	}
	c.at = noon.Add(48 * time.Hour)
	l = newLimiter(t, table, dir, c)
	if n := lines(t, dir); n != 0 {
		t.Errorf("%d lines of a new day", n)
	}
	expect(t, l, "anna@alfa.example", 3, "per hour")
	if err := l.close(); err != nil {
		t.Error(err)
	}
}

func lines(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "\n")
}

// What a crash or a hand left in the file costs that line and no other.
func TestBrokenJournal(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	path := filepath.Join(dir, journalName)
	line := entry{at: noon, sender: "anna@alfa.example", recipients: 1, mark: 0}.String()
	for name, content := range map[string]string{
		"torn":    line + line + line[:len(line)-3],
		"cut":     line + line + strings.TrimSuffix(line, "\n"),
		"garbage": line + "\x00\x00\x00\n" + strings.Repeat("x", 3*maxLine) + "\n" + line + "1 2 3\n-1 1 0 \"a\"\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		l := newLimiter(t, `{"messages_per_hour":4}`, dir, c)
		if n := lines(t, dir); n != 2 {
			t.Errorf("%s: %d lines are kept", name, n)
		}
		expect(t, l, "anna@alfa.example", 2, "4 messages per hour")
		if n := lines(t, dir); n != 4 {
			t.Errorf("%s: %d lines in the end", name, n)
		}
	}
}

// A file that cannot be written is no reason to stop mail; the limits hold.
func TestUnwritable(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	l := newLimiter(t, `{"messages_per_hour":2}`, dir, c)
	whole := l.journal.file
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	l.journal.file = full
	if why := send(t, l, "anna@alfa.example", 1); why != "" {
		t.Error(why)
	}
	l.journal.file = whole
	if _, err := whole.WriteString(`1795345200 1 0 "an`); err != nil { // what a full disk takes of a line
		t.Fatal(err)
	}
	expect(t, l, "anna@alfa.example", 1, "2 messages per hour")
	if n := len(newLimiter(t, `{}`, dir, c).book.senders); n != 1 {
		t.Errorf("after a failure %d senders are in the file", n)
	}
}

// A disk that is full when the file is written anew leaves the old one whole.
func TestFullDisk(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	expect(t, newLimiter(t, `{"messages_per_hour":3}`, dir, c), "anna@alfa.example", 3, "per hour")
	path := filepath.Join(dir, journalName)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", path+".new"); err != nil {
		t.Fatal(err)
	}
	if _, err := openJournal(dir, newBook(time.UTC, noon), slog.Default()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	if fi, err := os.Lstat(path); err != nil || !fi.Mode().IsRegular() {
		t.Fatalf("another file is in its place: %v, %v", fi, err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("%q, %v, want %q", after, err, before)
	}
	expect(t, newLimiter(t, `{"messages_per_hour":3}`, dir, c), "anna@alfa.example", 0, "per hour")
}

func TestConcurrent(t *testing.T) {
	l := newLimiter(t, `{"messages_per_hour":20}`, t.TempDir(), &clock{noon})
	var all sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for i := range 50 {
		all.Add(1)
		go func() {
			defer all.Done()
			if offer(t, l, "anna@alfa.example", 1, fmt.Sprint("<c", i, ">")) == "" {
				mu.Lock()
				passed++
				mu.Unlock()
			}
		}()
	}
	all.Wait()
	if passed != 20 {
		t.Errorf("%d passed", passed)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(protocol.EnvState, dir)
	open := func(table string, dry bool) (sdk.Service, error) {
		c, err := sdk.NewConfig(table, dry)
		if err != nil {
			t.Fatal(err)
		}
		return plugin.Open(t.Context(), c)
	}
	if _, err := open(`{}`, true); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("config check wrote: %v %v", left, err)
	}
	for range 2 {
		s, err := open(`{"messages_per_day":1}`, false)
		if err != nil {
			t.Fatal(err)
		}
		c := s.(*sdk.Checker)
		m := sdk.NewMessage(points.Submission, []byte("Message-ID: <a>\r\n\r\n"))
		m.Login, m.Sender = "anna@alfa.example", "anna@alfa.example"
		if f, err := c.Check(t.Context(), m); err != nil || f.Says != points.Clean {
			t.Errorf("%v %v", f, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Setenv(protocol.EnvState, filepath.Join(dir, "nothing"))
	if _, err := open(`{}`, false); err == nil {
		t.Error("a state directory that is not there is let pass")
	}
}

func TestSettings(t *testing.T) {
	sdktest.Settings(t, plugin, true, map[string]string{
		`{}`:                                                "",
		`{"messages_per_hour":-1}`:                          "messages_per_hour",
		`{"messages_per_day":1.5}`:                          "messages_per_day",
		`{"recipients_per_day":-1}`:                         "recipients_per_day",
		`{"exempt":["anna"]}`:                               "exempt",
		`{"exempt":["@alfa.example"]}`:                      "exempt",
		`{"senders":{"anna":{}}}`:                           "senders",
		`{"senders":{"a@b.example":{"hour":1}}}`:            "senders",
		`{"senders":{"b.example":{"messages_per_day":-1}}}`: "senders",
		`{"timezone":"Mars"}`:                               "timezone",
		`{"timezone":""}`:                                   "timezone",
		`{"limit":1}`:                                       "limit",
	})
}

// The defaults that people read are those that count, and fit the protocol.
func TestKeysSayTheDefaults(t *testing.T) {
	sdktest.Defaults(t, plugin, new(settings), defaults())
}

// FuzzParseEntry: what is read is what was written, octet for octet.
func FuzzParseEntry(f *testing.F) {
	f.Add(entry{at: noon, sender: "anna@alfa.example", recipients: 3, mark: 0xabc}.String())
	f.Add("1 1 0 \"\\xff\"\n")
	f.Add("01 +1 0 'a'\n")
	f.Fuzz(func(t *testing.T, line string) {
		if e, ok := parseEntry(line); ok && (e.String() != line || e.recipients < 0) {
			t.Errorf("%q is read as %q", line, e)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	s := defaults()
	s.MessagesPerHour, s.MessagesPerDay, s.RecipientsPerDay = 0, 0, 0
	l := &limiter{settings: s, book: newBook(time.UTC, noon), now: time.Now, log: slog.Default()}
	var err error
	if l.journal, err = openJournal(b.TempDir(), l.book, l.log); err != nil {
		b.Fatal(err)
	}
	m := sdk.NewMessage(points.Submission, []byte("Message-ID: <a>\r\n\r\n"+strings.Repeat("x", 1<<20)))
	m.Login, m.Sender = "anna@alfa.example", "anna@alfa.example"
	b.ReportAllocs()
	for b.Loop() {
		if f, err := l.check(b.Context(), m); err != nil || f.Says != points.Clean {
			b.Fatal(f, err)
		}
	}
}
