// Package clockwatchtest has an NTP server for tests.
package clockwatchtest

import (
	"encoding/binary"
	"net"
	"testing"
	"time"
)

// Serve answers NTP questions (RFC 4330) with the time that now tells, until the test
// ends, and returns its address, host:port.
func Serve(t testing.TB, now func() time.Time) string {
	return ServeChanged(t, now, func(p []byte) []byte { return p })
}

// ServeChanged is Serve, with answers that change alters.
func ServeChanged(t testing.TB, now func() time.Time, change func([]byte) []byte) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if n != 48 || b[0] != 4<<3|3 {
				continue
			}
			if _, err := conn.WriteTo(change(answer(b[40:48], now())), from); err != nil {
				return
			}
		}
	}()
	return conn.LocalAddr().String()
}

// answer is that of a server of stratum 2.
func answer(origin []byte, at time.Time) []byte {
	p := make([]byte, 48)
	p[0], p[1] = 4<<3|4, 2
	copy(p[24:], origin)
	Put(p[32:], at)
	Put(p[40:], at)
	return p
}

// Put writes a time stamp of NTP.
func Put(p []byte, t time.Time) {
	binary.BigEndian.PutUint32(p, uint32(t.Unix()+2208988800))
	binary.BigEndian.PutUint32(p[4:], uint32(int64(t.Nanosecond())<<32/1e9))
}
