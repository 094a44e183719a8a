package logstore

import (
	"bytes"
	"testing"
	"time"
	"unicode/utf8"

	"pecd/pec"
)

// What is derived when an entry is written is what is derived when it is read back,
// whatever octets it was made of: else Verify would tell what nobody did.
func FuzzRecordDerived(f *testing.F) {
	f.Add("1@alfa.example", "<a&b@client>", "Bob@beta.example", "avvenuta-consegna", "\u2028")
	f.Add("\xff", "<\xfe\xff@client> ", "ÀÈ\x80@Beta.example", "\xc3\x28", "")
	f.Add("", " <> ", "K@İ.example", "k", "\x00\n\"\\")
	f.Fuzz(func(t *testing.T, id, msgID, address, kind, text string) {
		r := newRecord(Entry{
			Seq: 7, At: time.Unix(1, 2), Type: EntryType(kind), Identifier: pec.Identifier(id), MsgID: msgID, Sender: pec.Address(address),
			Recipients: []pec.Recipient{{Address: pec.Address(text)}}, Taken: []pec.Address{pec.Address(msgID)}, Messages: []string{id, text},
		}, []Key{{Kind: kind, Origin: text, Identifier: pec.Identifier(id), Recipient: pec.Address(address)}, {Kind: kind, Identifier: pec.Identifier(text)}})
		line, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny(line, "\n\r") || !utf8.Valid(line) {
			t.Errorf("the record %q is not one line of text", line)
		}
		back, err := decodeRecord(line)
		if err != nil {
			t.Fatal(err)
		}
		for table, want := range r.tuples(7) {
			got := back.tuples(7)[table]
			if len(got) != len(want) {
				t.Fatalf("%s: %v is read back as %v", derived[table].name, want, got)
			}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("%s: %v is read back as %v", derived[table].name, want[i], got[i])
				}
			}
		}
		if valid(kind) != string(back.Type) || valid(id) != string(back.Identifier) {
			t.Errorf("type %q, identifier %q are read back as %q, %q", kind, id, back.Type, back.Identifier)
		}
	})
}

// What the chain adds to an entry, and the JSON that was there before.
func BenchmarkRecord(b *testing.B) {
	r := scaleMessage(1)[0]
	line, err := r.encode()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("chain", func(b *testing.B) {
		b.ReportAllocs()
		var d Digest
		for range b.N {
			d = d.Next(line)
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if _, err := r.encode(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
