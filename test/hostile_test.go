package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pecd/lmtp"
	"pecd/milter/miltertest"
	"pecd/milter/socket"
	"pecd/packaging/demo/stage"
	"pecd/pec"
)

// The most connections that a door serves at once: docs/security.md.
const (
	milterPlaces = 500
	lmtpPlaces   = 200
)

// crowdLimit is what pecd may hold, in octets, with all places of all doors taken.
// The buffers of so many connections are some 30 MB, and its collector lets the heap
// grow to five times what is in use (cmd/pecd/serve.go).
const crowdLimit = 200_000_000

// checkCrowdPeaks holds both daemons against crowdLimit.
func checkCrowdPeaks(t *testing.T, s *stage.Stage, when string) {
	t.Helper()
	for _, p := range s.Providers() {
		peak := peakMemory(t, p)
		t.Logf("pecd of %s %s: at most %.1f MB resident", p.Domain, when, float64(peak)/1e6)
		if peak >= crowdLimit {
			t.Errorf("pecd of %s held %d octets %s, the limit is %d", p.Domain, peak, when, crowdLimit)
		}
	}
}

// A door is a listener of a provider's pecd, by the name that its figures have.
type door struct {
	p      *stage.Provider
	name   string
	addr   string
	places int
}

func accessOf(p *stage.Provider) door {
	return door{p, "milter", p.Pecd.Config.Access.Milter, milterPlaces}
}
func gateOf(p *stage.Provider) door { return door{p, "gate", p.Pecd.Config.Gate.Milter, milterPlaces} }
func arrivalsOf(p *stage.Provider) door {
	return door{p, "lmtp", p.Pecd.Config.Reception.LMTP, lmtpPlaces}
}

// seen returns how many connections the door has served and refused so far.
func (d door) seen(tb testing.TB) (served, refused int) {
	tb.Helper()
	m := metrics(tb, within(tb), d.p)
	figure := func(event string) int {
		return int(m[fmt.Sprintf(`pecd_door_events_total{door=%q,event=%q}`, d.name, event)])
	}
	return figure("connection"), figure("busy")
}

// A crowd is strangers at a door or a port who stay for as long as they are let.
type crowd struct {
	conns []net.Conn
	sent  context.CancelFunc // away
	gone  atomic.Int64       // who were shown out
	ended sync.WaitGroup
}

// gather has n strangers come to addr. Each does what act says, which may be
// nothing, and then waits for the other side to end the connection.
func gather(tb testing.TB, addr string, n int, act func(ctx context.Context, i int, c net.Conn)) *crowd {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	x := &crowd{sent: cancel}
	tb.Cleanup(func() { x.leave() })
	for i := range n {
		c, err := socket.Dial(within(tb), addr)
		if err != nil {
			tb.Fatalf("stranger %d: %v", i, err)
		}
		x.conns = append(x.conns, c)
		x.ended.Add(2)
		go func() {
			defer x.ended.Done()
			if act != nil {
				act(ctx, i, c)
			}
		}()
		go func() {
			defer x.ended.Done()
			_, _ = io.Copy(io.Discard, c) // until the other side ends it, or we do
			if ctx.Err() == nil {
				x.gone.Add(1)
			}
		}()
	}
	return x
}

// leave ends all connections. Twice does no harm.
func (x *crowd) leave() {
	x.sent()
	for _, c := range x.conns {
		_ = c.Close()
	}
	x.ended.Wait()
}

func (x *crowd) here() int { return len(x.conns) - int(x.gone.Load()) }

// besiege fills a door with more strangers than it has places for, and returns when
// the door has dealt with all of them.
func besiege(t *testing.T, d door, n int) *crowd {
	t.Helper()
	served, refused := d.seen(t)
	x := gather(t, d.addr, n, nil)
	eventually(t, "the door has seen all", func() string {
		s, r := d.seen(t)
		if s-served+r-refused < n || int(x.gone.Load()) < n-d.places {
			return fmt.Sprintf("%d served, %d refused of %d; %d know", s-served, r-refused, n, x.gone.Load())
		}
		return ""
	})
	t.Logf("%s of %s: %d of %d strangers are inside", d.name, d.p.Label, x.here(), n)
	// Some places are taken by the MTA.
	if in := x.here(); in > d.places || in < d.places-10 {
		t.Errorf("the %s door of %s serves %d strangers, and has %d places", d.name, d.p.Label, in, d.places)
	}
	return x
}

// halfway are beginnings of good sessions that do not go on: idle before the first
// octet, in the middle of a packet, in the middle of a message, and slow to the end
// of time.
//
// pause is that between two octets of a slow one.
func halfway(session []byte, pause time.Duration) func(ctx context.Context, i int, c net.Conn) {
	return func(ctx context.Context, i int, c net.Conn) {
		switch i % 4 {
		case 1:
			_, _ = c.Write(session[:min(len(session), 40)])
		case 2:
			_, _ = c.Write(session)
		case 3:
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for j := range session {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				if _, err := c.Write(session[j : j+1]); err != nil {
					return
				}
			}
		}
	}
}

var (
	milterSession = opened(packet('C', append(miltertest.Strings("slow.example"), 'U')), packet('M', miltertest.Strings("<mario@ordinary.example>")),
		packet('R', miltertest.Strings("<bob@beta.example>")), packet('L', miltertest.Strings("From", " mario@ordinary.example")),
		packet('N', nil), packet('B', []byte("x\r\n")), sized(1000, "Bhalf"))
	lmtpSession = []byte("LHLO slow.example\r\nMAIL FROM:<mario@ordinary.example>\r\nRCPT TO:<bob@beta.example>\r\nDATA\r\nFrom: mario@ordinary.example\r\n\r\nhalf" + strings.Repeat(" and more", 500))
	smtpSession = []byte("EHLO slow.example\r\nMAIL FROM:<mario@ordinary.example>\r\nRCPT TO:<bob@beta.example>\r\nDATA\r\nFrom: mario@ordinary.example\r\n\r\nhalf" + strings.Repeat(" and more", 500))
)

// slowly is the pause of the slow ones in a test.
const slowly = 50 * time.Millisecond

// descriptors counts the open files of a provider's pecd.
func descriptors(tb testing.TB, p *stage.Provider) int {
	tb.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pecd.PID()))
	if err != nil {
		tb.Fatal(err)
	}
	return len(list)
}

// TestHostileCrowd has thousands of strangers come to three doors at once and say
// nothing. Each door lets in as many as it has places; who was there before is
// served as ever, who comes now hears "later", and when they have gone, or there is
// but one place left, all mail that waited is delivered.
func TestHostileCrowd(t *testing.T) {
	const strangers = 3000
	s := newStage(t)
	submission, err := s.Login(within(t), "alice@alfa.example")
	if err != nil {
		t.Fatal(err)
	}
	defer submission.Close()
	port25, err := s.Dial(within(t), s.Beta.SMTP)
	if err != nil {
		t.Fatal(err)
	}
	defer port25.Close()
	before := map[*stage.Provider]int{}
	for _, p := range s.Providers() {
		resetPeak(t, p)
		before[p] = descriptors(t, p)
	}

	var crowds []*crowd
	for _, d := range []door{accessOf(s.Alfa), gateOf(s.Beta), arrivalsOf(s.Beta)} {
		crowds = append(crowds, besiege(t, d, strangers))
	}
	to := []string{"anna@alfa.example", "bob@beta.example", "mario@ordinary.example"}
	if _, err := submission.Send("alice@alfa.example", to, []byte(compose("cr within", "", to...))); err != nil {
		t.Errorf("who was there before: %v", err)
	}
	await(t, s, "anna@alfa.example", pec.KindTransport, "cr within")
	await(t, s, "mario@ordinary.example", pec.KindTransport, "cr within")
	ordinary := []byte("From: mario@ordinary.example\r\nTo: bruna@beta.example\r\nSubject: cr ordinary\r\n\r\nCiao.\r\n")
	if _, err := port25.Send("mario@ordinary.example", []string{"bruna@beta.example"}, ordinary); err != nil {
		t.Errorf("who was at port 25 before: %v", err)
	}
	var reply *textproto.Error
	if _, err := s.Submit(within(t), "alice@alfa.example", "alice@alfa.example", to, []byte(compose("cr refused", "", to...))); !errors.As(err, &reply) || reply.Code/100 != 4 {
		t.Errorf("who comes to submission now: %v, want 4xx", err)
	}
	if _, err := s.Deliver(within(t), s.Beta.SMTP, "mario@ordinary.example", []string{"bruna@beta.example"}, ordinary); !errors.As(err, &reply) || reply.Code/100 != 4 {
		t.Errorf("who comes to port 25 now: %v, want 4xx", err)
	}
	checkCrowdPeaks(t, s, fmt.Sprintf("with %d strangers at each door", strangers))
	for _, x := range crowds {
		if x.here() == 0 {
			t.Error("the strangers were shown out before the end")
		}
		x.leave()
	}

	// A crowd that leaves a few places, idle, half way and slow, at all doors and at
	// the MTA's own ports.
	for _, p := range s.Providers() {
		eventually(t, "the places are free again", func() string {
			if n := descriptors(t, p); n > before[p]+20 {
				return fmt.Sprintf("%d open files, %d before", n, before[p])
			}
			return ""
		})
		crowds = append(crowds,
			gather(t, p.Pecd.Config.Access.Milter, milterPlaces-60, halfway(milterSession, slowly)),
			gather(t, p.Pecd.Config.Gate.Milter, milterPlaces-100, halfway(milterSession, slowly)),
			gather(t, p.Pecd.Config.Reception.LMTP, lmtpPlaces-20, halfway(lmtpSession, slowly)),
			gather(t, "inet:"+p.SMTP, 40, halfway(smtpSession, slowly)), gather(t, "inet:"+p.Submission, 20, halfway(smtpSession, slowly)))
	}
	send(t, s, compose("cr beside", "", to...), to...)
	eventually(t, "all that waited is delivered", func() string { return flush(t, s) })
	for _, subject := range []string{"cr within", "cr beside"} {
		await(t, s, "bob@beta.example", pec.KindTransport, subject)
		until(t, "both delivery receipts", func() bool { return count(t, s, "alice@alfa.example", pec.KindDelivery, subject) == 2 })
	}
	anomaly(t, s, "bruna@beta.example", "cr ordinary")
	checkCrowdPeaks(t, s, "to the end")
	for _, x := range crowds {
		x.leave()
	}
	settled(t, s)
	if n := count(t, s, "anna@alfa.example", pec.KindTransport, "cr refused"); n != 0 {
		t.Errorf("what was refused came %d times", n)
	}
	for _, p := range s.Providers() {
		if lines := stage.Panics(fileText(t, p.Pecd.Log)); len(lines) > 0 {
			t.Errorf("the pecd of %s panicked: %q", p.Label, lines)
		}
		eventually(t, "nothing is left over", func() string {
			if n := descriptors(t, p); n > before[p]+20 {
				return fmt.Sprintf("%d open files, %d before", n, before[p])
			}
			return ""
		})
	}
}

// BenchmarkHostile sends messages through a milter door and an LMTP door while
// strangers are there, and while they are not, in rounds that follow one another,
// so that other load on the machine hits both. A quarter of the strangers is idle, a
// quarter in the middle of a packet or a line, a quarter in the middle of a message,
// a quarter sends an octet a second ("20 octets": each 50 ms); with "garbage=N" there
// are N connections a second to two of the doors beside them that throw nonsense.
//
//	ms        median time of one message, without strangers
//	ratio     median time with strangers to that without
func BenchmarkHostile(b *testing.B) {
	s := newStage(b)
	for _, load := range []struct {
		name    string
		pause   time.Duration // of the slow ones
		garbage int           // connections a second
	}{{"slow", time.Second, 0}, {"20 octets", slowly, 0}, {"garbage=10", time.Second, 10}, {"garbage=50", time.Second, 50}} {
		for _, way := range []struct {
			name string
			open func(*testing.B, *stage.Stage) sender
		}{{"milter", openMilter}, {"lmtp", openLMTP}} {
			b.Run(load.name+"/"+way.name, func(b *testing.B) {
				for b.Loop() {
					reportHostile(b, way.open, func() (leave func()) { return surround(b, s, load.pause, load.garbage) }, s)
				}
				b.ReportMetric(0, "ns/op") // says nothing
			})
		}
	}
}

// A sender sends message i over a session that is open.
type sender func(i int) error

func openMilter(b *testing.B, s *stage.Stage) sender {
	c, err := miltertest.Dial(s.Alfa.Pecd.Config.Access.Milter)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return func(i int) error {
		a, err := c.Send(miltertest.Mail{From: "alice@alfa.example", To: []string{"anna@alfa.example"}, Auth: "alice@alfa.example",
			QueueID: fmt.Sprintf("H%d", i), Bytes: fourKilobytes(i)})
		if err == nil && a.Code != 'd' {
			err = fmt.Errorf("answer %q %q", a.Code, a.Reply)
		}
		return err
	}
}

func openLMTP(b *testing.B, s *stage.Stage) sender {
	store := &lmtp.Store{Dial: func(ctx context.Context) (net.Conn, error) {
		return socket.Dial(ctx, s.Beta.Pecd.Config.Reception.LMTP)
	}}
	b.Cleanup(func() { store.Close() })
	return func(i int) error {
		raw := bytes.Replace(fourKilobytes(i), []byte("alice@alfa.example"), []byte("mario@ordinary.example"), 1)
		status, err := store.Deliver(within(b), "mario@ordinary.example", []string{"bob@beta.example"}, int64(len(raw)), false,
			func(w io.Writer) error { _, err := w.Write(raw); return err })
		if err == nil && !status[0].OK() {
			err = errors.New(status[0].String())
		}
		return err
	}
}

// hostileNumber makes each message one of its own.
var hostileNumber int

// reportHostile runs the rounds and reports.
func reportHostile(b *testing.B, open func(*testing.B, *stage.Stage) sender, surround func() (leave func()), s *stage.Stage) {
	b.Helper()
	const pairs, messages = 11, 150
	send := open(b, s)
	round := func(hostile bool) float64 {
		b.Helper()
		if hostile {
			defer surround()()
		}
		took := make([]float64, messages)
		for i := range took {
			hostileNumber++
			began := time.Now()
			if err := send(hostileNumber); err != nil {
				b.Fatal(err)
			}
			took[i] = time.Since(began).Seconds() * 1000
		}
		calm(b, s)
		if err := s.Empty(within(b), "bob@beta.example"); err != nil { // Dovecot takes longer to deliver into a large one
			b.Fatal(err)
		}
		return median(took)
	}
	round(false) // the servers start what they need
	var without, with, ratio []float64
	for i := range pairs {
		var x, y float64
		if i%2 == 0 {
			x = round(false)
			y = round(true)
		} else {
			y = round(true)
			x = round(false)
		}
		without, with, ratio = append(without, x), append(with, y), append(ratio, y/x)
	}
	b.Logf("ms without %.2f\nms with %.2f", without, with)
	b.ReportMetric(median(without), "ms")
	b.ReportMetric(median(with), "hostile-ms")
	b.ReportMetric(median(with)/median(without), "ratio")
	b.ReportMetric(median(ratio), "ratio-of-pairs")
}

// surround brings strangers to all doors and returns what sends them away.
func surround(b *testing.B, s *stage.Stage, pause time.Duration, garbage int) (leave func()) {
	b.Helper()
	var crowds []*crowd
	ctx, cancel := context.WithCancel(within(b))
	var throwing sync.WaitGroup
	for _, p := range s.Providers() {
		crowds = append(crowds, gather(b, p.Pecd.Config.Access.Milter, 200, halfway(milterSession, pause)),
			gather(b, p.Pecd.Config.Gate.Milter, 200, halfway(milterSession, pause)), gather(b, p.Pecd.Config.Reception.LMTP, 100, halfway(lmtpSession, pause)))
	}
	if garbage > 0 {
		for _, addr := range []string{s.Alfa.Pecd.Config.Access.Milter, s.Beta.Pecd.Config.Reception.LMTP} {
			throwing.Add(1)
			go func() {
				defer throwing.Done()
				throwSteadily(ctx, b, addr, garbage)
			}()
		}
	}
	return func() {
		cancel()
		throwing.Wait()
		for _, x := range crowds {
			x.leave()
		}
	}
}

// throwSteadily throws nonsense at a door so many times a second.
func throwSteadily(ctx context.Context, b *testing.B, addr string, rate int) {
	texts := slices.Collect(maps.Values(nonsense()))
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	var thrown sync.WaitGroup
	defer thrown.Wait()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		thrown.Add(1)
		go func() {
			defer thrown.Done()
			if err := throw(ctx, addr, texts[i%len(texts)]); err != nil && ctx.Err() == nil {
				b.Error(err)
			}
		}()
	}
}

// calm waits until nothing is under way, so that a round pays for no other.
func calm(b *testing.B, s *stage.Stage) {
	b.Helper()
	ctx := within(b)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		busy := 0.0
		for _, p := range s.Providers() {
			m := metrics(b, ctx, p)
			busy += m["pecd_outbox_messages"] + m["pecd_ledger_open"]
		}
		if busy == 0 {
			return
		}
		select {
		case <-ctx.Done():
			b.Fatalf("it does not come to rest: %v", busy)
		case <-tick.C:
		}
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// fourKilobytes is message n as a mail program writes it.
func fourKilobytes(n int) []byte {
	header := fmt.Sprintf("From: Alice <alice@alfa.example>\r\nTo: Bob <bob@beta.example>\r\nDate: Sun, 22 Nov 2026 10:45:36 +0100\r\n"+
		"Subject: =?UTF-8?Q?Offerta_n=C2=B0_%d?=\r\nMessage-ID: <c%d@alfa.example>\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: text/plain; charset=UTF-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n", n, n)
	const line = "Gentile Bob, in allegato l'offerta che aveva chiesto per la fornitura.\r\n"
	return []byte(header + strings.Repeat(line, (4<<10-len(header))/len(line)))
}
