package main

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strings"
)

// This file reads messages with Go's standard library alone, not with pecd's own
// packages: what the demo shows is seen with other eyes than those that wrote it.

// A system is a message of certified mail as a stranger reads it.
type system struct {
	raw      []byte
	header   mail.Header
	kind     string // value of X-Ricevuta, or of X-Trasporto for an envelope; "" if neither
	text     string // what people read
	data     certification
	original []byte // postacert.eml; nil if there is none
}

// certification is what the demo needs of daticert.xml.
type certification struct {
	Kind       string `xml:"tipo,attr"`
	Recipients []struct {
		Type    string `xml:"tipo,attr"`
		Address string `xml:",chardata"`
	} `xml:"intestazione>destinatari"`
	Provider   string   `xml:"dati>gestore-emittente"`
	Identifier string   `xml:"dati>identificativo"`
	MsgID      string   `xml:"dati>msgid"`
	Delivered  string   `xml:"dati>consegna"`
	Taken      []string `xml:"dati>ricezione"`
}

func readSystem(raw []byte) (*system, error) {
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	s := &system{raw: raw, header: m.Header}
	if s.kind = m.Header.Get("X-Ricevuta"); s.kind == "" {
		s.kind = m.Header.Get("X-Trasporto")
	}
	if s.kind == "" {
		return s, nil
	}
	if err := s.parts(m.Header.Get("Content-Type"), m.Body); err != nil {
		return nil, fmt.Errorf("%s: %w", s.kind, err)
	}
	if s.data.Identifier == "" {
		return nil, fmt.Errorf("%s: no certification data", s.kind)
	}
	return s, nil
}

// parts walks a multipart and keeps what is known.
func (s *system) parts(contentType string, body io.Reader) error {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return err
	}
	r := multipart.NewReader(body, params["boundary"])
	for {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.part(p); err != nil {
			return err
		}
	}
}

func (s *system) part(p *multipart.Part) error {
	mediaType, params, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	switch {
	case strings.HasPrefix(mediaType, "multipart/"):
		return s.parts(p.Header.Get("Content-Type"), p)
	case mediaType == "text/plain" && s.text == "":
		s.text, err = latin1(quotedprintable.NewReader(p))
	case mediaType == "application/xml" && params["name"] == "daticert.xml":
		err = xml.NewDecoder(base64.NewDecoder(base64.StdEncoding, p)).Decode(&s.data)
	case mediaType == "message/rfc822" && params["name"] == "postacert.eml":
		s.original, err = io.ReadAll(p)
	}
	return err
}

// latin1 reads iso-8859-1, in which the texts are written.
func latin1(r io.Reader) (string, error) {
	b, err := io.ReadAll(r)
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return strings.ReplaceAll(string(runes), "\r\n", "\n"), err
}

// name is what the kind is called in English; RFC 6109, 3.
func (s *system) name() string {
	names := map[string]string{
		"posta-certificata": "transport envelope",
		"accettazione":      "acceptance receipt",
		"presa-in-carico":   "take-charge receipt",
		"avvenuta-consegna": "delivery receipt",
	}
	if n, ok := names[s.kind]; ok {
		return n
	}
	return "unexpected: " + s.kind
}

// concerns says for whom a message speaks, where that is fewer than all.
func (s *system) concerns() string {
	if s.data.Delivered != "" {
		return s.data.Delivered
	}
	return strings.Join(s.data.Taken, ", ")
}

// sameOriginal compares what was sent with what arrived in postacert.eml, octet
// for octet but for the two header fields that the rules change (RFC 6109,
// 2.2.1): Message-ID and X-Riferimento-Message-ID.
func sameOriginal(sent, arrived []byte, identifier string) error {
	wantID, want := setAside(sent)
	gotID, got := setAside(arrived)
	if !bytes.Equal(want, got) {
		return fmt.Errorf("postacert.eml is not what was sent: %s", difference(want, got))
	}
	if id := gotID["message-id"]; id != "<"+identifier+">" {
		return fmt.Errorf("Message-ID of postacert.eml is %q, not the identifier", id)
	}
	if ref := gotID["x-riferimento-message-id"]; ref != wantID["message-id"] {
		return fmt.Errorf("X-Riferimento-Message-ID of postacert.eml is %q, not the client's %q", ref, wantID["message-id"])
	}
	return nil
}

// setAside takes the two fields out of a message's header.
func setAside(raw []byte) (fields map[string]string, rest []byte) {
	fields = map[string]string{}
	skipping := false
	for len(raw) > 0 {
		n := bytes.IndexByte(raw, '\n') + 1
		if n == 0 {
			n = len(raw)
		}
		row := raw[:n]
		if len(bytes.TrimRight(row, "\r\n")) == 0 {
			break
		}
		raw = raw[n:]
		if row[0] != ' ' && row[0] != '\t' {
			name, value, _ := strings.Cut(string(row), ":")
			name = strings.ToLower(strings.TrimSpace(name))
			if skipping = name == "message-id" || name == "x-riferimento-message-id"; skipping {
				fields[name] = strings.TrimSpace(value)
			}
		}
		if !skipping {
			rest = append(rest, row...)
		}
	}
	return fields, append(rest, raw...)
}

func difference(a, b []byte) string {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	end := func(s []byte) []byte { return s[min(i, len(s)):min(i+40, len(s))] }
	return fmt.Sprintf("at octet %d %q was sent and %q arrived", i, end(a), end(b))
}
