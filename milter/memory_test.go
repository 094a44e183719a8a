package milter_test

import (
	"encoding/binary"
	"runtime"
	"strings"
	"testing"

	"pecd/milter"
	"pecd/milter/miltertest"
)

// heap is what is in use, in octets.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestHeaderMemory: of a header that passes all limits nothing is kept, also not by
// the library, which forgets fields only at an ABORT.
func TestHeaderMemory(t *testing.T) {
	const fields, size = 2500, 40_000 // 100 MB
	r := newRecorder()
	c := start(t, milter.Options{Backend: r, LargeHeader: milter.Verdict{Action: milter.Reject}}).dial(t)
	value := strings.Repeat("x", size)
	before := heap()
	a, err := c.Mail(plain.From, nil)
	does(t, a, err)
	a, err = c.Rcpt("bob@x", nil)
	does(t, a, err)
	name := []byte("Name-000000")
	for i := range fields { // names of their own, which it would keep too
		binary.BigEndian.PutUint32(name[5:], 0x41414141+uint32(i%26)+uint32(i/26)<<8)
		a, err := c.Field(string(name), value)
		does(t, a, err)
	}
	a, err = c.EndHeader(nil)
	does(t, a, err)
	if a, err := c.End(nil); err != nil || a.Code != 'r' {
		t.Errorf("answer %q %q, %v", a.Code, a.Reply, err)
	}
	r.next(t) // aborted at the limit
	if kept := heap() - before; kept > 5<<20 {
		t.Errorf("%d octets are kept of %d", kept, fields*size)
	}
	if err := c.Abort(); err != nil {
		t.Fatal(err)
	}
	mustSend(t, c, plain, 'd')
	r.next(t)
}

// TestMacroMemory: macros that nobody asked for, or for commands that have none, are
// not kept, and those that hold nothing cost nothing.
func TestMacroMemory(t *testing.T) {
	r := newRecorder()
	c := start(t, milter.Options{Backend: r}).dial(t)
	var strange []byte
	for i := 0; len(strange) < 60_000; i++ {
		strange = binary.BigEndian.AppendUint32(strange, 0x41414141+uint32(i%26)+uint32(i/26%26)<<8+uint32(i/676)<<16)
		strange = append(strange, "\x00x\x00"...)
	}
	before := heap()
	for stage := range 256 {
		for _, values := range [][]byte{strange, make([]byte, 60_000), miltertest.Strings("i", strings.Repeat("x", 60_000))} {
			if err := c.Packet('D', append([]byte{byte(stage)}, values...)); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustSend(t, c, plain, 'd')
	r.next(t)
	// A connection may have a value of this length for each command that has macros.
	if kept := heap() - before; kept > 3<<20 {
		t.Errorf("%d octets are kept of the macros", kept)
	}
}
