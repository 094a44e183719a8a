package message

import (
	"fmt"
	"io"
	"strings"
)

// FileName returns the file name of p as people read it: that of the
// Content-Disposition (RFC 2183, 2.3), else the name of the Content-Type. It is
// what the sender wrote and safe for nothing but comparing and showing.
func (p *Part) FileName() string {
	if v := p.Header.Get("Content-Disposition"); v != "" {
		if name, ok := plainFileName(v); ok {
			return readable(name)
		}
		if _, params := parseMedia(v); params["filename"] != "" {
			return readable(params["filename"])
		}
	}
	return readable(p.Params["name"])
}

// Walk calls f with p and what is in it, depth first. Where f is false the
// children are left out.
func (p *Part) Walk(f func(*Part) bool) {
	if !f(p) {
		return
	}
	for _, c := range p.Children {
		c.Walk(f)
	}
}

// encoding returns the Content-Transfer-Encoding in lower case.
func (p *Part) encoding() string {
	v := p.Header.Get("Content-Transfer-Encoding")
	if i := strings.IndexAny(v, " \t;("); i >= 0 {
		v = v[:i]
	}
	return strings.ToLower(strings.Trim(v, `"`))
}

// Decoded returns a reader over the body with its transfer encoding undone. It
// takes what it can make sense of and fails only with the source; an unknown
// encoding is none.
func (p *Part) Decoded() io.Reader {
	body := io.NewSectionReader(p.Source, p.Body.Off, p.Body.Len)
	switch p.encoding() {
	case "base64":
		return newBase64Reader(body)
	case "quoted-printable":
		return newQuotedReader(body)
	}
	return body
}

// Embedded returns the message in p, a message/rfc822 that is not encoded: only
// then it is bytes of the source. Anything else is ErrMalformed.
func (p *Part) Embedded() (*Message, error) {
	if p.MediaType != "message/rfc822" {
		return nil, fmt.Errorf("%w: no message in %.100s", ErrMalformed, p.MediaType)
	}
	switch p.encoding() {
	case "", "7bit", "8bit", "binary":
		return ReadRange(p.Source, p.Body)
	}
	return nil, fmt.Errorf("%w: encoded message", ErrMalformed)
}
