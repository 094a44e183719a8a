package issue

import (
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"

	"pecd/pec/message"
)

// hashSuffix tells a file that holds a hash from the one that it stands for.
const hashSuffix = ".hash"

// Names of hash files for parts without a name of their own.
const (
	unnamedMessage = "messaggio.eml" // an attached message
	unnamedFile    = "allegato"      // a part whose name is empty
)

// Brief returns original as a brief delivery receipt carries it; RFC 6109,
// 3.3.2.2. Every part with a file name, and every attached message, becomes a
// text file of that name and ".hash" that holds the hash of the part in
// hexadecimal; SHA-1, which the rule names, if newHash is nil. The rest is ranges
// of original's Source, which must stay readable.
//
// What is hashed are the octets of the part as it is encoded: all that stand
// between the empty line after its header and the line end before the next
// delimiter. That line end belongs to the delimiter (RFC 2046, 5.1.1) and does not
// count. Where the message itself is the attachment it is all of its body, the
// last line end included. Nothing is decoded and no line is wrapped anew.
//
// Multiparts are never replaced, whatever their name, so that the structure stays.
// Of an original that is multipart/signed the signature stays as it is. An
// application/pkcs7-mime stays whole, and so does a message of more parts than
// package message reads (docs/rules.md, H1): what is owed is a receipt, and the
// whole proves more. Errors come from the source alone.
func Brief(original *message.Message, newHash func() hash.Hash) (message.Content, error) {
	if newHash == nil {
		newHash = sha1.New
	}
	b := briefing{hash: newHash(), next: original.Range().Off}
	root, err := original.Structure()
	if errors.Is(err, message.ErrLimit) || err == nil && isEnveloped(root) {
		return message.Section(original.Source, original.Range()), nil
	}
	if err != nil {
		return nil, fmt.Errorf("issue: brief receipt: %w", err)
	}
	parts := []*message.Part{root}
	if root.MediaType == "multipart/signed" && len(root.Children) > 0 {
		parts = root.Children[:1]
	}
	for _, p := range parts {
		p.Walk(b.part)
	}
	if b.err != nil {
		return nil, fmt.Errorf("issue: brief receipt: %w", b.err)
	}
	return append(b.out, b.upTo(root, original.Range().End())...), nil
}

// isEnveloped reports whether the message is one CMS object, in which no
// attachment can be told.
func isEnveloped(root *message.Part) bool {
	return root.MediaType == "application/pkcs7-mime" || root.MediaType == "application/x-pkcs7-mime"
}

// A briefing is a brief form while it is put together.
type briefing struct {
	hash hash.Hash
	out  message.Content
	next int64 // the octet of the source to go on with
	err  error
}

// part replaces p where it is to be replaced; its result is for Walk.
func (b *briefing) part(p *message.Part) bool {
	name, attached := attachment(p)
	if b.err != nil || !attached {
		return b.err == nil
	}
	b.hash.Reset()
	if _, b.err = message.Section(p.Source, p.Body).WriteTo(b.hash); b.err != nil {
		return false
	}
	b.out = append(b.out, b.upTo(p, p.HeaderRange.Off)...)
	file := slices.Concat(fileHeader(p.Header.Fields, name+hashSuffix), []byte("\r\n"), hex.AppendEncode(nil, b.hash.Sum(nil)))
	b.out = append(b.out, message.Piece{Text: file})
	b.next = p.Range().End()
	return false
}

// upTo returns what stands before end and is not yet in out.
func (b *briefing) upTo(p *message.Part, end int64) message.Content {
	if end == b.next {
		return nil
	}
	return message.Section(p.Source, message.Range{Off: b.next, Len: end - b.next})
}

// attachment reports whether p is to be replaced by its hash, and its file name.
func attachment(p *message.Part) (name string, attached bool) {
	if len(p.Children) > 0 || len(p.Header.Fields) == 0 && p.Body.Len == 0 {
		return "", false
	}
	name = p.FileName()
	switch {
	case name != "":
		return shortened(name), true
	case p.MediaType == "message/rfc822" || p.MediaType == "message/global":
		return unnamedMessage, true
	case hasEmptyName(p):
		return unnamedFile, true
	}
	return "", false
}

// hasEmptyName reports whether p, which has no file name, has a parameter for one.
func hasEmptyName(p *message.Part) bool {
	if _, named := p.Params["name"]; named {
		return true
	}
	// A Content-Disposition differs from a Content-Type only in its first word.
	var h message.Header
	for _, f := range p.Header.Fields {
		if strings.EqualFold(f.Name(), "Content-Disposition") {
			h.Fields = []message.Field{{Raw: append([]byte("Content-Type: application/"), strings.TrimSpace(f.Unfolded())...)}}
			break
		}
	}
	_, params, _ := h.MediaType() // of what cannot be read there are no parameters
	_, named := params["filename"]
	return named
}

// fileHeader returns fields with those that say what the part is exchanged for
// those of a text file, where the first of them stands. All others stay.
func fileHeader(fields []message.Field, name string) []byte {
	var out []byte
	written := false
	for _, f := range fields {
		switch strings.ToLower(f.Name()) {
		case "content-type", "content-transfer-encoding", "content-disposition":
			if !written {
				out, written = append(out, fileFields(name)...), true
			}
			continue
		}
		out = append(out, f.Raw...)
		if !strings.HasSuffix(string(f.Raw), "\n") {
			out = append(out, "\r\n"...)
		}
	}
	if !written {
		out = append(out, fileFields(name)...)
	}
	return out
}

func fileFields(name string) string {
	return "Content-Type: text/plain; charset=\"us-ascii\"" + parameter("name", name) + "\r\n" +
		"Content-Transfer-Encoding: 7bit\r\n" +
		"Content-Disposition: attachment" + parameter("filename", name) + "\r\n"
}
