package reception_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pecd/pec"
	"pecd/pec/directory"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/points/pointstest"
	"pecd/points/reception"
	"pecd/signer"
	"pecd/signer/signertest"
)

const original = "From: alice@alfa.example\r\nTo: bob@beta.example\r\nSubject: Offerta\r\nMessage-ID: <c1@alfa.example>\r\n\r\nTesto.\r\n"

const id pec.Identifier = "20261122094537000abc@alfa.example"

// event is what Alfa certifies of original.
func event() pec.Event {
	return pec.Event{At: pointstest.At, Identifier: id, MsgID: "<c1@alfa.example>", Sender: "alice@alfa.example",
		Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}, {Address: "mario@ordinary.example", Type: pec.External}},
		ReplyTo:    "alice@alfa.example", Subject: "Offerta", Error: pec.NoError}
}

func envelope(t *testing.T, p *pointstest.Provider, ev pec.Event) []byte {
	t.Helper()
	m, err := message.Read(message.Bytes(original))
	if err != nil {
		t.Fatal(err)
	}
	ev.Receipt = pec.Complete
	d, err := p.Issuer.Transport(ev, m, message.Facts{}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, p, d, err)
}

func sign(t *testing.T, p *pointstest.Provider, d issue.Draft, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Signer.Sign(d)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := s.Content().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func examine(t *testing.T, w *pointstest.World, raw []byte) reception.Found {
	t.Helper()
	m, err := message.Read(message.Bytes(raw))
	if err != nil {
		t.Fatal(err)
	}
	rep, err := w.Verifier.Verify(m, pointstest.At)
	return reception.Examine(m, rep, err, w.Directory, pointstest.At.Location())
}

func TestEnvelope(t *testing.T) {
	w := pointstest.New(t)
	f := examine(t, w, envelope(t, w.Alfa, event()))
	if f.Class != reception.Envelope {
		t.Fatalf("class %v: %v", f.Class, f.Why)
	}
	if f.Provider != w.Alfa.Record || f.Event.Identifier != id || f.Original == nil || len(f.Digest) != 64 {
		t.Errorf("found %+v", f)
	}
	for rcpt, want := range map[pec.Address]bool{"bob@beta.example": true, "bob@BETA.example": true, "BOB@beta.example": false, "bruna@beta.example": false, "mario@ordinary.example": false} {
		if f.AddressedTo(rcpt) != want {
			t.Errorf("addressed to %s: %v", rcpt, !want)
		}
	}
	if f.ForService() || len(f.Answers()) != 0 {
		t.Error("an envelope is no receipt")
	}
}

// TestClaim: what a message would be is asked of no directory, and is no less than all
// else that makes an envelope.
func TestClaim(t *testing.T) {
	w := pointstest.New(t)
	claim := func(raw []byte) reception.Found {
		t.Helper()
		m, err := message.Read(message.Bytes(raw))
		if err != nil {
			t.Fatal(err)
		}
		rep, _ := signer.NewVerifier(signertest.NewCA(t).Pool()).Verify(m, pointstest.At) // of another authority
		f, err := reception.Claim(m, rep, pointstest.At.Location())
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	raw := envelope(t, w.Alfa, event())
	found, f := examine(t, w, raw), claim(raw)
	if f.Class != reception.Envelope || f.Provider != nil || f.Basis == "" || f.Basis != found.Basis || f.Digest != found.Digest || f.Event.Identifier != id || f.Original == nil {
		t.Errorf("claimed %+v, found %+v", f, found)
	}
	d, err := w.Alfa.Issuer.Acceptance(event(), rand.Reader)
	for name, raw := range map[string][]byte{
		"a receipt":       sign(t, w.Alfa, d, err),
		"not signed":      []byte(original),
		"altered":         bytes.Replace(raw, []byte("Testo."), []byte("testo."), 1),
		"no identifier":   bytes.Replace(raw, []byte("Message-ID: <"+id), []byte("Message-ID: <x"+id), 1),
		"not so marked":   bytes.Replace(raw, []byte("X-Trasporto:"), []byte("X-Altro:"), 1),
		"two in the From": bytes.Replace(raw, []byte("From: "), []byte("From: eve@evil.example, "), 1),
	} {
		if f := claim(raw); f.Class != reception.Other || f.Basis != "" {
			t.Errorf("%s: claimed %+v", name, f)
		}
	}
	broken := &message.Part{MediaType: "multipart/mixed", Children: []*message.Part{{MediaType: "application/xml",
		Message: message.Message{Source: brokenSource{}, Body: message.Range{Len: 100}, Header: header(t, "Content-Disposition: attachment; filename=daticert.xml\r\n")}}}}
	_, err = reception.Claim(&message.Message{}, &signer.Report{SignatureHolds: true, ContentIntact: true, Entity: broken}, time.UTC)
	if err == nil {
		t.Error("a disk that fails makes another message of it")
	}
}

// TestNames: a server that looks addresses up in tables writes them in lower case, and
// some providers do.
func TestNames(t *testing.T) {
	w := pointstest.New(t)
	ev := event()
	for _, a := range []pec.Address{"Mario.Rossi@beta.example", "u@beta.example", "U@beta.example", "Elsewhere@ordinary.example"} {
		ev.Recipients = append(ev.Recipients, pec.Recipient{Address: a, Type: pec.Certified})
	}
	ev.Recipients[len(ev.Recipients)-1].Type = pec.External
	f := examine(t, w, envelope(t, w.Alfa, ev))
	if f.Class != reception.Envelope {
		t.Fatalf("class %v: %v", f.Class, f.Why)
	}
	for _, test := range []struct{ rcpts, want []pec.Address }{
		{[]pec.Address{"bob@beta.example", "bob@BETA.example"}, []pec.Address{"bob@beta.example", "bob@BETA.example"}},
		{[]pec.Address{"BOB@Beta.example", "mario.rossi@beta.example"}, []pec.Address{"bob@beta.example", "Mario.Rossi@beta.example"}},
		// Whom the envelope names himself stays himself, and nobody is named twice.
		{[]pec.Address{"mario.rossi@beta.example", "Mario.Rossi@beta.example"}, []pec.Address{"mario.rossi@beta.example", "Mario.Rossi@beta.example"}},
		{[]pec.Address{"mario.rossi@beta.example", "MARIO.rossi@beta.example"}, []pec.Address{"Mario.Rossi@beta.example", "MARIO.rossi@beta.example"}},
		{[]pec.Address{"u@beta.example", "U@beta.example"}, []pec.Address{"u@beta.example", "U@beta.example"}},
		{[]pec.Address{"bruna@beta.example", "elsewhere@ordinary.example"}, []pec.Address{"bruna@beta.example", "elsewhere@ordinary.example"}},
	} {
		if got := f.Names(test.rcpts); !slices.Equal(got, test.want) {
			t.Errorf("%q are %q, want %q", test.rcpts, got, test.want)
		}
	}
	f.Class = reception.Other
	if got := f.Names([]pec.Address{"BOB@beta.example"}); got[0] != "BOB@beta.example" {
		t.Errorf("no envelope names %q", got)
	}
}

// TestLooseFrom: what is written before the address of a receipt is not signed.
func TestLooseFrom(t *testing.T) {
	w := pointstest.New(t)
	ev := event()
	ev.Recipient, ev.Receipt = "bob@beta.example", pec.Concise
	d, err := w.Beta.Issuer.Delivery(ev, nil, false, rand.Reader)
	raw := sign(t, w.Beta, d, err)
	i := bytes.Index(raw, []byte("\r\nFrom: ")) + 2
	j := i + bytes.Index(raw[i:], []byte("\r\n"))
	for from, want := range map[string]reception.Class{
		"posta-certificata@beta.example":                                                     reception.Receipt,
		"posta-certificata@beta.example <posta-certificata@beta.example>":                    reception.Receipt,
		"a@b, posta-certificata@beta.example <posta-certificata@beta.example>":               reception.Other,
		"<a@b> posta-certificata@beta.example <posta-certificata@beta.example>":              reception.Other,
		"Per conto di: a@b <posta-certificata@beta.example>":                                 reception.Receipt,
		"a@b <posta-certificata@alfa.example>":                                               reception.Other,
		"a@b <posta-certificata@beta.example> x":                                             reception.Other,
		"a@b <>":                                                                             reception.Other,
		"a@b <posta-certificata@beta.example>\r\nFrom: a@b <posta-certificata@beta.example>": reception.Other,
	} {
		changed := slices.Concat(raw[:i], []byte("From: "+from), raw[j:])
		if f := examine(t, w, changed); f.Class != want {
			t.Errorf("From: %s: class %v, %v", from, f.Class, f.Why)
		}
	}
}

func TestReceipts(t *testing.T) {
	w := pointstest.New(t)
	delivered := func(ev pec.Event) pec.Event { ev.Recipient, ev.Receipt = "bob@beta.example", pec.Concise; return ev }
	taken := func(ev pec.Event) pec.Event { ev.Taken = []pec.Address{"bob@beta.example"}; return ev }
	failed := func(ev pec.Event) pec.Event {
		ev.Recipient, ev.Error, ev.Detail = "bob@beta.example", pec.ErrorNoDest, "5.1.1 - Beta PEC S.p.A. - indirizzo non valido"
		return ev
	}
	make := func(p *pointstest.Provider, kind pec.Kind) []byte {
		var d issue.Draft
		var err error
		switch kind {
		case pec.KindAcceptance:
			d, err = p.Issuer.Acceptance(event(), rand.Reader)
		case pec.KindTakeCharge:
			d, err = p.Issuer.TakeCharge(taken(event()), "ricevute@alfa.example", rand.Reader)
		case pec.KindDelivery:
			d, err = p.Issuer.Delivery(delivered(event()), nil, false, rand.Reader)
		case pec.KindNonDelivery:
			d, err = p.Issuer.NonDelivery(failed(event()), rand.Reader)
		}
		return sign(t, p, d, err)
	}
	tests := []struct {
		name    string
		by      *pointstest.Provider
		kind    pec.Kind
		class   reception.Class
		answers int
		service bool
	}{
		{"acceptance by the sender's", w.Alfa, pec.KindAcceptance, reception.Receipt, 0, false},
		{"acceptance by another", w.Beta, pec.KindAcceptance, reception.Other, 0, false},
		{"take charge by the recipient's", w.Beta, pec.KindTakeCharge, reception.Receipt, 1, true},
		{"take charge by another", w.Alfa, pec.KindTakeCharge, reception.Other, 0, false},
		{"delivery by the recipient's", w.Beta, pec.KindDelivery, reception.Receipt, 1, false},
		{"delivery by another", w.Alfa, pec.KindDelivery, reception.Other, 0, false},
		{"non-delivery by the recipient's", w.Beta, pec.KindNonDelivery, reception.Receipt, 1, false},
		{"non-delivery by the sender's", w.Alfa, pec.KindNonDelivery, reception.Receipt, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := examine(t, w, make(tt.by, tt.kind))
			if f.Class != tt.class {
				t.Fatalf("class %v (%v), want %v", f.Class, f.Why, tt.class)
			}
			if len(f.Answers()) != tt.answers || f.ForService() != tt.service {
				t.Errorf("answers %v, for service %v", f.Answers(), f.ForService())
			}
			if tt.class == reception.Other && !errors.Is(f.Why, reception.ErrForeignDomain) {
				t.Errorf("why: %v", f.Why)
			}
		})
	}
}

// TestNeither gives genuine messages that something is wrong with.
func TestNeither(t *testing.T) {
	w := pointstest.New(t)
	foreign := &pointstest.Provider{Issuer: w.Alfa.Issuer}
	foreign.Signer = signer.NewSigner(signertest.NewCA(t).Identity(t, "Alfa PEC S.p.A.", "posta-certificata@alfa.example").Identity)
	unlisted := &pointstest.Provider{Issuer: w.Alfa.Issuer}
	unlisted.Signer = signer.NewSigner(w.CA.Identity(t, "Alfa PEC S.p.A.", "posta-certificata@alfa.example").Identity)
	good := envelope(t, w.Alfa, event())
	edit := func(old, new string) []byte {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("%q is not in the envelope", old)
		}
		return bytes.Replace(good, []byte(old), []byte(new), 1)
	}
	stranger := event()
	stranger.Sender = "bob@beta.example"
	tests := []struct {
		name string
		raw  []byte
		why  error
	}{
		{"ordinary mail", []byte(original), signer.ErrNoSignature},
		{"one octet of the original changed", edit("Testo.", "Tasto."), signer.ErrAltered},
		{"one octet of the text changed", edit("certificata\r\nIl giorno", "certificate\r\nIl giorno"), signer.ErrAltered},
		{"foreign CA", envelope(t, foreign, event()), signer.ErrUntrusted},
		{"certificate not in the directory", envelope(t, unlisted, event()), reception.ErrUnknownCertificate},
		{"From of another provider", edit("<posta-certificata@alfa.example>", "<posta-certificata@beta.example>"), reception.ErrForeignDomain},
		{"sender of another provider", envelope(t, w.Alfa, stranger), reception.ErrForeignDomain},
		{"header says receipt", edit("X-Trasporto: posta-certificata", "X-Ricevuta: accettazione"), reception.ErrInconsistent},
		{"header says both", edit("X-Trasporto:", "X-Ricevuta: accettazione\r\nX-Trasporto:"), reception.ErrInconsistent},
		{"header says anomaly", edit("X-Trasporto: posta-certificata", "X-Trasporto: errore"), reception.ErrInconsistent},
		{"other Message-ID", edit("Message-ID: <"+string(id), "Message-ID: <x"+string(id)), reception.ErrInconsistent},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := examine(t, w, tt.raw)
			if f.Class != reception.Other || !errors.Is(f.Why, tt.why) {
				t.Errorf("class %v, why %v; want %v", f.Class, f.Why, tt.why)
			}
			if strings.Contains(f.Why.Error(), "@") {
				t.Errorf("the log would hold an address: %v", f.Why)
			}
		})
	}
}

// TestEveryOctetCounts changes octets all over the signed part.
func TestEveryOctetCounts(t *testing.T) {
	w := pointstest.New(t)
	good := envelope(t, w.Alfa, event())
	start := bytes.Index(good, []byte("Content-Type: multipart/mixed"))
	end := bytes.LastIndex(good, []byte("Content-Type: application/pkcs7-signature"))
	end = bytes.LastIndex(good[:end], []byte("\r\n--"))
	for i := start; i < end; i += 13 {
		raw := bytes.Clone(good)
		raw[i] ^= 1
		if f := examine(t, w, raw); f.Class != reception.Other {
			t.Errorf("octet %d (%q) changed, still %v", i-start, strings.ToValidUTF8(string(good[i:i+1]), "?"), f.Class)
		}
	}
}

// TestSecondaryEnvironment: a provider's environments may share a certificate;
// each record's domains are the provider's (RFC 6109, 4.5.7).
func TestSecondaryEnvironment(t *testing.T) {
	w := pointstest.New(t)
	unit := directory.Provider{Name: "Alfa PEC S.p.A.", Unit: "Enti", Certificates: w.Alfa.Record.Certificates,
		ServiceMailbox: "ricevute@enti.example", Domains: []string{"enti.example"}}
	var ldif bytes.Buffer
	if err := directory.Marshal(&ldif, []directory.Provider{*w.Alfa.Record, unit, *w.Beta.Record}); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.Directory, err = directory.Parse(ldif.Bytes()); err != nil {
		t.Fatal(err)
	}
	ev := event()
	ev.Sender = "sindaco@enti.example"
	f := examine(t, w, envelope(t, w.Alfa, ev))
	if f.Class != reception.Envelope || f.Provider.Unit != "" || f.Provider.ServiceMailbox != "ricevute@alfa.example" {
		t.Errorf("class %v (%v), provider %+v", f.Class, f.Why, f.Provider)
	}
	ev.Sender = "sindaco@comune.example"
	if f := examine(t, w, envelope(t, w.Alfa, ev)); f.Class != reception.Other {
		t.Errorf("a sender whose domain nobody manages: %v", f.Class)
	}
}
