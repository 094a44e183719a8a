package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"pecd/pec/message"
	"pecd/plugins/sdk/sdktest"
	"pecd/points"
)

func TestParseReply(t *testing.T) {
	for line, want := range map[string]struct {
		virus string
		err   error
	}{
		"3: stream: OK":                            {},
		"3: stream: Win.Test.EICAR_HDB-1 FOUND":    {virus: "Win.Test.EICAR_HDB-1"},
		"3: stream: a name with FOUND in it FOUND": {virus: "a name with FOUND in it"},
		"3: stream: \xe8 \n\u20ac FOUND":           {virus: "? ??"},
		"3: INSTREAM size limit exceeded. ERROR":   {err: errTooLarge},
		"INSTREAM size limit exceeded. ERROR":      {err: errTooLarge},
		"":                                         {err: errReply},
		"stream: OK":                               {err: errReply},
		"2: stream: OK":                            {err: errReply},
		"33: stream: OK":                           {err: errReply},
		"3: stream: OK ":                           {err: errReply},
		"3: stream: ok":                            {err: errReply},
		"3: OK":                                    {err: errReply},
		"3: stream:  FOUND":                        {err: errReply},
		"3: x FOUND":                               {err: errReply},
		"3: stream: Can't allocate memory ERROR":   {err: errReply},
		"3: INSTREAM: Can't write to temporary file. ER": {err: errReply},
		"3: UNKNOWN COMMAND":                             {err: errReply},
		"COMMAND READ TIMED OUT":                         {err: errReply},
	} {
		r, err := parseReply(line, 3)
		if r.virus != want.virus || !errors.Is(err, want.err) || (err == nil) != (want.err == nil) {
			t.Errorf("%q: %q %v", line, r.virus, err)
		}
	}
}

func FuzzParseReply(f *testing.F) {
	for _, line := range []string{"1: stream: OK", "1: stream: X FOUND", "INSTREAM size limit exceeded. ERROR", "1: \x00", "1: stream:  FOUND"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseReply(line, 1)
		if clean := err == nil && r.virus == ""; clean != (line == "1: stream: OK") {
			t.Errorf("%q counts as clean: %v", line, clean)
		}
		if len(r.virus) > maxVirus || strings.ContainsFunc(r.virus, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q: the name %q", line, r.virus)
		}
		if err != nil && r.virus != "" {
			t.Errorf("%q: %q and %v", line, r.virus, err)
		}
	})
}

// fake is a clamd that reads one whole stream and answers with what it is given.
func fake(t *testing.T, answer string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return // it is closed
			}
			if err := readStream(bufio.NewReader(c)); err != nil {
				t.Errorf("the client's stream: %v", err)
			}
			if _, err := io.WriteString(c, answer); err != nil {
				t.Errorf("the answer: %v", err)
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "unix:" + path
}

// readStream reads what a client sends up to the end of its first stream.
func readStream(r *bufio.Reader) error {
	for _, want := range []string{"zIDSESSION\x00", "zINSTREAM\x00"} {
		if got, err := r.ReadString(0); err != nil || got != want {
			return fmt.Errorf("%q %v", got, err)
		}
	}
	for {
		var size [4]byte
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(size[:])
		if n == 0 {
			return nil
		}
		if n > chunk {
			return fmt.Errorf("a chunk of %d octets", n)
		}
		if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
			return err
		}
	}
}

// Whatever clamd answers but the three sentences that are known is doubt.
func TestNonsenseIsDoubt(t *testing.T) {
	for _, answer := range []string{"", "\x00", "1: stream: OK", "1: stream: OK\n", "2: stream: OK\x00", "stream: OK\x00", "1: stream: OKAY\x00",
		strings.Repeat("x", 2*maxReply), "1: stream: OK\x001: stream: OK\x00", "1: stream: Can't allocate memory ERROR\x00"} {
		c := opened(t, at(fake(t, answer)))
		if f, err := look(t, c, []byte(clean())); err == nil || f.Says != points.Unavailable {
			t.Errorf("%.40q: %v %v", answer, f, err)
		}
	}
}

func TestSettings(t *testing.T) {
	for _, dry := range []bool{true, false} {
		sdktest.Settings(t, plugin, dry, map[string]string{
			`{}`:                               "",
			`{"timeout":"5s","connections":1}`: "",
			`{"socket":"inet:127.0.0.1:3310","stages":["delivery"]}`: "",
			`{"socket":"/run/clamd"}`:                                "socket",
			`{"socket":"unix:relative"}`:                             "socket",
			`{"timeout":"0s"}`:                                       "timeout",
			`{"max_size":-1}`:                                        "max_size",
			`{"too_large":"infected"}`:                               "too_large",
			`{"too_complex":"defer"}`:                                "too_complex",
			`{"heuristics":"defer"}`:                                 "heuristics",
			`{"connections":0}`:                                      "connections",
			`{"stages":[]}`:                                          "stages",
			`{"stages":["delivery","later"]}`:                        "stages",
			`{"sockets":"unix:/run/clamd"}`:                          "sockets",
		})
	}
}

// The defaults that people read are those that count, and fit the protocol.
func TestKeysSayTheDefaults(t *testing.T) {
	sdktest.Defaults(t, plugin, new(settings), defaults())
}

// FuzzPieces: the walk ends, in bounds, whatever the message is.
func FuzzPieces(f *testing.F) {
	for _, m := range []string{clean(), infected(), envelope(infected()), signed(envelope(clean())), encoded(), deep()[:300], "", "\r\n", "a"} {
		f.Add([]byte(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		count := 0
		for r, err := range pieces(message.Bytes(b), t.TempDir()) {
			if err != nil {
				if !errors.Is(err, errComplex) {
					t.Errorf("an error of bytes in memory: %v", err)
				}
				break
			}
			if count++; count > maxPieces {
				t.Fatalf("over %d pieces", maxPieces)
			}
			if n, err := io.Copy(io.Discard, r); err != nil || n > int64(len(b)+len(mark)) {
				t.Errorf("piece %d: %d octets of %d, %v", count, n, len(b), err)
			}
		}
		if count == 0 {
			t.Error("not even the whole")
		}
	})
}
