package verify

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"strings"

	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
)

// Original is the original message (postacert.eml) that an envelope or a
// delivery receipt carries.
type Original struct {
	// SHA256 is the digest of its octets with all line ends as CRLF, in
	// hexadecimal.
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"` // in octets, as it stands here
}

// A proof is what a message counts for in the case of its identifier.
type proof struct {
	valid  bool
	digest string // of the signed content: the same for copies of one message
	place  string
	event  pec.Event

	carries bool   // an original
	whole   string // digest of it, binary
	briefs  []string
	// hashes are: of an envelope those of the attachments, of a receipt those
	// that it gives in their place. Binary.
	hashes map[string]bool
}

func newProof(v *Verdict, ev pec.Event) *proof {
	return &proof{place: v.place(), event: ev}
}

// original takes the digests of m, the original that p's message carries.
func (p *proof) original(m *message.Message, ev pec.Event, v *Verdict) error {
	sum, err := digest(m.Source, m.Range())
	if err != nil {
		return err
	}
	p.carries, p.whole = true, sum
	v.Original = &Original{SHA256: hex.EncodeToString([]byte(sum)), Size: m.Range().Len}
	if ev.Receipt != pec.Brief {
		return nil
	}
	var s spool
	defer s.Close()
	if m, err = withCRLF(m, &s); err != nil {
		return err
	}
	p.hashes = make(map[string]bool)
	if ev.Kind != pec.KindTransport {
		return p.walk(m, p.given)
	}
	for _, h := range []func() hash.Hash{sha1.New, sha256.New} {
		c, err := issue.Brief(m, h)
		if err != nil {
			return err
		}
		sum, err := digest(c, message.Range{Len: c.Size()})
		if err != nil {
			return err
		}
		p.briefs = append(p.briefs, sum)
	}
	return p.walk(m, p.attached)
}

func (p *proof) walk(m *message.Message, f func(*message.Part) error) error {
	root, err := m.Structure()
	if errors.Is(err, message.ErrLimit) {
		return nil // no brief form has such an original
	}
	if err != nil {
		return err
	}
	root.Walk(func(part *message.Part) bool {
		if err == nil && len(part.Children) == 0 {
			err = f(part)
		}
		return err == nil
	})
	return err
}

// given takes the hash that a part of a brief receipt holds; RFC 6109, 3.3.2.2.
func (p *proof) given(part *message.Part) error {
	if !strings.HasSuffix(strings.ToLower(part.FileName()), ".hash") || part.Body.Len > 1000 {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(part.Decoded(), 1000))
	if err != nil {
		return err
	}
	sum, err := hex.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		sum = text // a form that is not known: it will match nothing
	}
	p.hashes[string(sum)] = true
	return nil
}

// attached takes the hashes that a provider may give for part: of the octets as
// they stand, which is what RFC 6109, 3.3.2.2 says, or decoded.
func (p *proof) attached(part *message.Part) error {
	if part.FileName() == "" && part.MediaType != "message/rfc822" {
		return nil
	}
	for _, r := range []io.Reader{io.NewSectionReader(part.Source, part.Body.Off, part.Body.Len), part.Decoded()} {
		one, two := sha1.New(), sha256.New()
		if _, err := io.Copy(io.MultiWriter(one, two), r); err != nil {
			return err
		}
		p.hashes[string(one.Sum(nil))], p.hashes[string(two.Sum(nil))] = true, true
	}
	return nil
}

// How the original in a receipt and that in the envelope go together.
const (
	sameOriginal    = "same"
	briefOriginal   = "brief"       // the receipt carries the brief form of it
	sameAttachments = "attachments" // a brief form that is not ours; its hashes are those of the attachments
	otherOriginal   = "different"
	notCompared     = "" // one of the two is not here, or carries none
)

// belongs compares the original in a receipt with that in its envelope.
func (p *proof) belongs(envelope *proof) string {
	switch {
	case envelope == nil || !envelope.carries || !p.carries:
		return notCompared
	case p.whole == envelope.whole:
		return sameOriginal
	case p.event.Receipt != pec.Brief:
		return otherOriginal
	}
	for _, b := range envelope.briefs {
		if p.whole == b {
			return briefOriginal
		}
	}
	for h := range p.hashes {
		if !envelope.hashes[h] {
			return otherOriginal
		}
	}
	if len(p.hashes) == 0 {
		return otherOriginal
	}
	return sameAttachments
}

// cost is about how many octets p takes.
func (p *proof) cost() int {
	n := 600 + len(p.place) + len(p.event.Subject) + len(p.event.Detail) + 64*len(p.hashes)
	for _, r := range p.event.Recipients {
		n += 48 + len(r.Address)
	}
	for _, a := range p.event.Taken {
		n += 32 + len(a)
	}
	return n
}

// digest returns the SHA-256 of r of src with all line ends as CRLF, so that it
// is the same however the message was saved.
func digest(src message.Source, r message.Range) (string, error) {
	h := sha256.New()
	if err := copyCRLF(h, io.NewSectionReader(src, r.Off, r.Len)); err != nil {
		return "", err
	}
	return string(h.Sum(nil)), nil
}

var crlf = []byte("\r\n")

// copyCRLF copies text with CRLF in place of every bare LF.
func copyCRLF(to io.Writer, src io.Reader) error {
	in := bufio.NewReaderSize(src, lineBuffer)
	var last byte
	for {
		piece, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return err
		}
		n := len(piece)
		bare := n > 0 && piece[n-1] == '\n' && (n == 1 && last != '\r' || n > 1 && piece[n-2] != '\r')
		if bare {
			n--
		}
		if n > 0 {
			last = piece[n-1]
		}
		if _, err := to.Write(piece[:n]); err != nil {
			return err
		}
		if bare {
			last = '\n'
			if _, err := to.Write(crlf); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
}

// withCRLF returns m as it was before a tool saved it with bare LFs, which the
// end of its first line tells; s holds it then.
func withCRLF(m *message.Message, s *spool) (*message.Message, error) {
	if len(m.Header.Fields) == 0 || bytes.HasSuffix(m.Header.Fields[0].Raw, []byte("\r\n")) {
		return m, nil
	}
	r := m.Range()
	if err := copyCRLF(s, io.NewSectionReader(m.Source, r.Off, r.Len)); err != nil {
		return nil, err
	}
	return message.Read(s)
}
