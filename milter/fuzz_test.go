package milter_test

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"pecd/milter"
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
func FuzzSession(f *testing.F) {
	whole := head() + packet("DC{daemon_name}\x00X\x00") + packet("Chost\x0040912.0.0.1\x00") + packet("Hhelo\x00") +
		packet("DM{auth_authen}\x00alice\x00i\x00Q\x00") + packet("M<a@b>\x00SIZE=1\x00") + packet("R<c@d>\x00") +
		packet("LSubject\x00 x\n y\x00") + packet("N") + packet("Bbody\r\n")
	f.Add([]byte(whole + packet("E") + packet("A") + packet("Q")))
	f.Add([]byte(whole + packet("E") + packet("M<>\x00") + packet("E") + packet("K") + packet("Chost\x00U")))
	f.Add([]byte(whole + packet("T") + packet("A") + packet("LA\x00\x00b\x00") + packet("D")))
	for _, input := range hostile() {
		f.Add([]byte(input))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		r := &recorder{ended: make(chan *record, len(input)+1)}
		begun := 0
		r.begin = func(milter.Envelope) error { begun++; return nil }
		s := milter.NewServer(milter.Options{Backend: checker{r}, MaxMessage: 1 << 16, Log: slog.New(slog.DiscardHandler)})
		l := pipeListener{make(chan net.Conn, 1)}
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		ours, theirs := net.Pipe()
		l.conns <- theirs
		if err := ours.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		go func() { // the answers; ends with the connection
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
