package verify_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
	"testing"

	"pecd/cmd/pecd/verify"
	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
)

func (o office) caseOf(messages ...[]byte) (answer, verify.Case) {
	o.t.Helper()
	a := o.ask(verify.Options{}, string(mbox(quoteAll, messages...)), "-")
	if len(a.cases) != 1 {
		o.t.Fatalf("%d cases\n%s", len(a.cases), a.out)
	}
	return a, a.cases[0]
}

func TestMissing(t *testing.T) {
	o := newOffice(t)
	story := o.story()
	for name, tt := range map[string]struct {
		messages [][]byte
		state    string
		missing  []string
	}{
		"acceptance alone": {story[:1], "nothing", []string{"transport envelope", "delivery receipt for bob@beta.example"}},
		"envelope alone":   {story[1:2], "nothing", []string{"acceptance receipt", "delivery receipt for bob@beta.example"}},
		"taken in charge":  {[][]byte{story[0], story[2]}, "taken-in-charge", []string{"transport envelope", "delivery receipt for bob@beta.example"}},
		"delivery alone":   {story[3:], "delivered", []string{"acceptance receipt", "transport envelope"}},
	} {
		a, c := o.caseOf(tt.messages...)
		missing := strings.Join(c.Missing, "\n")
		for _, m := range tt.missing {
			if !strings.Contains(missing, m) {
				t.Errorf("%s: %q is not missing in\n%s", name, m, missing)
			}
		}
		if len(c.Missing) != len(tt.missing) || c.Recipients[0].State != tt.state || !a.held {
			t.Errorf("%s: state %s, held %v, missing\n%s", name, c.Recipients[0].State, a.held, missing)
		}
	}
}

// TestOtherOriginal has a genuine receipt for another original under the same
// identifier.
func TestOtherOriginal(t *testing.T) {
	o := newOffice(t)
	story := o.story()
	other := strings.Replace(plainOriginal, "Testo.", "Altro.", 1)
	a, c := o.caseOf(story[0], story[1], o.delivery(event(pec.Complete), carried(t, other)))
	if a.held || len(c.Contradictions) != 1 || c.Recipients[0].Original != "different" {
		t.Errorf("held %v, %+v", a.held, c)
	}
	for _, v := range a.verdicts {
		if !v.Valid {
			t.Errorf("message %d alone does not hold: %v", v.Number, v.Problems)
		}
	}
	if a.verdicts[1].Original.SHA256 == a.verdicts[2].Original.SHA256 {
		t.Error("the digests are the same")
	}
}

// TestBrief compares brief receipts: ours, and those of providers that hash
// what was decoded, and one about another attachment.
func TestBrief(t *testing.T) {
	o := newOffice(t)
	ev := event(pec.Brief)
	envelope := o.envelope(ev, attachedOriginal)
	content := carried(t, attachedOriginal)
	m, err := message.Read(content)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := issue.Brief(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	encoded, decoded := sha1.Sum([]byte("QWJjZGVmZ2g=")), sha256.Sum256([]byte("Abcdefgh"))
	var b bytes.Buffer
	if _, err := ours.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	with := func(hash string) message.Content {
		return message.Text(bytes.Replace(b.Bytes(), []byte(hex.EncodeToString(encoded[:])), []byte(hash), 1))
	}
	for name, tt := range map[string]struct {
		receipt message.Content
		want    string
	}{
		"ours":      {ours, "brief"},
		"decoded":   {with(strings.ToUpper(hex.EncodeToString(decoded[:]))), "attachments"},
		"other":     {with(strings.Repeat("0", 40)), "different"},
		"no hash":   {with("illeggibile"), "different"},
		"the whole": {content, "same"},
	} {
		// The receipt may come before the envelope.
		a, c := o.caseOf(o.delivery(ev, tt.receipt), envelope)
		if got := c.Recipients[0].Original; got != tt.want || a.held != (tt.want != "different") {
			t.Errorf("%s: %q, held %v", name, got, a.held)
		}
	}
}

func TestContradictions(t *testing.T) {
	o := newOffice(t)
	story := o.story()
	sender, msgid, recipient := event(pec.Complete), event(pec.Complete), event(pec.Complete)
	sender.Sender = "anna@alfa.example"
	msgid.MsgID = "<c2@alfa.example>"
	recipient.Recipient, recipient.Error, recipient.Detail = "bob@beta.example", pec.ErrorNoDest, "5.1.1 - Beta - indirizzo non valido"
	d, err := o.Beta.Issuer.NonDelivery(recipient, rand.Reader)
	refused := o.sign(o.Beta, d, err)
	recipient.Recipient = "nobody@beta.example"
	d, err = o.Beta.Issuer.NonDelivery(recipient, rand.Reader)
	foreign := o.sign(o.Beta, d, err)
	for name, tt := range map[string]struct {
		message []byte
		says    string
	}{
		"sender":    {o.delivery(sender, carried(t, plainOriginal)), "names the sender anna@alfa.example"},
		"msgid":     {o.delivery(msgid, carried(t, plainOriginal)), "about the message <c2@alfa.example>"},
		"both":      {refused, "another that it was not"},
		"recipient": {foreign, "who is no recipient"},
	} {
		a, c := o.caseOf(append(story[:4:4], tt.message)...)
		if a.held || len(c.Contradictions) != 1 || !strings.Contains(c.Contradictions[0], tt.says) {
			t.Errorf("%s: held %v, %v", name, a.held, c.Contradictions)
		}
		if len(c.Recipients) > 0 && c.Recipients[0].State != "delivered" {
			t.Errorf("%s: %s", name, c.Recipients[0].State)
		}
	}
}

// TestDiscarded lets an altered receipt count for nothing, and copies once.
func TestDiscarded(t *testing.T) {
	o := newOffice(t)
	story := o.story()
	altered := bytes.Replace(story[3], []byte("Testo."), []byte("Falso."), 1)
	a, c := o.caseOf(story[0], story[0], story[1], altered)
	if a.held || c.Recipients[0].State != "nothing" || len(c.Discarded) != 1 || !strings.HasSuffix(c.Discarded[0], "message 4") || c.Messages != 3 {
		t.Errorf("%+v", c)
	}
	if _, c = o.caseOf(altered, story[3]); c.Recipients[0].State != "delivered" || len(c.Discarded) != 0 {
		t.Errorf("the whole copy does not replace the altered one: %+v", c)
	}
	if _, c = o.caseOf(altered); len(c.Missing) != 1 || len(c.Proven) != 0 || c.Identifier != id {
		t.Errorf("%+v", c)
	}
}

func TestRefused(t *testing.T) {
	o := newOffice(t)
	ev := event("")
	ev.Error, ev.Detail = pec.ErrorOther, "manca il destinatario"
	d, err := o.Alfa.Issuer.NonAcceptance(ev, rand.Reader)
	_, c := o.caseOf(o.sign(o.Alfa, d, err))
	if c.Refused == nil || c.Accepted != nil || len(c.Missing) != 0 {
		t.Errorf("%+v", c)
	}
}

// TestLineEnds compares an envelope saved by Unix tools with a receipt as it came.
func TestLineEnds(t *testing.T) {
	o := newOffice(t)
	ev := event(pec.Brief)
	m, err := message.Read(carried(t, attachedOriginal))
	if err != nil {
		t.Fatal(err)
	}
	brief, err := issue.Brief(m, sha256.New)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	envelope := write(t, filepath.Join(dir, "envelope.eml"), bytes.ReplaceAll(o.envelope(ev, attachedOriginal), []byte("\r\n"), []byte("\n")))
	receipt := write(t, filepath.Join(dir, "receipt.eml"), o.delivery(ev, brief))
	a := o.ask(verify.Options{}, "", envelope, receipt)
	if !a.held || a.cases[0].Recipients[0].Original != "brief" {
		t.Errorf("%s", a.out)
	}
}
