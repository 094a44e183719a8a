package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"pecd/milter/socket"
)

// A session is a connection to clamd on which several streams are scanned, one
// after the other (IDSESSION). It is for one goroutine.
type session struct {
	conn net.Conn
	in   *bufio.Reader
	n    int         // commands so far, which clamd counts too
	stop func() bool // ends the watch over the context
}

// dial opens a session that ends with ctx.
func dial(ctx context.Context, addr string) (*session, error) {
	conn, err := socket.Dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("clamd cannot be reached: %w", err)
	}
	s := &session{conn: conn, in: bufio.NewReaderSize(conn, maxReply)}
	s.stop = context.AfterFunc(ctx, func() {
		// It fails only where the connection is closed, which is as good.
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
	if _, err := conn.Write([]byte("zIDSESSION\x00")); err != nil {
		s.close()
		return nil, fmt.Errorf("clamd cannot be talked to: %w", err)
	}
	return s, nil
}

// close ends the session; clamd ends it when the connection is gone.
func (s *session) close() {
	s.stop()
	s.conn.Close()
}

// chunk is how many octets of a stream go in one piece; before them is their
// number.
const chunk = 128 << 10

var chunks = sync.Pool{New: func() any { return new([4 + chunk]byte) }}

// scan has clamd look at what r gives.
func (s *session) scan(r io.Reader) (reply, error) {
	s.n++
	err := s.send(r)
	if err != nil && !errors.As(err, new(*net.OpError)) {
		return reply{}, err
	}
	// Where clamd hung up it may have said why: StreamMaxLength.
	line, readErr := s.line()
	if readErr != nil {
		return reply{}, errors.Join(err, readErr)
	}
	got, replyErr := parseReply(line, s.n)
	if err != nil && replyErr == nil {
		return reply{}, fmt.Errorf("%w: %.200q before the end of the stream", errReply, line)
	}
	return got, replyErr
}

// send writes the command and r in chunks, and the empty one that ends them.
func (s *session) send(r io.Reader) error {
	if _, err := s.conn.Write([]byte("zINSTREAM\x00")); err != nil {
		return err
	}
	b := chunks.Get().(*[4 + chunk]byte)
	defer chunks.Put(b)
	for {
		n, err := io.ReadFull(r, b[4:])
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return fmt.Errorf("the message cannot be read: %w", err)
		}
		last := err != nil
		binary.BigEndian.PutUint32(b[:], uint32(n)) // at most chunk
		if n > 0 {
			if _, err := s.conn.Write(b[:4+n]); err != nil {
				return err
			}
		}
		if last {
			_, err := s.conn.Write(make([]byte, 4))
			return err
		}
	}
}

// line reads one answer, without its NUL.
func (s *session) line() (string, error) {
	b, err := s.in.ReadSlice(0)
	switch {
	case err == nil:
		return string(b[:len(b)-1]), nil
	case errors.Is(err, bufio.ErrBufferFull):
		return "", fmt.Errorf("%w: it has no end", errReply)
	}
	return "", fmt.Errorf("clamd does not answer: %w", err)
}

// version asks clamd for its version and that of its database.
func version(ctx context.Context, addr string) (string, error) {
	s, err := dial(ctx, addr)
	if err != nil {
		return "", err
	}
	defer s.close()
	if _, err := s.conn.Write([]byte("zVERSION\x00")); err != nil {
		return "", err
	}
	line, err := s.line()
	if err != nil {
		return "", err
	}
	text, ok := strings.CutPrefix(line, "1: ClamAV ")
	if !ok {
		return "", fmt.Errorf("%w: %.200q", errReply, line)
	}
	return "ClamAV " + virusName(text), nil
}
