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
