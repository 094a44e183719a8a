package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"
)

// A sink is an SMTP server that takes everything and counts messages.
type sink struct {
	taken  atomic.Int64
	server *smtp.Server
	ended  sync.WaitGroup
}

// listenSink listens at addr as soon as those who had it have let go of it: the
// children of a Postfix that was stopped hold it a little longer than their master.
func listenSink(ctx context.Context, addr string) (*sink, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	l, err := net.Listen("tcp", addr)
	for errors.Is(err, syscall.EADDRINUSE) && pause(ctx, 50*time.Millisecond) {
		l, err = net.Listen("tcp", addr)
	}
	if err != nil {
		return nil, err
	}
	s := &sink{}
	s.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return sinking{s}, nil }))
	s.server.Domain, s.server.EnableDSN = "mail.ordinary.example", true
	s.server.MaxLineLength, s.server.ReadTimeout = 0, time.Hour
	s.ended.Add(1)
	go func() { defer s.ended.Done(); _ = s.server.Serve(l) }() // it ends with close
	return s, nil
}

func (s *sink) close() error {
	err := s.server.Close()
	s.ended.Wait()
	if errors.Is(err, smtp.ErrServerClosed) {
		return nil
	}
	return err
}

// sinking is a session.
type sinking struct{ *sink }

func (sinking) Reset()                               {}
func (sinking) Logout() error                        { return nil }
func (sinking) Mail(string, *smtp.MailOptions) error { return nil }
func (sinking) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s sinking) Data(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	s.taken.Add(1)
	return nil
}
