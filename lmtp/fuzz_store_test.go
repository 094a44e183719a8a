package lmtp_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"pecd/lmtp"
)

// FuzzStore: whatever the mailbox store says over a whole conversation, a delivery
// ends with a status for each recipient, or an error; and a recipient has the message
// only if the store said so.
func FuzzStore(f *testing.F) {
	greeting := "220 x LMTP\r\n250-x\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
	f.Add([]byte(greeting + "250 2.1.0 ok\r\n250 2.1.5 ok\r\n550 5.1.1 no\r\n354 go\r\n250 2.0.0 saved\r\n221 bye\r\n"))
	f.Add([]byte(greeting + "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 saved\r\n452 4.2.2 full\r\n250 reset\r\n"))
	f.Add([]byte(greeting + "421 4.3.2 later\r\n"))
	f.Add([]byte("220-x\r\n220 y\r\n500 what\r\n250 x\r\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		s := &lmtp.Store{MaxIdle: -1, CommandTimeout: patience, FinalTimeout: patience, Dial: func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, theirs) }() // ends with the connection
			go func() {
				_, _ = theirs.Write(said)
				_ = theirs.Close()
			}()
			return ours, nil
		}}
		defer s.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		begun := time.Now()
		status, err := s.Deliver(ctx, "a@x.example", []string{"b@x.example", "c@x.example"}, 0, true,
			func(w io.Writer) error { _, err := io.WriteString(w, "A: b\r\n\r\n.\r\nx\r\n"); return err })
		if err == nil && len(status) != 2 {
			t.Errorf("%d statuses", len(status))
		}
		if time.Since(begun) > patience/2 {
			t.Error("the end of the connection was not seen")
		}
		good := 0
		for _, st := range status {
			if st.OK() {
				good++
			}
		}
		if n := bytes.Count(said, []byte("\n2")); good > n {
			t.Errorf("%d have it, and the store said so %d times", good, n)
		}
	})
}
