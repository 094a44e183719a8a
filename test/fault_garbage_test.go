package test

import (
	"bytes"
	"context"
	endian "encoding/binary"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/milter/miltertest"
	"pecd/milter/socket"
	"pecd/packaging/demo/stage"
)

// packet is a milter packet.
func packet(code byte, payload []byte) []byte {
	b := endian.BigEndian.AppendUint32(nil, uint32(1+len(payload)))
	return append(append(b, code), payload...)
}

// sized is a milter packet that is not as long as it says.
func sized(n uint32, rest string) []byte {
	return append(endian.BigEndian.AppendUint32(nil, n), rest...)
}

// opened follows the negotiation of a milter session.
func opened(packets ...[]byte) []byte {
	return append(packet('O', miltertest.Offer(6, miltertest.OfferedActions, miltertest.OfferedProtocol)), slices.Concat(packets...)...)
}

// nonsense is what strangers say to the doors: to either, what belongs at the
// other too.
func nonsense() map[string][]byte {
	noise := make([]byte, 64<<10)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(noise)
	mail, rcpt := packet('M', miltertest.Strings("<alice@alfa.example>")), packet('R', miltertest.Strings("<bob@beta.example>"))
	return map[string][]byte{
		"noise":                     noise,
		"nothing":                   nil,
		"zeros":                     make([]byte, 64<<10),
		"packet of 4 GB":            sized(1<<32-1, "O"),
		"packet of no length":       sized(0, ""),
		"packet that stops":         sized(1000, "Obla"),
		"negotiation of nothing":    packet('O', nil),
		"old version":               packet('O', miltertest.Offer(1, 0, 0)),
		"unknown command":           opened(packet('Z', noise[:100])),
		"message before its sender": opened(packet('E', nil), packet('B', noise), packet('E', nil)),
		"strings without ends":      opened(packet('M', noise[:500]), packet('R', noise[:500]), packet('L', []byte("x")), packet('D', noise[:300])),
		"message without header":    opened(mail, rcpt, packet('B', noise[:1000]), packet('E', nil)),
		"message nobody sent":       opened(mail, rcpt, packet('L', miltertest.Strings("From", " alice@alfa.example")), packet('N', nil), packet('E', nil), packet('E', nil)),
		"header without end":        opened(mail, rcpt, bytes.Repeat(packet('L', miltertest.Strings("X", strings.Repeat("y", 60000))), 50)),
		"recipients without end":    opened(mail, bytes.Repeat(rcpt, 20000)),
		"line without end":          bytes.Repeat([]byte("LHLO"), 100_000),
		"commands without end":      bytes.Repeat([]byte("LHLO x\r\nNOOP\r\nRSET\r\n"), 5000),
		"unknown commands":          bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 100),
		"content without recipient": []byte("LHLO x\r\nMAIL FROM:<>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n"),
		"content without end":       []byte("LHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<nobody@beta.example>\r\nDATA\r\n" + strings.Repeat("x\r\n", 10000)),
		"binary content":            append([]byte("LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<nobody@beta.example>\r\nDATA\r\n"), append(slices.Clone(noise), "\r\n.\r\nQUIT\r\n"...)...),
		"chunk of a petabyte":       []byte("LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<nobody@beta.example>\r\nBDAT 1125899906842624 LAST\r\nx"),
		"RCPT without end":          []byte("LHLO x\r\nMAIL FROM:<>\r\n" + strings.Repeat("RCPT TO:<nobody@beta.example>\r\n", 5000) + "DATA\r\n.\r\n"),
		"broken addresses":          []byte("LHLO x\r\nMAIL FROM:<\"\x00\r\nRCPT TO:<<<@>>\r\nMAIL FROM:<a@b> SIZE=-1 SIZE=99999999999999999999 BODY=\x80\r\nRCPT TO:\r\nQUIT\r\n"),
	}
}

// garbage has strangers throw nonsense at all doors while letters pass.
func garbage(t *testing.T, s *stage.Stage) {
	const letters = 12
	before, running := registerSizes(t, s), pids(s)
	said := map[string]int{}
	for _, p := range s.Providers() {
		said[p.Label] = len(fileText(t, p.Pecd.Log))
	}
	strangers := startStrangers(t, s)
	f := startTraffic(t, s, "garbage", letters)
	f.wait(t)
	strangers.end(t)

	finish(t, s, before, f.letters...)
	for _, p := range s.Providers() {
		for _, e := range register(t, p) {
			// Who speaks the milter protocol well enough is refused for the message itself.
			if e.Seq > int64(before[p.Label]) && !f.sent(e.MsgID) && e.Type != logstore.EntryRefused {
				t.Errorf("the register of %s has %+v", p.Label, e)
			}
		}
	}
	if now := pids(s); !slices.Equal(now, running) {
		t.Errorf("pecd was started anew: %v, before %v", now, running)
	}
	for _, p := range s.Providers() {
		if lines := stage.Panics(fileText(t, p.Pecd.Log)[said[p.Label]:]); len(lines) > 0 {
			t.Errorf("the pecd of %s panicked: %q", p.Label, lines)
		}
	}
}

// strangers throw, each one text at one door, again and again.
type strangers struct {
	stop  context.CancelFunc
	ended sync.WaitGroup
	first sync.WaitGroup // each has thrown once, or cannot
}

func startStrangers(t *testing.T, s *stage.Stage) *strangers {
	ctx, cancel := context.WithCancel(within(t))
	x := &strangers{stop: cancel}
	for _, p := range s.Providers() {
		for _, door := range []string{p.Pecd.Config.Access.Milter, p.Pecd.Config.Gate.Milter, p.Pecd.Config.Reception.LMTP} {
			for name, text := range nonsense() {
				x.ended.Add(1)
				x.first.Add(1)
				go func() {
					defer x.ended.Done()
					err := throw(ctx, door, text)
					x.first.Done()
					for err == nil && ctx.Err() == nil {
						err = throw(ctx, door, text)
					}
					if err != nil && ctx.Err() == nil {
						t.Errorf("%s at %s: %v", name, door, err)
					}
				}()
			}
		}
	}
	t.Cleanup(func() { cancel(); x.ended.Wait() })
	return x
}

// end sends them away when all have had their say.
func (x *strangers) end(t *testing.T) {
	t.Helper()
	x.first.Wait()
	x.stop()
	x.ended.Wait()
}

// throw says text at a door and listens until the other side ends, or for a
// little while. That the door hangs up in the middle is its right; that it cannot
// be reached is an error.
func throw(ctx context.Context, door string, text []byte) error {
	conn, err := socket.Dial(ctx, door)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		return err
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		_, _ = io.Copy(io.Discard, conn) // until the door hangs up, or the deadline
	}()
	_, _ = conn.Write(text)
	<-heard
	return nil
}
