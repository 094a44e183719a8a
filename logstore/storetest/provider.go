// Package storetest holds what a logstore.Store must do, as tests that every
// implementation runs, and makes real signed messages to put into stores.
package storetest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/signer"
	"pecd/signer/signertest"
)

// At is the instant of the events of NewEvent.
var At = time.Date(2031, 7, 4, 9, 5, 3, 0, time.FixedZone("CEST", 2*3600))

// A Provider issues and signs messages with a throw-away identity. It may be
// used concurrently.
type Provider struct {
	issuer issue.Issuer
	signer *signer.Signer

	mu  sync.Mutex
	rnd *rand.ChaCha8 // guarded by mu
}

// NewProvider returns the provider Alfa, whose users are in alfa.example.
func NewProvider(t testing.TB) *Provider {
	t.Helper()
	const address = "posta-certificata@alfa.example"
	return &Provider{
		issuer: issue.Issuer{Name: "Alfa PEC", Address: address},
		signer: signer.NewSigner(signertest.NewCA(t).Identity(t, "Alfa PEC", address).Identity),
		rnd:    rand.NewChaCha8([32]byte{1}),
	}
}

// Read implements io.Reader with randomness that is none.
func (p *Provider) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rnd.Read(b)
}

// NewEvent returns an event about a new message of alice@alfa.example to the
// certified recipients.
func (p *Provider) NewEvent(t testing.TB, recipients ...pec.Address) pec.Event {
	t.Helper()
	id, err := issue.NewIdentifier(At, "alfa.example", p)
	if err != nil {
		t.Fatal(err)
	}
	ev := pec.Event{
		At: At, Provider: p.issuer.Name, Identifier: id, MsgID: fmt.Sprintf("<client.%s>", id),
		Sender: "alice@alfa.example", Subject: "Prova d'invio", Receipt: pec.Complete, Error: pec.NoError,
	}
	for _, r := range recipients {
		ev.Recipients = append(ev.Recipients, pec.Recipient{Address: r, Type: pec.Certified})
	}
	return ev
}

// Original returns a message of about size octets as a client sends it.
func Original(ev pec.Event, size int) string {
	const line = "Una riga del messaggio, con un punto alla fine.\r\n.una riga che comincia con un punto\r\n"
	var b strings.Builder
	fmt.Fprintf(&b, "From: %s\r\nTo: %s\r\nSubject: Prova\r\nMessage-ID: %s\r\n\r\n", ev.Sender, ev.Recipients[0].Address, ev.MsgID)
	for b.Len() < size {
		b.WriteString(line)
	}
	return b.String()
}

// Transport returns the transport envelope of original for ev.
func (p *Provider) Transport(t testing.TB, ev pec.Event, original message.Source) *signer.Signed {
	t.Helper()
	m, err := message.Read(original)
	if err != nil {
		t.Fatal(err)
	}
	facts, err := message.ScanContent(message.Section(original, message.Range{Len: original.Size()}))
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.issuer.Transport(ev, m, facts, p)
	return p.sign(t, d, err)
}

// Acceptance returns the acceptance receipt for ev.
func (p *Provider) Acceptance(t testing.TB, ev pec.Event) *signer.Signed {
	t.Helper()
	d, err := p.issuer.Acceptance(ev, p)
	return p.sign(t, d, err)
}

// TakeCharge returns the take-charge receipt for all recipients of ev.
func (p *Provider) TakeCharge(t testing.TB, ev pec.Event) *signer.Signed {
	t.Helper()
	for _, r := range ev.Recipients {
		ev.Taken = append(ev.Taken, r.Address)
	}
	d, err := p.issuer.TakeCharge(ev, "servizio@beta.example", p)
	return p.sign(t, d, err)
}

// Delivery returns the complete delivery receipt for the first recipient of ev.
func (p *Provider) Delivery(t testing.TB, ev pec.Event, original message.Content) *signer.Signed {
	t.Helper()
	ev.Recipient = ev.Recipients[0].Address
	d, err := p.issuer.Delivery(ev, original, false, p)
	return p.sign(t, d, err)
}

// Virus returns the virus notice about the first recipient of ev.
func (p *Provider) Virus(t testing.TB, ev pec.Event) *signer.Signed {
	t.Helper()
	d, err := p.issuer.Virus(infected(ev), "servizio@beta.example", p)
	return p.sign(t, d, err)
}

// NonAcceptanceVirus returns the non-acceptance notice for a virus in the message
// of ev.
func (p *Provider) NonAcceptanceVirus(t testing.TB, ev pec.Event) *signer.Signed {
	t.Helper()
	d, err := p.issuer.NonAcceptance(infected(ev), p)
	return p.sign(t, d, err)
}

// NonDeliveryVirus returns the non-delivery notice for a virus in the message of ev,
// about its first recipient.
func (p *Provider) NonDeliveryVirus(t testing.TB, ev pec.Event) *signer.Signed {
	t.Helper()
	d, err := p.issuer.NonDelivery(infected(ev), p)
	return p.sign(t, d, err)
}

func infected(ev pec.Event) pec.Event {
	ev.Recipient, ev.Error, ev.Detail = ev.Recipients[0].Address, pec.ErrorVirus, virusName
	return ev
}

func (p *Provider) sign(t testing.TB, d issue.Draft, err error) *signer.Signed {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.signer.Sign(d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Text returns the octets of c.
func Text(t testing.TB, c message.Content) string {
	t.Helper()
	b, err := io.ReadAll(c.Reader())
	if err != nil {
		t.Fatalf("reading a content: %v", err)
	}
	return string(b)
}
