package act_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/message"
	"pecd/points"
	"pecd/points/access"
	"pecd/points/act"
	"pecd/points/pointstest"
)

// BenchmarkAccept measures the whole access commit of a message of 4 KB, for so
// many sessions at once: from its first octet to the moment when the MTA may hear
// that it is ours. Keys are RSA with 2048 bits, the store is on the disk of the
// temporary directory, and every commit is synced.
func BenchmarkAccept(b *testing.B) {
	for _, sessions := range []int{1, 8, 32} {
		b.Run(fmt.Sprintf("sessions=%d", sessions), func(b *testing.B) { benchmarkAccept(b, sessions) })
	}
}

func benchmarkAccept(b *testing.B, sessions int) {
	w := pointstest.New(b)
	c := benchClerk(b, w.Alfa)
	raw := fourKilobytes()
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	cpu := processorTime(b)
	b.ResetTimer()
	var g errgroup.Group
	for range sessions {
		g.Go(func() error {
			for left.Add(-1) >= 0 {
				if err := submit(c, raw); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
	b.ReportMetric((processorTime(b)-cpu).Seconds()*1000/float64(b.N), "cpu-ms/commit")
}

// processorTime returns what this process has used so far. On a machine with other
// work to do it says more than the clock.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// submit does what the access door does with one message.
func submit(c *act.Clerk, raw []byte) error {
	body, err := c.Store.NewBody()
	if err != nil {
		return err
	}
	defer body.Close()
	var scan message.Scanner
	for chunk := raw; len(chunk) > 0; { // the header, then the body, as a milter gets them
		n := min(len(chunk), len(raw)/2)
		if _, err := scan.Write(chunk[:n]); err != nil {
			return err
		}
		if _, err := body.Write(chunk[:n]); err != nil {
			return err
		}
		chunk = chunk[n:]
	}
	m, err := message.Read(body)
	if err != nil {
		return err
	}
	ctx := context.Background()
	sub := access.Submission{Login: "alice@alfa.example", Sender: "alice@alfa.example", SenderOurs: true,
		Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}}, Message: m, Facts: scan.Facts()}
	o, err := access.Builtin{}.Decide(ctx, sub)
	if err != nil {
		return err
	}
	if o.Verdict != points.Accept {
		return fmt.Errorf("refused: %v", o.Reasons)
	}
	_, err = c.Accept(ctx, sub.Event(c.Issuer.Name), m, scan.Facts(), "4QUEUE1")
	return err
}

// benchClerk is a clerk with a real store and a clock that goes.
func benchClerk(b *testing.B, p *pointstest.Provider) *act.Clerk {
	b.Helper()
	log := slog.New(slog.DiscardHandler)
	start := time.Now()
	now := func() time.Time { return pointstest.At.Add(time.Since(start)) }
	s, err := logstore.Open(context.Background(), logstore.Options{Dir: b.TempDir(), Rand: rand.Reader, Now: now, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return &act.Clerk{Issuer: p.Issuer, Signer: p.Signer, Store: s, Now: now,
		Location: pointstest.At.Location(), Rand: rand.Reader}
}

// fourKilobytes is a message as a mail program writes it.
func fourKilobytes() []byte {
	header := "Received: from client.example ([192.0.2.1]) by mail.alfa.example with ESMTPSA;\r\n\tSun, 22 Nov 2026 10:45:37 +0100\r\n" +
		"From: Alice <alice@alfa.example>\r\nTo: Bob <bob@beta.example>\r\nDate: Sun, 22 Nov 2026 10:45:36 +0100\r\n" +
		"Subject: =?UTF-8?Q?Offerta_n=C2=B0_12?=\r\nMessage-ID: <c1@alfa.example>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: text/plain; charset=UTF-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
	const line = "Gentile Bob, in allegato l'offerta che aveva chiesto per la fornitura.\r\n"
	return []byte(header + strings.Repeat(line, (4<<10-len(header))/len(line)))
}
