package daticert

import (
	"errors"
	"testing"
	"time"

	"pecd/pec"
)

// FuzzParse: what parses can be written again, and means the same; what is read
// quickly is read as it would be slowly.
func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(`<!DOCTYPE postacert SYSTEM "d"><postacert tipo="rilevazione-virus">`))
	for _, ev := range events() {
		data, err := Marshal(ev)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		readBoth(t, data)
		ev, err := Parse(data, nil)
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrLimit) {
				t.Fatalf("error without a sentinel: %v", err)
			}
			return
		}
		written, err := Marshal(ev)
		if errors.Is(err, ErrLimit) {
			return // escaping and spelling out defaults makes it longer
		}
		if err != nil {
			t.Fatalf("%v from %+v", err, ev)
		}
		again, err := Parse(written, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, written)
		}
		sameEvent(t, again, ev)
	})
}

// FuzzMarshal: what is written can be read, whatever the event holds.
func FuzzMarshal(f *testing.F) {
	f.Add("accettazione", int64(1941087903), 7200, "Alfa", "id@alfa.example", "<m@a>", "a@b", "c@d", "", "è", "breve", "", "", "nessuno", "")
	f.Add("rilevazione-virus", int64(0), -60, "A", "i", "", "a", "b", "]]>", "&\x00\xff", "", "", "t", "virus", "<")
	f.Fuzz(func(t *testing.T, kind string, at int64, offset int, provider, id, msgid, sender, rcpt, reply,
		subject, receipt, recipient, taken, code, detail string) {
		ev := pec.Event{
			Kind: pec.Kind(kind), At: time.Unix(at, 5).In(time.FixedZone("", offset%100000)),
			Provider: provider, Identifier: pec.Identifier(id), MsgID: msgid, Sender: pec.Address(sender),
			Recipients: []pec.Recipient{{Address: pec.Address(rcpt), Type: pec.External}},
			ReplyTo:    reply, Subject: subject, Receipt: pec.ReceiptType(receipt),
			Recipient: pec.Address(recipient), Error: pec.ErrorCode(code), Detail: detail,
		}
		if taken != "" {
			ev.Taken = []pec.Address{pec.Address(taken)}
		}
		data, err := Marshal(ev)
		if err != nil {
			return
		}
		got, err := Parse(data, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, data)
		}
		sameEvent(t, got, Normal(ev))
	})
}

func BenchmarkMarshal(b *testing.B) {
	ev := event(pec.KindDelivery)
	for b.Loop() {
		if _, err := Marshal(ev); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	own, err := Marshal(event(pec.KindDelivery))
	if err != nil {
		b.Fatal(err)
	}
	for name, data := range map[string][]byte{"own": own, "another's": []byte(sample)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(data, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
