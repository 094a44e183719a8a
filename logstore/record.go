package logstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"pecd/pec"
)

// A record is an entry as the register stores it, with what else follows from
// it. Its JSON is one line, and the one truth: the columns of the entry and the
// tables by which it is found are derived from it. The order of the members is
// that of the fields here, without spaces; nothing is escaped that JSON does not
// require but U+2028 and U+2029; an octet that is not UTF-8 is written \ufffd. Records of
// before the chain escape <, > and & too.
type record struct {
	Entry
	// Keys are the keys of the act, which is certified once.
	Keys []recordKey `json:"keys,omitempty"`
	// Purge is set in the entry that removes the oldest entries.
	Purge *recordPurge `json:"purge,omitempty"`
}

// A recordKey is a Key as the table issued has it: its recipient is in the form
// of pec.Address.Key.
type recordKey struct {
	Kind   string `json:"kind"`
	Origin string `json:"origin,omitempty"`
	// Identifier is nil if it is that of the entry.
	Identifier *pec.Identifier `json:"identifier,omitempty"`
	Recipient  string          `json:"recipient,omitempty"`
}

// A recordPurge says which entries went, and how the chain stood there.
type recordPurge struct {
	Through int64  `json:"through"`
	Chain   Digest `json:"chain"`
	// Proof is the SHA-256 digest of what proves that they were archived.
	Proof Digest `json:"proof"`
}

// newRecord returns the record of an act; a key that it names twice counts once.
func newRecord(e Entry, keys []Key) record {
	r := record{Entry: e}
	known := make(map[Key]bool, len(keys))
	for _, k := range keys {
		rk := recordKey{Kind: k.Kind, Origin: k.Origin, Recipient: k.Recipient.Key()}
		k.Recipient = pec.Address(rk.Recipient)
		if known[k] {
			continue
		}
		known[k] = true
		if k.Identifier != e.Identifier {
			rk.Identifier = &k.Identifier
		}
		r.Keys = append(r.Keys, rk)
	}
	return r
}

// encode returns the line, without its end.
func (r record) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // so that Message-IDs are read as they are
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if b.Len() > maxRecord {
		return nil, fmt.Errorf("%w: an entry of %d octets", ErrInvalid, b.Len())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// maxRecord bounds a record, in octets: 100,000 recipients fit.
const maxRecord = 16 << 20

func decodeRecord(line []byte) (record, error) {
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return record{}, fmt.Errorf("an entry cannot be read: %w", err)
	}
	return r, nil
}

// An issuedRow is a row of the table issued, without its entry.
type issuedRow struct{ identifier, kind, origin, recipient string }

// issued returns the rows of the keys, each once.
func (r record) issued() []issuedRow {
	rows, known := make([]issuedRow, 0, len(r.Keys)), make(map[issuedRow]bool, len(r.Keys))
	for _, k := range r.Keys {
		id := r.Identifier
		if k.Identifier != nil {
			id = *k.Identifier
		}
		row := issuedRow{valid(string(id)), valid(k.Kind), valid(k.Origin), valid(k.Recipient)}
		if !known[row] { // two may differ in octets that are no text
			known[row], rows = true, append(rows, row)
		}
	}
	return rows
}

// valid returns s as it is read back from a record.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

// foldAll returns the form in which addresses are searched: whoever looks for
// one does not know how it was spelled.
func foldAll(a pec.Address) string { return strings.ToLower(valid(string(a))) }

// addresses returns all addresses of e as they are searched, each once.
func (e Entry) addresses() []string {
	var s set
	s.add(foldAll(e.Sender))
	s.add(foldAll(e.Recipient))
	for _, r := range e.Recipients {
		s.add(foldAll(r.Address))
	}
	for _, a := range e.Taken {
		s.add(foldAll(a))
	}
	return s.list
}

// messageIDs returns all Message-IDs of e without brackets, each once.
func (e Entry) messageIDs() []string {
	var s set
	s.add(bareID(e.MsgID))
	for _, id := range e.Messages {
		s.add(bareID(id))
	}
	return s.list
}

// bareID returns a Message-ID without its angle brackets.
func bareID(id string) string {
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(valid(id)), "<"), ">")
}

// A set keeps strings that are not empty, each once, in their order.
type set struct {
	seen map[string]bool
	list []string
}

func (s *set) add(v string) {
	if v == "" || s.has(v) {
		return
	}
	if len(s.list) == setScan {
		s.seen = map[string]bool{}
		for _, l := range s.list {
			s.seen[l] = true
		}
	}
	if s.seen != nil {
		s.seen[v] = true
	}
	s.list = append(s.list, v)
}

// setScan is up to how many strings a set is searched without a map, which most
// entries do not need.
const setScan = 8

func (s *set) has(v string) bool {
	if s.seen != nil {
		return s.seen[v]
	}
	for _, l := range s.list {
		if l == v {
			return true
		}
	}
	return false
}
