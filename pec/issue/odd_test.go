package issue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pecd/pec"
	"pecd/pec/message"
)

// An odd message is one of testdata/odd.
type odd struct {
	name, raw string
	sender    pec.Address
	to        []pec.Address
	accepted  bool
}

var oddRow = regexp.MustCompile(`(?m)^\| ([a-z0-9-]+)\.eml \| [^|]+ \| ([^|]*) \| (accepted|refused: [a-z, -]+) \|$`)

// odds returns the messages of testdata/odd/index.md.
func odds(t testing.TB) []odd {
	t.Helper()
	index, err := os.ReadFile("testdata/odd/index.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/odd/*.eml")
	if err != nil {
		t.Fatal(err)
	}
	var all []odd
	for _, row := range oddRow.FindAllStringSubmatch(string(index), -1) {
		raw, err := os.ReadFile("testdata/odd/" + row[1] + ".eml")
		if err != nil {
			t.Fatal(err)
		}
		o := odd{name: row[1], raw: string(raw), sender: "alice@alfa.example", to: []pec.Address{"bob@beta.example"}, accepted: row[3] == "accepted"}
		if from, ok := strings.CutPrefix(row[2], "from "); ok {
			o.sender = pec.Address(from)
		} else if to, ok := strings.CutPrefix(row[2], "to "); ok {
			o.to = nil
			for _, a := range strings.Split(to, ", ") {
				o.to = append(o.to, pec.Address(a))
			}
		}
		all = append(all, o)
	}
	if len(all) != len(files) || len(all) < 50 {
		t.Fatalf("%d rows, %d files", len(all), len(files))
	}
	return append(all, large()...)
}

// large returns odd messages that are too large to be kept.
func large() []odd {
	const head = "From: alice@alfa.example\r\nTo: bob@beta.example\r\nMessage-ID: <client.1@alfa.example>\r\n"
	chain := strings.Repeat("Received: from a.example ([192.0.2.1])\r\n\tby b.example; Fri, 4 Jul 2031 09:05:01 +0200\r\n", 1100)
	list := "Cc: mario@ordinary.example" + strings.Repeat(",\r\n\tmario@ordinary.example", 4000) + "\r\n"
	all := map[string]string{
		"header-100k":       chain + head + "Subject: x\r\n\r\nTesto.\r\n",
		"header-1m":         head + strings.Repeat(chain, 11) + "\r\nTesto.\r\n",
		"field-100k":        head + list + "Subject: x\r\n\r\nTesto.\r\n",
		"fields-11000":      head + strings.Repeat("X: y\r\n", 11000) + "\r\nTesto.\r\n",
		"subject-100k":      head + "Subject: x" + strings.Repeat("\r\n =?UTF-8?Q?=C3=A8=C3=A8=C3=A8?=", 3000) + "\r\n\r\nTesto.\r\n",
		"parts-999":         head + parts(999),
		"parts-1000":        head + parts(1000),
		"levels-30":         head + levels(30),
		"levels-100":        head + levels(100),
		"boundaries-100000": head + mixed + strings.Repeat("--b\r\n", 100000),
		"names-64k": head + mixed + "Content-Type: x/y;\r\n name*0*=UTF-8''a" + strings.Repeat(";\r\n name*1*=%C3%A8", 6000) +
			"\r\n\r\nabc\r\n--b--\r\n",
	}
	var list2 []odd
	for name, raw := range all {
		list2 = append(list2, odd{name: name, raw: raw, sender: "alice@alfa.example", to: []pec.Address{"bob@beta.example"}})
	}
	return list2
}

// TestOdd: whatever a message is like, it is carried octet for octet in something
// well formed, or refused; and nothing panics.
func TestOdd(t *testing.T) {
	for _, o := range odds(t) {
		t.Run(o.name, func(t *testing.T) {
			m, err := message.Read(message.Bytes(o.raw))
			if errors.Is(err, message.ErrLimit) {
				if o.accepted {
					t.Error("cannot be read")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f := facts(t, o.raw)
			ev := newEvent()
			ev.Sender, ev.Subject, ev.MsgID, ev.ReplyTo = o.sender, m.Header.Text("Subject"), "<client.1@alfa.example>", ""
			ev.Recipients = nil
			for _, a := range o.to {
				ev.Recipients = append(ev.Recipients, pec.Recipient{Address: a, Type: pec.Certified})
			}
			carriable := f.Carriable()
			oddTransport(t, o, ev, m, f, carriable)
			oddAnomaly(t, o, ev, m, f, carriable)
			oddVirus(t, ev)
			checkBrief(t, o.raw)
			if carriable {
				oddDelivery(t, o, ev, m, f)
			}
		})
	}
}

func oddTransport(t *testing.T, o odd, ev pec.Event, m *message.Message, f message.Facts, carriable bool) {
	t.Helper()
	d, err := alfa.Transport(ev, m, f, rnd())
	if err != nil {
		if !errors.Is(err, ErrEvent) || d.Header != nil || o.accepted {
			t.Errorf("transport: %v", err)
		}
		return
	}
	inside := string(bytesOf(t, message.Relabel(m, ev.Identifier, ev.MsgID)))
	if body := o.raw[m.Body.Off:]; !strings.HasSuffix(inside, body) {
		t.Error("the body is not the original's")
	}
	if !carriable { // only what the access point refuses, and the signer
		if o.accepted {
			t.Error("accepted, though no MTA carries it")
		}
		return
	}
	checkOdd(t, made{d, inside}, ev)
}

func oddAnomaly(t *testing.T, o odd, ev pec.Event, m *message.Message, f message.Facts, carriable bool) {
	t.Helper()
	for _, sender := range []pec.Address{ev.Sender, ""} {
		ev.Sender = sender
		d, err := beta.Anomaly(reported(ev), m, f, rnd())
		switch {
		case err == nil && carriable:
			if d.From != sender || d.NullSender != (sender == "") {
				t.Errorf("from %q became %q, null %v", sender, d.From, d.NullSender)
			}
			checkOdd(t, made{d, o.raw}, ev)
		case carriable && errors.Is(err, ErrEvent) && !errors.Is(err, ErrUnwrappable) && unfitPaths(sender, o.to[0]):
		case !carriable && errors.Is(err, ErrUnwrappable) && d.Header == nil && d.Entity == nil:
		default:
			t.Errorf("anomaly from %q: %v", sender, err)
		}
	}
}

// oddVirus: the notices about a virus hold nothing of the message but its event.
func oddVirus(t *testing.T, ev pec.Event) {
	t.Helper()
	ev.Recipient, ev.Error, ev.Detail = ev.Recipients[0].Address, pec.ErrorVirus, "Eicar [x]\r\n\"<y>\" è"
	for name, render := range map[string]func() (Draft, error){
		"non-acceptance": func() (Draft, error) { return alfa.NonAcceptance(ev, rnd()) },
		"virus":          func() (Draft, error) { return beta.Virus(ev, "ricevute@alfa.example", rnd()) },
		"non-delivery":   func() (Draft, error) { return alfa.NonDelivery(ev, rnd()) },
	} {
		d, err := render()
		switch {
		case err == nil:
			checkDraft(t, made{d, ""}, ev.Subject)
		case !errors.Is(err, ErrEvent) || d.Header != nil || fitsHeader(ev.Sender) && len(ev.Subject) < 1000:
			t.Errorf("%s from %q: %v", name, ev.Sender, err)
		}
	}
}

// unfitPaths reports whether one of the paths cannot stand in an envelope.
func unfitPaths(sender, to pec.Address) bool {
	return sender != "" && !fitsEnvelope(sender) || !fitsEnvelope(to)
}

func oddDelivery(t *testing.T, o odd, ev pec.Event, m *message.Message, f message.Facts) {
	t.Helper()
	short, err := Brief(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	ev.Sender, ev.Recipient, ev.Receipt = "alice@alfa.example", ev.Recipients[0].Address, pec.Brief
	d, err := beta.Delivery(ev, short, f.EightBit, rnd())
	if err != nil {
		t.Fatalf("brief receipt: %v", err)
	}
	checkOdd(t, made{d, string(bytesOf(t, short))}, ev)
}

// checkOdd is checkDraft for an envelope whose sender may be anybody.
func checkOdd(t *testing.T, d made, ev pec.Event) {
	t.Helper()
	if ev.Sender == "alice@alfa.example" {
		checkDraft(t, d, ev.Subject)
		return
	}
	m := read(t, string(signed(t, d.Draft)))
	root, err := m.Structure()
	if err != nil {
		t.Fatal(err)
	}
	checkSubject(t, d, m, ev.Subject)
	mixed := checkStructure(t, d, root)
	checkTexts(t, d, mixed.Children[0])
	checkOriginal(t, d, mixed.Children[len(mixed.Children)-1])
	from := fmt.Sprintf("%q", m.Header.Values("From"))
	if !strings.Contains(from, "Per conto di: ") || strings.Contains(from, "\\n") || m.Header.Count("From") != 1 {
		t.Errorf("From %s", from)
	}
}

// FuzzAnomaly: whatever arrives, from whomever, is carried octet for octet in
// something well formed, or refused.
func FuzzAnomaly(f *testing.F) {
	for _, o := range odds(f) {
		if len(o.raw) < 16<<10 {
			f.Add(o.raw, string(o.sender))
		}
	}
	f.Add("From: <a@b.example>\r\n\r\n", "")
	f.Fuzz(func(t *testing.T, raw, sender string) {
		m, err := message.Read(message.Bytes(raw))
		if err != nil {
			return
		}
		ev := anomalyEvent()
		ev.Sender, ev.Subject = pec.Address(sender), m.Header.Text("Subject")
		d, err := beta.Anomaly(ev, m, facts(t, raw), rnd())
		if err != nil {
			if !errors.Is(err, ErrEvent) && !errors.Is(err, ErrUnwrappable) || d.Header != nil || d.Entity != nil {
				t.Error(err)
			}
			return
		}
		checkOdd(t, made{d, raw}, ev)
	})
}
