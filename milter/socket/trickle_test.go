package socket

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// TestTrickle: who sends octet by octet is read more and more seldom; who sends whole
// items, or the next item, is not made to wait.
func TestTrickle(t *testing.T) {
	var naps []time.Duration
	sleep := func(d time.Duration) { naps = append(naps, d/time.Millisecond) }
	read := func(r *Trickle, times int) {
		t.Helper()
		for range times {
			if _, err := r.Read(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
	}

	octets := NewTrickle(iotest.OneByteReader(strings.NewReader(strings.Repeat("x", 100))), sleep)
	read(octets, 12)
	if want := []time.Duration{50, 100, 200, 400, 800, 800, 800, 800}; !slices.Equal(naps, want) {
		t.Errorf("waited %d, want %d ms", naps, want)
	}
	naps = nil
	octets.Next()
	read(octets, 4)
	if len(naps) != 0 {
		t.Errorf("waited %d ms in the next item", naps)
	}

	content := bytes.Repeat([]byte{'x'}, 4096)
	blocks := NewTrickle(io.MultiReader(strings.NewReader("a"), strings.NewReader("b"), strings.NewReader("c"), bytes.NewReader(content),
		strings.NewReader("d"), strings.NewReader("e"), strings.NewReader("f"), bytes.NewReader(content)), sleep)
	read(blocks, 8+8)
	if len(naps) != 0 {
		t.Errorf("waited %d ms between large blocks", naps)
	}
}
