package spool

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// What is read is what comes out, in memory and in a file that has no name; what
// is too large, or cannot be read, is an error of its own.
func TestNew(t *testing.T) {
	dir := t.TempDir()
	for _, size := range []int{0, 1, inMemory - 1, inMemory, inMemory + 1, 3 * inMemory} {
		text := bytes.Repeat([]byte("x"), size)
		s, err := New(dir, bytes.NewReader(text), int64(size))
		if err != nil {
			t.Fatalf("%d octets: %v", size, err)
		}
		got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
		if err != nil || !bytes.Equal(got, text) || (s.file != nil) != (size >= inMemory) {
			t.Errorf("%d octets: %d come out, %v, in a file: %t", size, len(got), err, s.file != nil)
		}
		s.Close()
		if size == 0 {
			continue
		}
		if _, err := New(dir, bytes.NewReader(text), int64(size-1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%d octets of %d: %v", size, size-1, err)
		}
	}
	broken := errors.New("broken")
	for _, before := range []int{0, 2 * inMemory} {
		r := io.MultiReader(strings.NewReader(strings.Repeat("x", before)), iotest.ErrReader(broken))
		if _, err := New(dir, r, 1<<30); !errors.Is(err, broken) || errors.Is(err, ErrRoom) {
			t.Errorf("broken after %d octets: %v", before, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := New(filepath.Join(dir, "nothing"), strings.NewReader(strings.Repeat("x", 2*inMemory)), 1<<30); !errors.Is(err, ErrRoom) {
		t.Errorf("without a directory: %v", err)
	}
}
