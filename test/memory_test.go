package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"pecd/packaging/demo/stage"
	"pecd/pec"
)

const (
	largeMessage = 30_000_000  // octets
	memoryLimit  = 100_000_000 // octets that pecd may hold while four of them are submitted
)

// TestLargeMessagesAreStreamed submits four messages of 30 MB that reach pecd all
// at once, and wants its resident memory below the limit: when they are submitted,
// and on the whole way, on which the same octets go through both providers several
// times more.
func TestLargeMessagesAreStreamed(t *testing.T) {
	s := newStage(t)
	large := func() context.Context { // such messages take longer than others
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		t.Cleanup(cancel)
		return ctx
	}
	to := []string{"anna@alfa.example", "bob@beta.example"}
	for _, p := range s.Providers() {
		resetPeak(t, p)
	}
	submitTogether(large(), t, s, "alice@alfa.example", to, largeMessages(4))
	checkPeaks(t, s, "while four messages of 30 MB were submitted")
	waitFiles(large(), t, s, "alice@alfa.example", 4+8)
	checkPeaks(t, s, "until the last receipt")

	got := kindsOf(t, s, "alice@alfa.example")
	if got[pec.KindAcceptance] != 4 || got[pec.KindDelivery] != 8 || len(got) != 2 {
		t.Errorf("alice has %v, want 4 acceptance and 8 delivery receipts", got)
	}
}

// largeMessages returns n messages, each with an attachment of its own.
func largeMessages(n int) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		random := rand.NewChaCha8([32]byte{byte(i)})
		var b bytes.Buffer
		b.Grow(largeMessage + 1000)
		fmt.Fprintf(&b, "From: alice@alfa.example\r\nTo: anna@alfa.example, bob@beta.example\r\nSubject: grande %d\r\n"+
			"Date: Sun, 22 Nov 2026 10:45:36 +0100\r\nMessage-ID: <grande%d@alfa.example>\r\nMIME-Version: 1.0\r\n"+
			"Content-Type: application/octet-stream; name=dati.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n", i, i)
		line := make([]byte, 57)
		for b.Len() < largeMessage {
			random.Read(line) // never fails
			b.WriteString(base64.StdEncoding.EncodeToString(line) + "\r\n")
		}
		list[i] = b.Bytes()
	}
	return list
}

// submitTogether sends each message over a connection of its own. Postfix shows a
// message to its milter when it has all of it, so every connection waits with the
// final dot until all others are there.
func submitTogether(ctx context.Context, t *testing.T, s *stage.Stage, user string, to []string, raw [][]byte) {
	t.Helper()
	var ready sync.WaitGroup
	ready.Add(len(raw))
	g, ctx := errgroup.WithContext(ctx)
	for _, m := range raw {
		g.Go(func() error {
			c, err := beginData(ctx, s, user, to, m)
			ready.Done() // also after an error, which the others must not wait for
			if err != nil {
				return err
			}
			defer c.Close()
			ready.Wait()
			_, err = c.Command(250, ".")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// beginData sends raw, which ends in CRLF and has no line that begins with a dot,
// up to the final dot.
func beginData(ctx context.Context, s *stage.Stage, user string, to []string, raw []byte) (*stage.Session, error) {
	c, err := s.Login(ctx, user)
	if err != nil {
		return nil, err
	}
	if err := sendData(c, user, to, raw); err != nil {
		_ = c.Client.Close()
		return nil, err
	}
	return c, nil
}

func sendData(c *stage.Session, from string, to []string, raw []byte) error {
	if _, err := c.Command(250, "MAIL FROM:<%s>", from); err != nil {
		return err
	}
	for _, r := range to {
		if _, err := c.Command(250, "RCPT TO:<%s>", r); err != nil {
			return err
		}
	}
	if _, err := c.Command(354, "DATA"); err != nil {
		return err
	}
	if _, err := c.Text.W.Write(raw); err != nil {
		return err
	}
	return c.Text.W.Flush()
}

// resetPeak makes the kernel forget the peak of pecd's resident memory; proc(5),
// clear_refs.
func resetPeak(t *testing.T, p *stage.Provider) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.Pecd.PID()), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// checkPeaks holds both daemons against the limit.
func checkPeaks(t *testing.T, s *stage.Stage, when string) {
	t.Helper()
	for _, p := range s.Providers() {
		peak := peakMemory(t, p)
		t.Logf("pecd of %s %s: at most %.1f MB resident", p.Domain, when, float64(peak)/1e6)
		if peak >= memoryLimit {
			t.Errorf("pecd of %s held %d octets %s, the limit is %d", p.Domain, peak, when, memoryLimit)
		}
	}
}

// peakMemory returns the highest resident memory of pecd since resetPeak, in
// octets.
func peakMemory(t *testing.T, p *stage.Provider) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pecd.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := bytes.Cut(status, []byte("\nVmHWM:"))
	fields := strings.Fields(string(after))
	if len(fields) < 2 || fields[1] != "kB" {
		t.Fatalf("no VmHWM in\n%s", status)
	}
	n, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

func mailFiles(tb testing.TB, s *stage.Stage, address string) []string {
	tb.Helper()
	files, err := s.MailFiles(address)
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

// waitFiles waits until a mailbox holds n messages that nobody has read.
func waitFiles(ctx context.Context, tb testing.TB, s *stage.Stage, address string, n int) {
	tb.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		have := len(mailFiles(tb, s, address))
		if have >= n {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tb.Fatalf("%s has %d messages of %d: %v", address, have, n, ctx.Err())
		}
	}
}

// kindsOf counts the receipts of a mailbox by their kind.
func kindsOf(t *testing.T, s *stage.Stage, address string) map[pec.Kind]int {
	t.Helper()
	kinds := map[pec.Kind]int{}
	for _, file := range mailFiles(t, s, address) {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		header, err := textproto.NewReader(bufio.NewReader(io.LimitReader(f, 64<<10))).ReadMIMEHeader()
		if err != nil {
			t.Fatal(err)
		}
		kinds[pec.Kind(header.Get(pec.HeaderReceipt))]++
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return kinds
}
