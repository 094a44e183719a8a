package clockwatch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// ErrNTP says that a server gave no time that counts.
var ErrNTP = errors.New("no time from the NTP server")

// packetSize is that of an NTP packet without extensions; RFC 5905, 7.3.
const packetSize = 48

// epoch is that of NTP, 1900, in seconds before 1970.
const epoch = 2208988800

// Ask asks an NTP server, host:port, how far our clock is behind it (RFC 4330): a
// positive offset says that ours is slow. now is our clock; random makes the
// question one that only its receiver can answer. It returns when ctx ends.
func Ask(ctx context.Context, server string, now func() time.Time, random io.Reader) (offset time.Duration, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", server)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNTP, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	query := make([]byte, packetSize)
	query[0] = 4<<3 | 3 // version 4, client
	// What the server sends back as origin is a number, not our time.
	if _, err := io.ReadFull(random, query[40:]); err != nil {
		return 0, err
	}
	sent := now()
	if _, err := conn.Write(query); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNTP, err)
	}
	answer := make([]byte, 512)
	for {
		n, err := conn.Read(answer)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrNTP, errors.Join(err, ctx.Err()))
		}
		received := now()
		if n < packetSize || string(answer[24:32]) != string(query[40:48]) {
			continue // no answer to this question
		}
		return read(answer[:packetSize], sent, received)
	}
}

// read takes the offset out of an answer; RFC 4330, 5.
func read(p []byte, sent, received time.Time) (time.Duration, error) {
	switch leap, mode, stratum := p[0]>>6, p[0]&7, p[1]; {
	case mode != 4:
		return 0, fmt.Errorf("%w: an answer of mode %d", ErrNTP, mode)
	case leap == 3 || stratum == 0 || stratum > 15:
		return 0, fmt.Errorf("%w: it does not know the time itself (stratum %d)", ErrNTP, stratum)
	}
	arrived, left := stamp(p[32:40]), stamp(p[40:48])
	if arrived.IsZero() || left.IsZero() || left.Before(arrived) {
		return 0, fmt.Errorf("%w: an answer without time", ErrNTP)
	}
	return (arrived.Sub(sent.Round(0)) + left.Sub(received.Round(0))) / 2, nil
}

// stamp reads a time stamp; RFC 4330, 3. It is good from 1968 to 2104.
func stamp(p []byte) time.Time {
	seconds, fraction := int64(binary.BigEndian.Uint32(p)), int64(binary.BigEndian.Uint32(p[4:]))
	if seconds == 0 && fraction == 0 {
		return time.Time{}
	}
	if seconds < 1<<31 {
		seconds += 1 << 32 // after 7 February 2036
	}
	return time.Unix(seconds-epoch, fraction*1e9>>32)
}
