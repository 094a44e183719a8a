package lmtp_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"pecd/lmtp"
)

// A pipeListener gives the server the ends of pipes.
type pipeListener struct{ conns chan net.Conn }

func (l pipeListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (pipeListener) Close() error   { return nil }
func (pipeListener) Addr() net.Addr { return &net.UnixAddr{} }

// Whatever comes in, the connection ends when its input does, and every message
// that began ended once.
func FuzzServer(f *testing.F) {
	begin := "LHLO x\r\nMAIL FROM:<a@b> SIZE=3 ENVID=x+2B RET=HDRS\r\nRCPT TO:<c@d> ORCPT=rfc822;e@f\r\n"
	f.Add([]byte(begin + "RCPT TO:<g@h>\r\nDATA\r\nA: b\r\n\r\n..x\r\n.\r\nQUIT\r\n"))
	f.Add([]byte(begin + "DATA\r\nx\n.\r\n.\rx\r\n.\r\nMAIL FROM:<>\r\nRSET\r\nNOOP\r\n"))
	f.Add([]byte(begin + "BDAT 3 LAST\r\nabcLHLO y\r\nVRFY x\r\n"))
	f.Add([]byte(begin + "MAIL FROM:<x@y>\r\nRCPT TO:<\"a b\"@c>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\n"))
	for _, input := range hostile {
		f.Add([]byte(input))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		r := &recorder{ended: make(chan *record, len(input)+1)}
		begun := 0
		r.begin = func(lmtp.Envelope) error { begun++; return nil }
		s := lmtp.NewServer(lmtp.Options{Backend: r, MaxMessage: 1 << 16, MaxRecipients: 10,
			Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		l := pipeListener{make(chan net.Conn, 1)}
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		ours, theirs := net.Pipe()
		l.conns <- theirs
		if err := ours.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		go func() { // the replies; ends with the connection
			for buf := make([]byte, 4096); ; {
				if _, err := ours.Read(buf); err != nil {
					return
				}
			}
		}()
		_, _ = ours.Write(input) // the server may have hung up
		_ = ours.Close()
		close(l.conns)
		<-served // the connection was taken
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Fatalf("the connection did not end: %v", err)
		}
		close(r.ended)
		for m := range r.ended {
			begun--
			if m.ends+m.aborts != 1 || m.afterwards != 0 {
				t.Errorf("ended %d times, aborted %d times", m.ends, m.aborts)
			}
		}
		if begun != 0 {
			t.Errorf("%d messages did not end", begun)
		}
	})
}
