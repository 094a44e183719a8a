package seal_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/seal"
)

func (s *scene) watch(change func(*seal.WatchOptions), witnesses ...seal.Witness) *seal.Watch {
	s.t.Helper()
	o := seal.WatchOptions{Dir: s.dir, Zone: rome, Register: s.register, Witnesses: witnesses, Now: s.clock}
	if change != nil {
		change(&o)
	}
	w, err := seal.NewWatch(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return w
}

func (s *scene) anchors() ([]seal.Anchor, []*seal.Problem) {
	s.t.Helper()
	anchors, problems, err := s.verifier.Anchors(s.t.Context(), os.DirFS(s.dir))
	if err != nil {
		s.t.Fatal(err)
	}
	return anchors, problems
}

// TestAnchors: what seals and witnesses vouch for, and what does not count.
func TestAnchors(t *testing.T) {
	s := newScene(t)
	first := s.register.event(t, "2026-05-04 09:00:00")
	s.set("2026-05-04 09:05:00")
	w := s.watch(nil, seal.NewStampWitness("https://tsa.example", s.tsa))
	for range 2 { // the second time there is nothing new
		if err := w.Attest(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	second := s.register.event(t, "2026-05-04 10:00:00")
	s.seal("2026-05-05 09:00:00", "2026-05-04")
	anchors, problems := s.anchors()
	want := []seal.Anchor{
		{Anchor: logstore.Anchor{Seq: 2, Chain: second.Chain}, At: romeTime("2026-05-05 09:00:00").UTC(), By: "seal of 2026-05-04", Proved: true},
		{Anchor: logstore.Anchor{Seq: 1, Chain: first.Chain}, At: romeTime("2026-05-04 09:05:00").UTC(), By: "timestamp https://tsa.example", Proved: true},
	}
	if len(anchors) != 2 || anchors[0] != want[0] || anchors[1] != want[1] || len(problems) > 0 {
		t.Errorf("%+v, %v, want %+v", anchors, problems, want)
	}
	witness := filepath.Join(s.dir, "witness", "2026-05-04.jsonl")
	for name, change := range map[string]func([]byte) []byte{
		"chain": func(b []byte) []byte {
			return []byte(strings.Replace(string(b), first.Chain.String(), second.Chain.String(), 1))
		},
		"number":  func(b []byte) []byte { return []byte(strings.Replace(string(b), `"seq":1`, `"seq":2`, 1)) },
		"nothing": func(b []byte) []byte { return []byte(strings.Replace(string(b), `"seq":1`, `"seq":0`, 1)) },
		"kind": func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"kind":"timestamp"`, `"kind":"oracle"`, 1))
		},
		"no proof": func(b []byte) []byte { return []byte(strings.Replace(string(b), `"proof":"MII`, `"proof":"MIJ`, 1)) },
		"not JSON": func(b []byte) []byte { return []byte("garbage}\n") },
	} {
		altered(t, witness, change, func() {
			if anchors, problems := s.anchors(); len(anchors) != 1 || len(problems) != 1 || problems[0].Line != 1 {
				t.Errorf("%s: %+v, %v", name, anchors, problems)
			}
		})
	}
	altered(t, filepath.Join(s.dir, "2026-05-04", "2026-05-04.json.p7m"), lastByte, func() {
		if anchors, problems := s.anchors(); len(anchors) != 1 || len(problems) != 1 {
			t.Errorf("seal: %+v, %v", anchors, problems)
		}
	})
}

// TestTornWitness: what a crash cut off harms neither what is before nor what
// comes after.
func TestTornWitness(t *testing.T) {
	s := newScene(t)
	s.set("2026-05-04 09:05:00")
	w := s.watch(nil, seal.NewStampWitness("tsa", s.tsa))
	file := filepath.Join(s.dir, "witness", "2026-05-04.jsonl")
	for i := range 3 {
		s.register.event(t, "2026-05-04 09:00:00")
		if err := w.Attest(t.Context()); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, data[:len(data)-100], 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if anchors, problems := s.anchors(); len(anchors) != 2 || anchors[0].Seq != 1 || anchors[1].Seq != 3 || len(problems) > 0 {
		t.Errorf("%+v, %v", anchors, problems)
	}
}

// TestHTTPWitness: it is told by POST; what it answers is kept.
func TestHTTPWitness(t *testing.T) {
	s := newScene(t)
	link := s.register.event(t, "2026-05-04 09:00:00")
	s.set("2026-05-04 09:05:00")
	status := http.StatusServiceUnavailable
	var told map[string]any
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&told); err != nil || r.Method != http.MethodPost {
			t.Errorf("%s, %v", r.Method, err)
		}
		w.WriteHeader(status)
		io.WriteString(w, "ricevuto")
	}))
	t.Cleanup(server.Close)
	witness, err := seal.NewHTTPWitness(server.URL+"/pec?k=chiave", "Alfa", server.Client())
	if err != nil {
		t.Fatal(err)
	}
	w := s.watch(nil, witness, seal.NewStampWitness("tsa", s.tsa))
	if err := w.Attest(t.Context()); err == nil || strings.Contains(err.Error(), "chiave") {
		t.Error(err)
	}
	if st := w.Status(); st[0].Err == nil || st[1].Err != nil || st[1].Head.Seq != 1 {
		t.Errorf("one of two failed: %+v", st)
	}
	status = http.StatusCreated
	if err := w.Attest(t.Context()); err != nil {
		t.Error(err)
	}
	head := seal.HeadOf(link)
	if told["provider"] != "Alfa" || told["seq"] != 1.0 || told["chain"] != link.Chain.String() || told["head"] != head.Field() {
		t.Errorf("told %v", told)
	}
	anchors, problems := s.anchors()
	if len(anchors) != 2 || len(problems) > 0 || !anchors[0].Proved || anchors[1].Proved || anchors[1].By != "http "+server.URL+"/pec" {
		t.Errorf("%+v, %v", anchors, problems)
	}
	for _, bad := range []string{"ftp://x.example", "https://", "https://a:b@x.example", "%"} {
		if _, err := seal.NewHTTPWitness(bad, "Alfa", http.DefaultClient); err == nil {
			t.Error(bad)
		}
	}
}

// TestSyslogWitness: RFC 5424 over each of the three ways.
func TestSyslogWitness(t *testing.T) {
	s := newScene(t)
	link := s.register.event(t, "2026-05-04 09:00:00")
	s.set("2026-05-04 09:05:00")
	want := "<109>1 2026-05-04T07:05:00.000Z pec.alfa.example pecd - witness - register of Alfa PEC: seq=1; chain=" + link.Chain.String()
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS()
	certificate := web.TLS.Certificates[0]
	roots := web.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	web.Close()
	for _, network := range []string{"udp", "tcp", "tls"} {
		got := make(chan string, 1)
		address := receive(t, network, certificate, got)
		o := seal.Syslog{Network: network, Address: address, Hostname: "pec.alfa.example", Provider: "Alfa PEC", Now: s.clock,
			TLS: &tls.Config{RootCAs: roots, ServerName: "example.com"}}
		witness, err := seal.NewSyslogWitness(o)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := witness.Attest(t.Context(), seal.HeadOf(link))
		if err != nil || string(proof.Data) != want || proof.Kind != seal.KindSyslog {
			t.Errorf("%s: %q, %v", network, proof.Data, err)
			continue
		}
		frame := want
		if network != "udp" {
			frame = strconv.Itoa(len(want)) + " " + want
		}
		if m := <-got; m != frame {
			t.Errorf("%s: received %q", network, m)
		}
	}
	for _, bad := range []seal.Syslog{{Network: "unix", Address: "x:1"}, {Network: "tcp", Address: "x"}, {Network: "tls", Address: "x:1"}} {
		bad.Now = s.clock
		if _, err := seal.NewSyslogWitness(bad); err == nil {
			t.Errorf("%+v", bad)
		}
	}
}

// receive listens for one message.
func receive(t *testing.T, network string, certificate tls.Certificate, got chan<- string) (address string) {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 2000)
			n, _, _ := c.ReadFrom(b)
			got <- string(b[:n])
		}()
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if network == "tls" {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}})
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(bufio.NewReader(c))
		got <- string(b)
	}()
	return l.Addr().String()
}

// A mute witness never answers.
type mute struct{ asked chan struct{} }

func (m mute) Name() string { return "mute" }

func (m mute) Attest(ctx context.Context, _ seal.Head) (seal.Proof, error) {
	close(m.asked)
	<-ctx.Done()
	return seal.Proof{}, ctx.Err()
}

// TestPatience: one that does not answer is given up and hinders no other.
func TestPatience(t *testing.T) {
	s := newScene(t)
	s.register.event(t, "2026-05-04 09:00:00")
	s.set("2026-05-04 09:05:00")
	m := mute{make(chan struct{})}
	w := s.watch(func(o *seal.WatchOptions) { o.Patience = 100 * time.Millisecond }, m, seal.NewStampWitness("tsa", s.tsa))
	if err := w.Attest(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	<-m.asked
	if anchors, _ := s.anchors(); len(anchors) != 1 {
		t.Errorf("%+v", anchors)
	}
}

// TestWatchRun: the head goes out at each interval, if it has moved.
func TestWatchRun(t *testing.T) {
	s := newScene(t)
	s.set("2026-05-04 23:00:00")
	ctx, cancel := context.WithCancel(t.Context())
	waits := 0
	w := s.watch(func(o *seal.WatchOptions) {
		o.Interval = 20 * time.Minute
		o.Timer = func(d time.Duration) <-chan time.Time {
			s.setTime(s.clock().Add(d))
			switch waits++; waits {
			case 1, 3, 4:
				s.register.add(t, s.clock(), entry("x@alfa.example"))
			case 6:
				cancel()
			}
			c := make(chan time.Time, 1)
			c <- s.clock()
			return c
		}
	}, seal.NewStampWitness("tsa", s.tsa))
	w.Run(ctx)
	anchors, _ := s.anchors()
	var at []string
	for _, a := range anchors {
		at = append(at, a.At.In(rome).Format("02 15:04"))
	}
	if got := strings.Join(at, ", "); got != "04 23:20, 05 00:00, 05 00:20" {
		t.Errorf("heard at %s", got)
	}
	if got := list(t, filepath.Join(s.dir, "witness")); len(got) != 2 {
		t.Errorf("files: %v", got)
	}
}

// TestReadHeads: heads are found again in what witnesses and recipients have.
func TestReadHeads(t *testing.T) {
	h := seal.Head{Seq: 1234, Chain: logstore.Digest{0xab, 2, 3}}
	text := "May  4 09:05:00 host pecd: register of Alfa: " + h.Field() + "\n" +
		"X-Registro: seq=1234;\r\n\tchain=" + h.Chain.String() + "\r\n" +
		`{"seq":1234,"head":"` + h.Field() + `"}` + "\n" +
		"seq=01; chain=" + h.Chain.String() + "\nseq=5 chain=" + h.Chain.String() + "\nseq=5; chain=" + strings.ToUpper(h.Chain.String()) +
		"\nseq=5; chain=12\nseq=0; chain=" + h.Chain.String()
	n := 0
	err := seal.ReadHeads(strings.NewReader(text), func(got seal.Head) error {
		if n++; got != h {
			t.Errorf("%+v", got)
		}
		return nil
	})
	if n != 3 || err != nil {
		t.Errorf("%d heads, %v", n, err)
	}
	enough := errors.New("enough")
	if err := seal.ReadHeads(strings.NewReader(text), func(seal.Head) error { return enough }); !errors.Is(err, enough) {
		t.Error(err)
	}
	if err := seal.ReadHeads(strings.NewReader(strings.Repeat("x", 2<<20)), nil); err == nil {
		t.Error("a word of 2 MiB")
	}
}
