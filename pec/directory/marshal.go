package directory

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
)

// column is where Marshal folds lines.
const column = 76

// Marshal writes ps as an LDIF file with the record o=postacert before them,
// LF line ends, folded, values that LDIF does not take as they stand in base64.
// Where Hashes is empty it is filled in from the certificates. What Parse would
// refuse is refused.
func Marshal(w io.Writer, ps []Provider) error {
	ps, err := prepare(ps)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	out.WriteString("version: 1\n\n") // bufio keeps the first error for Flush
	writeAttribute(out, "dn", "o=postacert")
	writeAttribute(out, "objectclass", "top")
	writeAttribute(out, "objectclass", "organization")
	writeAttribute(out, "o", "postacert")
	for i := range ps {
		writeProvider(out, &ps[i])
	}
	return out.Flush()
}

// prepare returns ps with all hashes, checked as a directory.
func prepare(ps []Provider) ([]Provider, error) {
	d := newDirectory()
	whole := make([]Provider, len(ps))
	for i, p := range ps {
		if len(p.Hashes) == 0 {
			for _, der := range p.Certificates {
				p.Hashes = append(p.Hashes, hashOf(der))
			}
		}
		whole[i] = p
		err := p.check()
		if err == nil {
			err = checkText(p.Name + p.Unit + p.LDIFLocationURL)
		}
		if err == nil {
			err = d.addProvider(&whole[i])
		}
		if err != nil {
			return nil, fmt.Errorf("%w: provider %q: %w", ErrSchema, p.title(), err)
		}
	}
	return whole, d.checkUnits()
}

func writeProvider(w *bufio.Writer, p *Provider) {
	dn := "providerName=" + escapeDN(p.Name) + ",o=postacert"
	if p.Unit != "" {
		dn = "providerUnit=" + escapeDN(p.Unit) + "," + dn
	}
	w.WriteByte('\n')
	writeAttribute(w, "dn", dn)
	writeAttribute(w, "objectclass", "top")
	writeAttribute(w, "objectclass", "provider")
	writeAttribute(w, "providerName", p.Name)
	if p.Unit != "" {
		writeAttribute(w, "providerUnit", p.Unit)
	}
	for _, h := range p.Hashes {
		writeAttribute(w, "providerCertificateHash", h)
	}
	for _, der := range p.Certificates {
		writeFolded(w, "providerCertificate;binary:: "+base64.StdEncoding.EncodeToString(der))
	}
	writeAttribute(w, "mailReceipt", string(p.ServiceMailbox))
	if p.LDIFLocationURL != "" {
		writeAttribute(w, "LDIFLocationURL", p.LDIFLocationURL)
	}
	for _, d := range p.Domains {
		writeAttribute(w, "managedDomains", d)
	}
	if p.Description != "" {
		writeAttribute(w, "description", p.Description)
	}
}

func writeAttribute(w *bufio.Writer, name, value string) {
	if safeString(value) {
		writeFolded(w, name+": "+value)
		return
	}
	writeFolded(w, name+":: "+base64.StdEncoding.EncodeToString([]byte(value)))
}

// safeString is SAFE-STRING of RFC 2849, without a blank at its end.
func safeString(s string) bool {
	if s == "" {
		return true
	}
	if strings.IndexByte(" :<", s[0]) >= 0 || s[len(s)-1] == ' ' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

func writeFolded(w *bufio.Writer, line string) {
	for len(line) > column {
		w.WriteString(line[:column] + "\n ")
		line = line[column:]
	}
	w.WriteString(line + "\n")
}

// escapeDN escapes the value of a relative distinguished name; RFC 4514, 2.4.
func escapeDN(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		edge := i == 0 && (c == ' ' || c == '#') || i == len(s)-1 && c == ' '
		if edge || strings.IndexByte(`,+"\<>;=`, c) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}
