package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"pecd/pec/message"
)

// mark goes before each message. clamd takes a stream for mail, and undoes its
// encodings, only if its first field is one of a few.
const mark = "Received: by pecd\r\n"

const (
	maxNested = 10   // messages in messages
	maxPieces = 1000 // streams of one message, the whole among them
)

// errComplex says that a message has more in it than this plugin looks at.
var errComplex = errors.New("too many parts, or nested too deep")

// pieces are the streams that clamd gets of the message in src: the whole, and
// each part with its transfer encoding undone, those of messages in it too. Each
// reader is read before the next is asked for. An error is the last.
func pieces(src message.Source) iter.Seq2[io.Reader, error] {
	return func(yield func(io.Reader, error) bool) {
		w := walk{yield: yield}
		err := w.give(mail(io.NewSectionReader(src, 0, src.Size())))
		if err == nil {
			err = w.message(src, message.Range{Len: src.Size()}, 0)
		}
		if errors.Is(err, message.ErrLimit) {
			err = fmt.Errorf("%w: %v", errComplex, err)
		}
		if err != nil && !errors.Is(err, errDone) {
			yield(nil, err)
		}
	}
}

// errDone says that nobody asks for more pieces.
var errDone = errors.New("done")

// A walk goes through one message.
type walk struct {
	yield func(io.Reader, error) bool
	count int
}

func (w *walk) give(r io.Reader) error {
	if w.count++; w.count > maxPieces {
		return fmt.Errorf("%w: over %d parts", errComplex, maxPieces)
	}
	if !w.yield(r, nil) {
		return errDone
	}
	return nil
}

// message gives the parts of the message that is r of src.
func (w *walk) message(src message.Source, r message.Range, depth int) error {
	if depth > maxNested {
		return fmt.Errorf("%w: over %d messages deep", errComplex, maxNested)
	}
	m, err := message.ReadRange(src, r)
	if err != nil {
		return err
	}
	root, err := m.Structure()
	if err != nil {
		return err
	}
	var failed error
	root.Walk(func(p *message.Part) bool {
		if failed == nil {
			failed = w.part(p, depth)
		}
		return failed == nil
	})
	return failed
}

// part gives the part p, but not what is in it as a multipart.
func (w *walk) part(p *message.Part, depth int) error {
	switch {
	case len(p.Children) > 0:
		return nil // clamd gets them
	case !strings.HasPrefix(p.MediaType, "message/"):
		return w.give(p.Decoded())
	}
	m, err := p.Embedded()
	if err == nil {
		return w.message(m.Source, m.Range(), depth+1)
	}
	if !errors.Is(err, message.ErrMalformed) {
		return err
	}
	// A message that is encoded, which no rule allows, or of another kind.
	return w.give(mail(p.Decoded()))
}

func mail(r io.Reader) io.Reader { return io.MultiReader(strings.NewReader(mark), r) }
