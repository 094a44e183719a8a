package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"pecd/pec/message"
	"pecd/plugins/spool"
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
// reader is read before the next is asked for. An error is the last. Messages that
// are encoded lie in temp while they are walked.
func pieces(src message.Source, temp string) iter.Seq2[io.Reader, error] {
	return func(yield func(io.Reader, error) bool) {
		w := walk{yield: yield, temp: temp}
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
	temp  string
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
	if err := w.give(mail(p.Decoded())); err != nil {
		return err
	}
	return w.encoded(p, depth+1)
}

// messages are the types whose content mail programs show as a message; the rest
// of message/* are reports and references.
var messages = []string{"message/rfc822", "message/global", "message/news"}

// encoded gives the parts of the message in p, which is no piece of the source as
// it stands. clamd got it already, and would not look deep into it.
func (w *walk) encoded(p *message.Part, depth int) error {
	if !slices.Contains(messages, p.MediaType) {
		return nil
	}
	s, err := spool.New(w.temp, p.Decoded(), p.Body.Len)
	if err != nil {
		return err
	}
	defer s.Close()
	err = w.message(s, message.Range{Len: s.Size()}, depth)
	if errors.Is(err, message.ErrMalformed) {
		return nil // no message at all: it has no parts
	}
	return err
}

func mail(r io.Reader) io.Reader { return io.MultiReader(strings.NewReader(mark), r) }
