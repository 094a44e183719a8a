package signer_test

import (
	"math/rand"
	"testing"

	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
)

// TestSignsWhatIsIssued holds the checks of Sign against all that package issue
// makes.
func TestSignsWhatIsIssued(t *testing.T) {
	ca, alfa := newAlfa(t)
	issuer := issue.Issuer{Name: alfaName, Address: alfaPost}
	rnd := rand.New(rand.NewSource(1))
	id, err := issue.NewIdentifier(testTime, "alfa.example", rnd)
	if err != nil {
		t.Fatal(err)
	}
	ev := acceptance()
	ev.Identifier, ev.Receipt, ev.Subject = id, pec.Complete, "  Perché no: città, 漢字 e un oggetto più lungo di una riga, con  blanks "
	ev.Recipient, ev.Taken = "bob@beta.example", []pec.Address{"bob@beta.example"}
	failed := ev
	failed.Error, failed.Detail = pec.ErrorNoDest, "5.1.1 - Alfa PEC S.p.A. - indirizzo non valido"
	text := "Received: from x\r\n by y; now\r\nFrom: alice@alfa.example\r\nTo: bob@beta.example\r\nSubject: x\r\nMessage-ID: <client@alfa.example>\r\n" +
		"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nciao\r\n--x--\r\n"
	infected := failed
	infected.Error, infected.Detail = pec.ErrorVirus, "Eicar-Test-Signature"
	for _, c := range []struct {
		name     string
		original string
	}{{"7-bit", text}, {"8-bit", text + "perch\xe9\r\n"}, {"no line end", text + "end"}} {
		original := read(t, []byte(c.original))
		facts, err := message.ScanContent(message.Text([]byte(c.original)))
		if err != nil {
			t.Fatal(err)
		}
		inside := message.Relabel(original, ev.Identifier, ev.MsgID)
		for name, make := range map[string]func() (issue.Draft, error){
			"transport":    func() (issue.Draft, error) { return issuer.Transport(ev, original, facts, rnd) },
			"acceptance":   func() (issue.Draft, error) { return issuer.Acceptance(ev, rnd) },
			"take-charge":  func() (issue.Draft, error) { return issuer.TakeCharge(ev, "ricevute@beta.example", rnd) },
			"delivery":     func() (issue.Draft, error) { return issuer.Delivery(ev, inside, facts.EightBit, rnd) },
			"concise":      func() (issue.Draft, error) { return issuer.Delivery(ev, nil, false, rnd) },
			"non-delivery": func() (issue.Draft, error) { return issuer.NonDelivery(failed, rnd) },

			"virus":                    func() (issue.Draft, error) { return issuer.Virus(infected, "ricevute@beta.example", rnd) },
			"non-acceptance for virus": func() (issue.Draft, error) { return issuer.NonAcceptance(infected, rnd) },
			"non-delivery for virus":   func() (issue.Draft, error) { return issuer.NonDelivery(infected, rnd) },
		} {
			t.Run(name+" "+c.name, func(t *testing.T) {
				d, err := make()
				if err != nil {
					t.Fatal(err)
				}
				checkWithOthers(t, ca, sign(t, alfa.Identity, d), bytesOf(t, d.Entity))
			})
		}
	}
}
