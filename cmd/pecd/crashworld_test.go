package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"pecd/cmd/pecd/availability"
	"pecd/cmd/pecd/config"
	"pecd/courier"
	"pecd/lmtp"
	"pecd/logstore"
	"pecd/milter"
	"pecd/pec"
	"pecd/points/act"
	"pecd/points/pointstest"
)

// A crashWorld is one provider's pecd on a real store, with its doors and its
// courier, between an MTA and a mailbox store that the test plays.
type crashWorld struct {
	*pointstest.World
	t        *testing.T
	provider *pointstest.Provider
	fault    *fault
	dir      string
	store    *logstore.SQLite
	doors    *doors
	ahead    time.Duration // of the clock
	started  time.Time

	mailboxAddr, mtaAddr string
	envelope, receipt    []byte // what comes from Beta or Alfa

	mu      sync.Mutex
	mailbox []string // what the mailbox store took
	stored  []string // for whom
	slow    func()   // if set, the mailbox store does this before it answers
	refuses string   // whom the mailbox store refuses for good
	mta     []string // what the MTA took at the loopback listener
}

func newCrashWorld(t *testing.T, shared *pointstest.World, p *pointstest.Provider) *crashWorld {
	t.Helper()
	w := &crashWorld{World: shared, t: t, provider: p, dir: filepath.Join(t.TempDir(), "store"), started: time.Now(),
		fault: &fault{died: make(chan struct{})}}
	w.open()
	return w
}

// again is a world that begins where w ended, with all others around it.
func (w *crashWorld) again(t *testing.T) *crashWorld {
	t.Helper()
	root, err := os.MkdirTemp("", "crash") // short: sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	n := &crashWorld{World: w.World, t: t, provider: w.provider, dir: filepath.Join(root, "store"), started: w.started, ahead: w.ahead,
		receipt: w.receipt, envelope: w.envelope, mailboxAddr: filepath.Join(root, "mailbox"), mtaAddr: filepath.Join(root, "mta")}
	n.fault = &fault{died: make(chan struct{})}
	n.fault.copy = func() {
		copyStore(t, n.dir, filepath.Join(root, "image"), n.fault.step, n.fault.persisted)
	}
	copyStore(t, w.dir, n.dir, "", true)
	n.playMailbox()
	n.playMTA()
	n.open()
	t.Cleanup(n.close)
	return n
}

// now runs, so that what was put off falls due.
func (w *crashWorld) now() time.Time { return pointstest.At.Add(w.ahead + time.Since(w.started)) }

// open starts pecd on w.dir.
func (w *crashWorld) open() {
	w.t.Helper()
	ctx := context.Background()
	// All bodies are files, so that each message has every step.
	s, err := logstore.Open(ctx, logstore.Options{Dir: w.dir, Rand: rand.Reader, InlineLimit: 1,
		Around: func(step logstore.Step, do func() error) error { return w.fault.around(string(step), do) }})
	if err != nil {
		w.t.Fatal(err)
	}
	secret, err := s.Secret(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	direct := true
	cfg := &config.Config{Provider: config.Provider{Domain: w.provider.Record.Domains[0]}, Delivery: config.Delivery{Direct: &direct}}
	cfg.Access.MaxSize, cfg.Access.MaxTotal, cfg.Access.MaxRecipients = 1<<20, 1<<20, 10
	in := &installation{config: cfg, location: pointstest.At.Location(), signer: w.provider.Signer, trust: &trust{verifier: w.Verifier},
		directory: w.Directory, provider: w.provider.Record, issuer: w.provider.Issuer}
	o := &office{installation: in, points: decidersOf(nil), clerk: &act.Clerk{Issuer: in.issuer, Signer: in.signer, Store: s,
		Secret: secret, BriefHash: sha256.New, Now: w.now, Location: in.location, Rand: rand.Reader}}
	watch, err := availability.OpenStopwatch(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	office := new(atomic.Pointer[office])
	office.Store(o)
	w.store = s
	w.doors = &doors{office: office, store: s, metrics: newMetrics(s), log: slog.New(slog.DiscardHandler), now: w.now, watch: watch,
		atStep: func(string) {}, mailbox: &lmtp.Store{MaxIdle: -1, Dial: dialUnix(w.mailboxAddr)}}
}

func dialUnix(addr string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "unix", addr) }
}

func (w *crashWorld) close() {
	w.doors.mailbox.Close()
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
	if err := w.doors.watch.Close(); err != nil {
		w.t.Error(err)
	}
}

// restart ends pecd if it lives, and starts it again on what the disk has. Nothing
// breaks any more.
func (w *crashWorld) restart() {
	w.t.Helper()
	w.close()
	if _, dead := w.fault.happened(); dead {
		w.dir = filepath.Join(filepath.Dir(w.dir), "image")
	}
	w.fault = &fault{died: make(chan struct{})}
	w.open()
}

func (w *crashWorld) clerk() *act.Clerk { return w.doors.office.Load().clerk }

// report is how whoever asked hears heard, or does not: "-".
func (w *crashWorld) report(heard string) string {
	said := "-"
	_ = w.fault.around(stepReport, func() error { said = heard; return nil })
	return said
}

// submit sends a message of alice and returns what her client hears.
func (w *crashWorld) submit(raw string, to ...string) string {
	env := milter.Envelope{Sender: "alice@alfa.example", Auth: "alice@alfa.example", Recipients: to, QueueID: "4QUEUE1"}
	m, err := accessDoor{w.doors}.Begin(context.Background(), env)
	if err != nil {
		return w.report("4xx")
	}
	if _, err := io.WriteString(m, raw); err != nil {
		m.Abort()
		return w.report("4xx")
	}
	switch v := m.End(context.Background(), env); v.Action {
	case milter.Discard:
		return w.report("250")
	case milter.Defer:
		return w.report("4xx")
	default:
		return w.report(v.Reply)
	}
}

// arrive brings a message by LMTP, as the MTA does, and returns what the MTA hears.
func (w *crashWorld) arrive(raw []byte, from, to string) string {
	env := lmtp.Envelope{Sender: from, Recipients: []string{to}}
	m, err := arrivalDoor{w.doors}.Begin(context.Background(), env)
	if err != nil {
		return w.report("4xx")
	}
	if _, err := m.Write(raw); err != nil {
		m.Abort()
		return w.report("4xx")
	}
	s := m.End(context.Background(), env)[0]
	if s.Code/100 == 4 {
		return w.report("4xx")
	}
	return w.report(s.String()[:3])
}

// envelopes is a store whose outbox has nothing but transport envelopes: the way
// of one message is looked at.
type envelopes struct{ logstore.Store }

func (s envelopes) Outgoing(ctx context.Context, now time.Time, limit int, except []int64) ([]logstore.Outgoing, error) {
	list, err := s.Store.Outgoing(ctx, now, 100, except)
	list = slices.DeleteFunc(list, func(m logstore.Outgoing) bool { return m.Kind != pec.KindTransport })
	return list[:min(limit, len(list))], err
}

// send lets the courier work until the store knows that the envelope was taken, or
// the process dies.
func (w *crashWorld) send(direct bool) {
	w.t.Helper()
	taken := make(chan struct{}, 10)
	o := courier.Options{Dial: dialUnix(w.mtaAddr), Hostname: "alfa.example", Connections: 1, Now: w.now,
		Retry: func(int) time.Duration { return time.Millisecond },
		AtStep: func(step string) {
			if step == courier.StepTaken {
				taken <- struct{}{}
			}
		}}
	o.Drain = time.Millisecond
	if direct {
		o.Direct = newDirectWay(w.doors).take
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- courier.New(envelopes{w.store}, o).Run(ctx) }()
	select {
	case <-taken:
	case <-w.fault.died:
	case <-time.After(time.Minute):
		w.t.Error("the courier does not come to an end")
	}
	cancel()
	if err := <-done; err != nil {
		w.t.Error(err)
	}
}

// outbox counts the messages of a kind that wait; all kinds if it is empty.
func (w *crashWorld) outbox(kind pec.Kind) (list []logstore.Outgoing) {
	w.t.Helper()
	all, err := w.store.Outgoing(context.Background(), w.now(), 100, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range all {
		if kind == "" || m.Kind == kind {
			list = append(list, m)
		}
	}
	return list
}

// discardOutbox is an MTA that takes all messages but the transport envelopes.
func (w *crashWorld) discardOutbox() {
	w.t.Helper()
	for _, m := range w.outbox("") {
		if m.Kind == pec.KindTransport {
			continue
		}
		if err := w.store.Taken(context.Background(), m.ID, m.To); err != nil {
			w.t.Fatal(err)
		}
	}
}

// entries counts the register's entries of a type.
func (w *crashWorld) entries(kind logstore.EntryType) (n int) {
	w.t.Helper()
	err := w.store.Search(context.Background(), logstore.Query{}, func(e logstore.Entry) error {
		if e.Type == kind {
			n++
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// took notes what somebody outside has taken.
func (w *crashWorld) took(list *[]string, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*list = append(*list, text)
}

func (w *crashWorld) count(list *[]string) int { return len(w.all(list)) }

// all is what somebody outside has taken until now.
func (w *crashWorld) all(list *[]string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(*list)
}

// playMailbox is the mailbox store.
func (w *crashWorld) playMailbox() {
	s := lmtp.NewServer(lmtp.Options{Backend: mailboxDoor{w}, Log: slog.New(slog.DiscardHandler)})
	l := w.listen(w.mailboxAddr)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			w.t.Error(err)
		}
		<-done
	})
}

func (w *crashWorld) listen(addr string) net.Listener {
	l, err := net.Listen("unix", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

type mailboxDoor struct{ w *crashWorld }

func (d mailboxDoor) Begin(context.Context, lmtp.Envelope) (lmtp.Message, error) {
	return &mailboxMail{w: d.w}, nil
}

type mailboxMail struct {
	w *crashWorld
	bytes.Buffer
}

func (m *mailboxMail) Abort() {}

func (m *mailboxMail) End(_ context.Context, env lmtp.Envelope) []lmtp.Status {
	err := m.w.fault.around(stepStore, func() error {
		m.w.took(&m.w.mailbox, m.String())
		for _, r := range env.Recipients {
			if r != m.w.refuses {
				m.w.took(&m.w.stored, r)
			}
		}
		return nil
	})
	if m.w.slow != nil {
		m.w.slow()
	}
	s := lmtp.Status{Code: 250}
	if err != nil {
		s = lmtp.Status{Code: 451}
	}
	all := slices.Repeat([]lmtp.Status{s}, len(env.Recipients))
	for i, r := range env.Recipients {
		if r == m.w.refuses {
			all[i] = lmtp.Status{Code: 552, Enhanced: [3]int{5, 2, 2}, Text: "full"}
		}
	}
	return all
}

// playMTA is the loopback listener.
func (w *crashWorld) playMTA() {
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &mtaSession{w: w}, nil }))
	s.EnableDSN, s.Domain, s.MaxLineLength = true, "mta.test", 0
	s.ErrorLog = quiet{}
	l := w.listen(w.mtaAddr)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	w.t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

type mtaSession struct{ w *crashWorld }

func (s *mtaSession) Reset()                               {}
func (s *mtaSession) Logout() error                        { return nil }
func (s *mtaSession) Mail(string, *smtp.MailOptions) error { return nil }
func (s *mtaSession) Rcpt(string, *smtp.RcptOptions) error { return nil }

func (s *mtaSession) Data(r io.Reader) error {
	busy := &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "later"}
	if s.w.fault.around(stepOffer, func() error { return nil }) != nil {
		return busy
	}
	var text strings.Builder
	if _, err := io.Copy(&text, r); err != nil {
		return err
	}
	if s.w.fault.around(stepMTA, func() error { s.w.took(&s.w.mta, text.String()); return nil }) != nil {
		return busy
	}
	return nil
}
