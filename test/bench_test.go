package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"pecd/packaging/demo/stage"
)

// BenchmarkMessages sends messages of 4 KB from alice of Alfa to bob of Beta
// through the same Postfix and Dovecot with pecd and without. With pecd a message
// is a certified exchange: envelope, acceptance, take-charge and delivery receipt
// are in their mailboxes at its end; without, the message alone. Bursts of both
// follow one another, so that other load on the machine hits both. Figures are
// medians of the rounds, and so are ratios (with pecd to without), which are taken
// round by round:
//
//	accepted/s   messages until the last 250, while the servers hand on already
//	done/s       messages until all that follows is in the mailboxes
//	cpu-ms/msg   processor time of both providers' servers, and which
//
// The messages of a session go over one SMTP connection.
func BenchmarkMessages(b *testing.B) {
	with := &lane{stage: newStage(b), boxes: map[string]int{"bob@beta.example": 1, "alice@alfa.example": 2, "ricevute@alfa.example": 1}}
	without := &lane{stage: newStage(b, func(o *stage.Options) { o.WithoutPecd, o.PecdBinary = true, "" }),
		boxes: map[string]int{"bob@beta.example": 1}}
	for _, c := range []struct{ sessions, messages int }{{1, 100}, {10, 20}} {
		b.Run(fmt.Sprintf("sessions=%d", c.sessions), func(b *testing.B) {
			for b.Loop() {
				compare(b, with, without, c.sessions, c.messages)
			}
			b.ReportMetric(0, "ns/op") // says nothing
		})
	}
}

// rounds is odd, for the median.
const rounds = 7

// compare runs the rounds and reports.
func compare(b *testing.B, with, without *lane, sessions, messages int) {
	with.burst(b, sessions, 5) // the servers start what they need
	without.burst(b, sessions, 5)
	var certified, plain []cost
	for i := range rounds {
		if i%2 == 0 {
			certified = append(certified, with.burst(b, sessions, messages))
		}
		plain = append(plain, without.burst(b, sessions, messages))
		if i%2 == 1 {
			certified = append(certified, with.burst(b, sessions, messages))
		}
		b.Logf("round %d: with pecd %v; without %v", i+1, certified[i], plain[i])
	}
	for _, f := range []struct {
		unit  string
		value func(cost) float64
	}{
		{"accepted/s", func(c cost) float64 { return c.accepted }},
		{"done/s", func(c cost) float64 { return c.done }},
		{"cpu-ms/msg", func(c cost) float64 { return c.pecd + c.postfix + c.dovecot }},
	} {
		var x, y, ratio []float64
		for i := range rounds {
			x, y = append(x, f.value(certified[i])), append(y, f.value(plain[i]))
			ratio = append(ratio, x[i]/y[i])
		}
		b.ReportMetric(median(x), f.unit)
		b.ReportMetric(median(y), "plain-"+f.unit)
		b.ReportMetric(median(ratio), "ratio-"+f.unit)
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// A lane is a stage and how many messages one message makes in which mailboxes.
type lane struct {
	stage *stage.Stage
	boxes map[string]int
	sent  int // so that every message is one of its own
}

// A cost is what a burst of messages took: messages per second and milliseconds
// of processor time per message; see BenchmarkMessages.
type cost struct{ accepted, done, pecd, postfix, dovecot float64 }

func (c cost) String() string {
	return fmt.Sprintf("%.1f accepted/s, %.1f done/s, cpu-ms/msg: pecd %.1f, Postfix %.1f, Dovecot %.1f",
		c.accepted, c.done, c.pecd, c.postfix, c.dovecot)
}

// burst sends so many messages in each of so many sessions and waits for what
// follows from them.
func (l *lane) burst(b *testing.B, sessions, messages int) cost {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	open := make([]*stage.Session, sessions)
	for i := range open {
		var err error
		if open[i], err = l.stage.Login(ctx, "alice@alfa.example"); err != nil {
			b.Fatal(err)
		}
	}
	before, start := l.usage(b), time.Now()
	var g errgroup.Group
	for i, c := range open {
		from := l.sent + i*messages
		g.Go(func() error { return sendMany(c, from, messages) })
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	accepted := time.Since(start)
	n := sessions * messages
	for address, each := range l.boxes {
		waitFiles(ctx, b, l.stage, address, n*each)
	}
	done := time.Since(start)
	after := l.usage(b)
	l.sent += n
	l.clear(ctx, b, open)
	used := func(server string) float64 { return (after[server] - before[server]).Seconds() * 1000 / float64(n) }
	return cost{accepted: float64(n) / accepted.Seconds(), done: float64(n) / done.Seconds(),
		pecd: used("pecd"), postfix: used("postfix"), dovecot: used("dovecot")}
}

func sendMany(c *stage.Session, from, n int) error {
	for i := range n {
		if _, err := c.Send("alice@alfa.example", []string{"bob@beta.example"}, fourKilobytes(from+i)); err != nil {
			return err
		}
	}
	return nil
}

// clear ends the sessions and empties the mailboxes, since Dovecot takes longer to
// deliver into a large one.
func (l *lane) clear(ctx context.Context, b *testing.B, open []*stage.Session) {
	b.Helper()
	for _, c := range open {
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
	for address := range l.boxes {
		if err := l.stage.Empty(ctx, address); err != nil {
			b.Fatal(err)
		}
	}
}

// fourKilobytes is message n as a mail program writes it.
func fourKilobytes(n int) []byte {
	header := fmt.Sprintf("From: Alice <alice@alfa.example>\r\nTo: Bob <bob@beta.example>\r\nDate: Sun, 22 Nov 2026 10:45:36 +0100\r\n"+
		"Subject: =?UTF-8?Q?Offerta_n=C2=B0_%d?=\r\nMessage-ID: <c%d@alfa.example>\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: text/plain; charset=UTF-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n", n, n)
	const line = "Gentile Bob, in allegato l'offerta che aveva chiesto per la fornitura.\r\n"
	return []byte(header + strings.Repeat(line, (4<<10-len(header))/len(line)))
}

// usage returns the processor time that the servers of both providers have used so
// far: all processes below their masters, and those that have ended.
func (l *lane) usage(b *testing.B) map[string]time.Duration {
	b.Helper()
	master := map[int]string{}
	for _, p := range l.stage.Providers() {
		if pid := p.Pecd.PID(); pid != 0 {
			master[pid] = "pecd"
		}
		master[pidIn(b, filepath.Join(p.Dir, "postfix", "queue", "pid", "master.pid"))] = "postfix"
		master[pidIn(b, filepath.Join(p.Dir, "dovecot", "run", "master.pid"))] = "dovecot"
	}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		b.Fatal(err)
	}
	used := map[string]time.Duration{}
	for _, f := range files {
		pid, parent, ticks := processStat(b, f)
		for _, m := range []int{pid, parent} { // the masters' children have none of their own
			used[master[m]] += time.Duration(ticks) * (time.Second / 100) // USER_HZ is 100 on every Linux
		}
	}
	return used
}

func pidIn(b *testing.B, file string) int {
	b.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		b.Fatal(err)
	}
	return pid
}

// processStat reads a /proc/PID/stat: the clock ticks that the process and its
// ended children have used. A process that has gone is all zeros: its parent has
// its ticks.
func processStat(b *testing.B, file string) (pid, parent, ticks int) {
	b.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, 0
	}
	i := strings.LastIndexByte(string(text), ')') // behind the name, which may hold anything
	f := strings.Fields(string(text)[i+1:])
	if i < 0 || len(f) < 15 {
		b.Fatalf("%s: %q", file, text)
	}
	numbers := make([]int, 0, 6)
	for _, s := range []string{filepath.Base(filepath.Dir(file)), f[1], f[11], f[12], f[13], f[14]} {
		n, err := strconv.Atoi(s)
		if err != nil {
			b.Fatalf("%s: %q", file, text)
		}
		numbers = append(numbers, n)
	}
	return numbers[0], numbers[1], numbers[2] + numbers[3] + numbers[4] + numbers[5]
}
