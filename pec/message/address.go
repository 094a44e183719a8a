package message

import (
	"fmt"
	"io"
	"mime"
	"net/mail"
	"strings"

	"golang.org/x/text/encoding/charmap"

	"pecd/pec"
)

// Addresses returns the addr-specs of all fields of that name, in their order,
// those in groups too. A field without a value has none. The error says that a
// field is not an address list (RFC 5322, 3.4); it wraps ErrMalformed. Bare
// 8-bit display names are let pass.
func (h *Header) Addresses(name string) ([]pec.Address, error) {
	var list []pec.Address
	for _, value := range h.Values(name) {
		if value == "" {
			continue
		}
		if a, ok := plainAddress(value); ok {
			list = append(list, a)
			continue
		}
		found, err := addresses.ParseList(toUTF8(value))
		if err != nil {
			return nil, fmt.Errorf("%w: field %s: %.200s", ErrMalformed, name, err)
		}
		for _, a := range found {
			list = append(list, addrSpec(a))
		}
	}
	return list, nil
}

// plainAddress reads the form that nearly all values with one address have,
// quickly: an addr-spec of two dot-atoms, or that in angle brackets behind a
// quoted name.
func plainAddress(value string) (pec.Address, bool) {
	if n := plainQuoted(value); n > 0 {
		inner, open := strings.CutPrefix(value[n:], " <")
		inner, closed := strings.CutSuffix(inner, ">")
		if !open || !closed {
			return "", false
		}
		value = inner
	}
	local, domain, _ := strings.Cut(value, "@")
	return pec.Address(value), isDotAtom(local) && isDotAtom(domain)
}

// isDotAtom reports whether s is a dot-atom of letters, digits and a few signs.
func isDotAtom(s string) bool {
	return s != "" && plainToken(s) == len(s) && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..")
}

// addresses reads display names only to get past them.
var addresses = mail.AddressParser{WordDecoder: &mime.WordDecoder{
	CharsetReader: func(_ string, in io.Reader) (io.Reader, error) {
		return charmap.Windows1252.NewDecoder().Reader(in), nil
	},
}}

// addrSpec puts the quotes of a local part back, which net/mail takes away.
func addrSpec(a *mail.Address) pec.Address {
	s := (&mail.Address{Address: a.Address}).String()
	return pec.Address(strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">"))
}
