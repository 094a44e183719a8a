package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"pecd/pec/message"
	"pecd/plugins/sdk"
	"pecd/plugins/spool"
	"pecd/points"
)

// Limits of one message. Those of a MIME tree are package message's.
const (
	maxParts  = 1000 // in all messages in it together
	maxNested = 10   // messages in messages
)

// A refusal is what ends a walk: something that is not allowed. It is an error
// so that it comes up from any depth.
type refusal struct{ finding points.Finding }

func (r *refusal) Error() string { return r.finding.Reason.English }

// A filter is the check. It may be used concurrently.
type filter struct {
	settings settings
	unpack   int64  // octets of archives in archives of one message that are looked at
	temp     string // directory for archives while they are read; that of the system if empty
}

// check refuses m if it carries what the settings forbid.
func (f *filter) check(ctx context.Context, m *sdk.Message) (points.Finding, error) {
	src, err := m.Open()
	if err != nil {
		return points.Finding{}, err
	}
	defer src.Close()
	w := walk{filter: f, ctx: ctx}
	err = w.message(src, message.Range{Len: src.Size()}, 0)
	var r *refusal
	switch {
	case err == nil:
		return sdk.Clean(), nil
	case errors.As(err, &r):
		return r.finding, nil
	}
	return points.Finding{}, err
}

// A walk looks through one message.
type walk struct {
	*filter
	ctx      context.Context
	parts    int
	entries  int   // of archives
	unpacked int64 // octets of archives in archives
}

// message looks through the message that is r of src.
func (w *walk) message(src message.Source, r message.Range, depth int) error {
	if depth > maxNested {
		return w.unreadable("message")
	}
	m, err := message.ReadRange(src, r)
	var root *message.Part
	if err == nil {
		root, err = m.Structure()
	}
	if errors.Is(err, message.ErrLimit) {
		return w.unreadable("message")
	}
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

// part looks at p, and at what is in it unless that are parts of this message.
func (w *walk) part(p *message.Part, depth int) error {
	if w.parts++; w.parts > maxParts {
		return w.unreadable("message")
	}
	if err := w.ctx.Err(); err != nil {
		return err
	}
	names := fileNames(p)
	if pattern, ok := matching(w.settings.Types, p.MediaType); ok {
		return forbidden(append(names, p.MediaType)[0], pattern)
	}
	for _, name := range names {
		if err := w.name(name); err != nil {
			return err
		}
	}
	switch {
	case len(p.Children) > 0:
		return nil
	case p.MediaType == "message/rfc822" || p.MediaType == "message/global":
		return w.attached(p, depth+1)
	case !w.settings.Zip:
		return nil
	}
	return w.archive(p, append(names, "")[0])
}

// name refuses a name that is not allowed.
func (w *walk) name(name string) error {
	if pattern, ok := matching(w.settings.Names, plain(name)); ok {
		return forbidden(name, pattern)
	}
	return nil
}

// attached looks through the message that p carries, such as the postacert.eml of
// a transport envelope. One that is encoded is against RFC 2046, 5.2.1, but
// programs show it.
func (w *walk) attached(p *message.Part, depth int) error {
	m, err := p.Embedded()
	if err == nil {
		return w.message(m.Source, m.Range(), depth)
	}
	if errors.Is(err, message.ErrLimit) {
		return w.unreadable("message")
	}
	if !errors.Is(err, message.ErrMalformed) {
		return err
	}
	s, err := spool.New(w.temp, p.Decoded(), p.Body.Len)
	if err != nil {
		return err
	}
	defer s.Close()
	return w.message(s, message.Range{Len: s.Size()}, depth)
}

// archive looks into p if it is a zip archive.
func (w *walk) archive(p *message.Part, name string) error {
	first := make([]byte, 4)
	n, err := io.ReadFull(p.Decoded(), first)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return fmt.Errorf("the message cannot be read: %w", err)
	}
	if !isZip(plain(name), p.MediaType, first[:n]) {
		return nil
	}
	s, err := spool.New(w.temp, p.Decoded(), p.Body.Len)
	if err != nil {
		return err
	}
	defer s.Close()
	return w.zip(s, name, 1)
}

// isZip reports whether something is a zip archive, or wants to be taken for one.
func isZip(name, mediaType string, first []byte) bool {
	return strings.HasSuffix(name, ".zip") || mediaType == "application/zip" || mediaType == "application/x-zip-compressed" ||
		string(first) == "PK\x03\x04" || string(first) == "PK\x05\x06"
}

func forbidden(name, pattern string) error {
	name, pattern = shown(name), shown(pattern)
	return &refusal{sdk.Refuse(
		fmt.Sprintf(`Il messaggio contiene un allegato di un tipo non ammesso: "%s" (%s).`, name, pattern),
		fmt.Sprintf(`The message has an attachment of a kind that is not allowed: "%s" (%s).`, name, pattern))}
}

// encrypted says what is done about an archive with encrypted files.
func (w *walk) encrypted(name string) error {
	if w.settings.Encrypted == allow {
		return nil
	}
	name = shown(name)
	return &refusal{sdk.Refuse(
		fmt.Sprintf(`Il messaggio contiene un archivio cifrato, che non e' ammesso: "%s".`, name),
		fmt.Sprintf(`The message has an encrypted archive, which is not allowed: "%s".`, name))}
}

// unreadable says what is done about something that cannot be looked through.
func (w *walk) unreadable(name string) error {
	if w.settings.Unreadable == allow {
		return nil
	}
	name = shown(name)
	return &refusal{sdk.Refuse(
		fmt.Sprintf(`Il messaggio contiene qualcosa che non si puo' esaminare: "%s".`, name),
		fmt.Sprintf(`The message has something in it that cannot be examined: "%s".`, name))}
}
