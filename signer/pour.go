package signer

import (
	"io"
	"sync"

	"pecd/pec/message"
)

// A block is what is read of a stored piece at a time.
type block [64 << 10]byte

// blocks are reused: a message of 10 KB would else cost a block of its own at
// each signature.
var blocks = sync.Pool{New: func() any { return new(block) }}

// pour writes the octets of c to each of sinks. Errors come from the sources of
// c, or a sink.
func pour(c message.Content, sinks ...io.Writer) error {
	b := blocks.Get().(*block)
	defer blocks.Put(b)
	for _, p := range c {
		if p.Source == nil {
			if err := writeAll(p.Text, sinks); err != nil {
				return err
			}
			continue
		}
		for off, end := p.Range.Off, p.Range.End(); off < end; {
			n := int(min(int64(len(b)), end-off))
			if got, err := p.Source.ReadAt(b[:n], off); got < n {
				if err == nil || err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return err
			}
			if err := writeAll(b[:n], sinks); err != nil {
				return err
			}
			off += int64(n)
		}
	}
	return nil
}

func writeAll(p []byte, sinks []io.Writer) error {
	for _, w := range sinks {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return nil
}
