package issue

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"

	"pecd/pec"
	"pecd/pec/daticert"
	"pecd/pec/message"
)

// newBoundary returns a boundary of 160 random bits. Quoted-printable never has
// "=_" in it, base64 neither; RFC 2045, 6.7.
func newBoundary(rnd io.Reader) (string, error) {
	s, err := random(20, rnd)
	return "=_" + s, err
}

// fill makes the entity of d, which has its header: the text of m for shown,
// daticert.xml and, if there is one, the original; RFC 6109, 4.3. The original is
// not copied.
func (d *Draft) fill(m model, shown pec.Event, original message.Content, rnd io.Reader) error {
	var boundaries [3]string
	for i := range boundaries {
		var err error
		if boundaries[i], err = newBoundary(rnd); err != nil {
			return err
		}
	}
	d.Boundary = boundaries[0]
	mixed, alternative := boundaries[1], boundaries[2]
	xml, err := certificationData(d.Event)
	if err != nil {
		return err
	}
	if err := fits(d.Header); err != nil {
		return err
	}

	var w bytes.Buffer
	w.WriteString("Content-Type: multipart/mixed; boundary=\"" + mixed + "\"\r\n")
	encoding := "7bit"
	if d.EightBit {
		// A composite part must declare what is inside it; RFC 2045, 6.4.
		encoding = "8bit"
		w.WriteString("Content-Transfer-Encoding: 8bit\r\n")
	}
	if d.Register != "" {
		if !fitsField(d.Register) {
			return unfit("register %q", d.Register)
		}
		w.WriteString(pec.HeaderRegister + ": " + d.Register + "\r\n")
	}
	if d.Duplicate != nil {
		w.WriteString(pec.HeaderDuplicate + ": " + d.Duplicate.Mark() + "\r\n")
	}
	w.WriteString("\r\n--" + mixed + "\r\n")
	if err := writeTexts(&w, m, shown, alternative); err != nil {
		return err
	}
	if xml != nil {
		w.WriteString("\r\n--" + mixed + "\r\n")
		writeData(&w, xml)
	}
	if original != nil {
		w.WriteString("\r\n--" + mixed + "\r\n")
		writePartHeader(&w, "message/rfc822", pec.OriginalName, encoding)
	}
	d.Entity = append(message.Text(w.Bytes()), original...)
	d.Entity = append(d.Entity, message.Piece{Text: []byte("\r\n--" + mixed + "--\r\n")})
	return nil
}

// certificationData returns daticert.xml; nil for an anomaly envelope, which
// certifies nothing and must not have it (RFC 6109, 3.2.2).
func certificationData(ev pec.Event) ([]byte, error) {
	if ev.Kind == pec.KindAnomaly {
		return nil, nil
	}
	xml, err := daticert.Marshal(ev)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEvent, err)
	}
	return xml, nil
}

// Limits of a header of ours: less than package message reads, which counts the
// MIME fields too.
const (
	maxHeader = 1<<20 - 4<<10 // octets
	maxFields = 10000 - 10
)

// fits returns nil if block can be read again as a header. What it inherits, and
// the subject, may be of any length.
func fits(block []byte) error {
	fields := 0
	for line := range bytes.Lines(block) {
		if line[0] != ' ' && line[0] != '\t' {
			fields++
		}
	}
	if len(block) > maxHeader || fields > maxFields {
		return unfit("header of %d octets in %d fields", len(block), fields)
	}
	return nil
}

// writePartHeader writes the header of a named part with the empty line.
func writePartHeader(w *bytes.Buffer, mediaType, name, encoding string) {
	fmt.Fprintf(w, "Content-Type: %s; name=%q\r\n", mediaType, name)
	fmt.Fprintf(w, "Content-Transfer-Encoding: %s\r\n", encoding)
	fmt.Fprintf(w, "Content-Disposition: inline; filename=%q\r\n\r\n", name)
}

// writeTexts writes the multipart/alternative.
func writeTexts(w *bytes.Buffer, m model, ev pec.Event, boundary string) error {
	plain, err := m.plain(ev)
	if err != nil {
		return err
	}
	html, err := m.html(ev)
	if err != nil {
		return err
	}
	w.WriteString("Content-Type: multipart/alternative; boundary=\"" + boundary + "\"\r\n\r\n")
	for _, part := range []struct{ subtype, text string }{{"plain", plain}, {"html", html}} {
		w.WriteString("--" + boundary + "\r\n" +
			"Content-Type: text/" + part.subtype + "; charset=\"iso-8859-1\"\r\n" +
			"Content-Transfer-Encoding: quoted-printable\r\n" +
			"Content-Disposition: inline\r\n\r\n")
		if err := writeQuoted(w, part.text); err != nil {
			return err
		}
		w.WriteString("\r\n")
	}
	w.WriteString("--" + boundary + "--\r\n")
	return nil
}

// writeQuoted writes text, whose lines end in LF, as ISO-8859-1 in
// quoted-printable, with CRLF.
func writeQuoted(w *bytes.Buffer, text string) error {
	b := make([]byte, 0, len(text))
	for _, r := range text {
		if r > 0xff {
			return fmt.Errorf("issue: %q is not in ISO-8859-1", r)
		}
		b = append(b, byte(r))
	}
	q := quotedprintable.NewWriter(w)
	_, err := q.Write(b)
	return errors.Join(err, q.Close())
}

// writeData writes the part daticert.xml.
func writeData(w *bytes.Buffer, xml []byte) {
	writePartHeader(w, "application/xml", pec.CertificationDataName, "base64")
	const columns = 76
	for s := base64.StdEncoding.EncodeToString(xml); s != ""; {
		n := min(columns, len(s))
		w.WriteString(s[:n] + "\r\n")
		s = s[n:]
	}
}
