package act_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"regexp"
	"sort"
	"strings"
	"testing"

	"pecd/pec"
	"pecd/pec/issue"
	"pecd/pec/message"
	"pecd/points"
	"pecd/points/access"
	"pecd/points/pointstest"
)

var oddRow = regexp.MustCompile(`(?m)^\| ([a-z0-9-]+)\.eml \| [^|]+ \| ([^|]*) \| (accepted|refused: [a-z, -]+) \|$`)

const oddDir = "../../pec/issue/testdata/odd/"

// TestOdd hands odd and hostile originals in. Each is accepted, and then its
// octets are in the envelope as they came, or refused for the causes that the
// table names; a formal exception gives a well-formed notice. Nothing panics.
func TestOdd(t *testing.T) {
	index, err := os.ReadFile(oddDir + "index.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := oddRow.FindAllStringSubmatch(string(index), -1)
	if len(rows) < 50 {
		t.Fatalf("only %d rows", len(rows))
	}
	w := pointstest.New(t)
	d := newDesk(t, w, w.Alfa)
	for _, row := range rows {
		t.Run(row[1], func(t *testing.T) {
			raw, err := os.ReadFile(oddDir + row[1] + ".eml")
			if err != nil {
				t.Fatal(err)
			}
			if got := d.handIn(t, raw, strings.TrimSpace(row[2])); got != sorted(row[3]) {
				t.Errorf("%s, want %s", got, row[3])
			}
		})
	}
}

// sorted puts the causes of a row in order.
func sorted(verdict string) string {
	list, ok := strings.CutPrefix(verdict, "refused: ")
	if !ok {
		return verdict
	}
	causes := strings.Split(list, ", ")
	sort.Strings(causes)
	return "refused: " + strings.Join(causes, ", ")
}

// handIn says what becomes of a message with that envelope, in the words of the
// table.
func (d *desk) handIn(t *testing.T, raw []byte, envelope string) string {
	t.Helper()
	s := access.Submission{Sender: "alice@alfa.example", Recipients: d.classified("bob@beta.example")}
	if from, ok := strings.CutPrefix(envelope, "from "); ok {
		s.Sender = pec.Address(from)
	} else if to, ok := strings.CutPrefix(envelope, "to "); ok {
		s.Recipients = nil
		for _, a := range strings.Split(to, ", ") {
			s.Recipients = append(s.Recipients, d.classified(pec.Address(a))...)
		}
	}
	m, body := d.spool(t, raw)
	defer body.Close()
	facts, err := message.ScanContent(message.Text(raw))
	if err != nil {
		t.Fatal(err)
	}
	s.Login, s.Message, s.Facts = string(s.Sender), m, facts
	s.SenderOurs = d.world.Alfa.Record.Manages(s.Sender.Domain())
	o := decide(t, s)
	if o.Verdict == points.Accept {
		return d.carry(t, s, raw)
	}
	return d.tell(t, s, o.Reasons)
}

// carry accepts the message and wants its octets in the envelope.
func (d *desk) carry(t *testing.T, s access.Submission, raw []byte) string {
	t.Helper()
	defer d.empty(t)
	id, err := d.Accept(context.Background(), s.Event(d.Issuer.Name), s.Message, s.Facts, "")
	if errors.Is(err, issue.ErrEvent) {
		return "refused: " + string(points.Malformed)
	}
	if err != nil {
		t.Fatalf("neither accepted nor refused: %v", err)
	}
	for _, out := range d.outgoing(t) {
		whole := octets(t, out.Content)
		f := d.arrive(t, whole)
		if f.Event.Identifier != id {
			t.Errorf("%s is about %s", out.Kind, f.Event.Identifier)
		}
		if out.Kind != pec.KindTransport {
			continue
		}
		if _, body, ok := bytes.Cut(raw, []byte("\r\n\r\n")); ok && !bytes.Contains(whole, body) {
			t.Error("the body was changed")
		}
		want := octets(t, message.Relabel(s.Message, id, f.Event.MsgID))
		if got := octets(t, message.Section(f.Original.Source, f.Original.Range())); !bytes.Equal(got, want) {
			t.Errorf("postacert.eml is\n%q, want\n%q", got, want)
		}
	}
	return "accepted"
}

// tell names the causes of a refusal, and has formal exceptions told by a notice.
func (d *desk) tell(t *testing.T, s access.Submission, reasons []points.Reason) string {
	t.Helper()
	if points.Formal(reasons) {
		defer d.empty(t)
		id, err := d.NonAccept(context.Background(), s.Event(d.Issuer.Name), reasons, s.Message, "")
		if err != nil && !errors.Is(err, issue.ErrEvent) {
			t.Fatalf("neither accepted nor refused: %v", err)
		}
		for _, out := range d.outgoing(t) {
			if f := d.arrive(t, octets(t, out.Content)); f.Event.Identifier != id || f.Event.Detail == "" {
				t.Errorf("notice %+v", f.Event)
			}
		}
	}
	var causes []string
	seen := map[string]bool{}
	for _, r := range reasons {
		if c := string(r.Cause); !seen[c] {
			seen[c] = true
			causes = append(causes, c)
		}
	}
	sort.Strings(causes)
	return "refused: " + strings.Join(causes, ", ")
}

// empty takes everything out of the outbox.
func (d *desk) empty(t *testing.T) {
	t.Helper()
	for _, o := range d.outgoing(t) {
		if err := d.store.Taken(context.Background(), o.ID, o.To); err != nil {
			t.Fatal(err)
		}
	}
}
