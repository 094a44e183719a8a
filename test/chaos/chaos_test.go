package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestChaos is a small run of make chaos. The seed fixes which faults there are;
// which message each meets is for the machine to say. Afterwards the judge is told
// lies about what it reads, and must find out each.
func TestChaos(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "pecd-chaos") // clamd's user must reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	o := options{seed: 20, faults: 20, messages: 300, senders: 6, settle: 3 * time.Minute, recovery: 2 * time.Minute, log: said{t}, dir: dir}
	o.look = func(judge func(...lie) (verdict, error)) error { return lies(t, dir, judge) }
	v, err := run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range v.Violations {
		t.Error(s)
	}
	if v.Counts["accepted"] < o.messages || v.Counts["delivery"] == 0 || v.Counts["signatures verified by OpenSSL"] == 0 {
		t.Errorf("the judge counted %v", v.Counts)
	}
}

// said writes to the log of a test.
type said struct{ t *testing.T }

// Write implements io.Writer.
func (s said) Write(p []byte) (int, error) {
	s.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// A mail is one file of a mailbox.
type mail struct {
	file, box, kind              string
	messageID, msgID, identifier string
	to                           []string // of the message that it is about
	original                     bool     // it holds postacert.eml
}

// lies tells the judge what is not so, all at once: each lie is about another
// message, and must be found out by itself. Nobody else must be blamed.
func lies(t *testing.T, dir string, judge func(...lie) (verdict, error)) error {
	mails, err := plainMails(dir)
	if err != nil {
		return err
	}
	const acceptance, charge, delivery, envelope = "accettazione", "presa-in-carico", "avvenuta-consegna", "posta-certificata"
	const stranger = "estraneo@beta.example"
	anyone := func(mail) bool { return true }
	certified := func(m mail) bool { return slices.Contains(users, m.box) }
	list := []struct {
		kind  string
		fits  func(mail) bool
		lie   lie
		wants []string
	}{
		{acceptance, anyone, lie{What: "hide"}, []string{"0 acceptance receipts"}},
		{charge, anyone, lie{What: "hide"}, []string{"0 take-charge receipts", "the register has a presa-in-carico"}},
		{delivery, anyone, lie{What: "hide"}, []string{"0 final outcomes", "the register has a avvenuta-consegna"}},
		{envelope, func(m mail) bool { return len(m.to) == 1 }, lie{What: "hide"}, []string{"no copy in the mailbox", "the register has a posta-certificata"}},
		{acceptance, anyone, lie{What: "refused"}, []string{"nobody had accepted"}},
		{acceptance, anyone, lie{What: "garbled"}, []string{"verification failure"}},
		{envelope, anyone, lie{What: "changed"}, []string{"the envelope's original is not what was sent"}},
		{delivery, func(m mail) bool { return m.original }, lie{What: "changed"}, []string{"the receipt's original is not what was sent"}},
		{acceptance, anyone, lie{What: "twice"}, []string{"2 acceptance receipts", "is 0 times in the registers"}},
		{charge, anyone, lie{What: "twice"}, []string{"2 take-charge receipts"}},
		{delivery, anyone, lie{What: "twice"}, []string{"2 final outcomes"}},
		{envelope, anyone, lie{What: "twice"}, []string{"2 envelopes"}},
		{acceptance, anyone, lie{What: "again"}, []string{"without a fault that can have lost the reply"}},
		{charge, anyone, lie{What: "again"}, []string{"without a fault that can have lost the reply"}},
		{acceptance, anyone, lie{What: "unlike"}, []string{"two copies of", "OpenSSL: "}},
		{envelope, func(m mail) bool { return certified(m) && len(m.to) == 1 }, lie{What: "after"}, []string{"delivered again, at "}},
		{delivery, anyone, lie{What: "field", Field: "kind", Value: "timeout"}, []string{"nothing happened of which"}},
		{delivery, anyone, lie{What: "field", Field: "kind", Value: "virus"}, []string{"nothing happened of which"}},
		{acceptance, anyone, lie{What: "field", Field: "kind", Value: "non-acceptance"}, []string{"nothing happened of which"}},
		{acceptance, anyone, lie{What: "field", Field: "address", Value: stranger}, []string{"and not for him"}},
		{charge, anyone, lie{What: "field", Field: "address", Value: stranger}, []string{"and not for him"}},
		{delivery, anyone, lie{What: "field", Field: "address", Value: stranger}, []string{"and not for him"}},
		{delivery, anyone, lie{What: "field", Field: "rcpt", Value: stranger}, []string{"to whom nobody wrote"}},
		{charge, anyone, lie{What: "field", Field: "taken", Value: []string{stranger}}, []string{"to whom nobody wrote"}},
		{delivery, anyone, lie{What: "field", Field: "msgid", Value: mails[0].msgID}, []string{"was accepted"}},
		{delivery, anyone, lie{What: "field", Field: "type", Value: acceptance}, []string{"tipo is"}},
		{delivery, anyone, lie{What: "field", Field: "error", Value: "no-dest"}, []string{"errore is"}},
		{acceptance, anyone, lie{What: "field", Field: "sender", Value: stranger}, []string{"mittente is"}},
		{charge, anyone, lie{What: "field", Field: "subject", Value: "altro"}, []string{"oggetto is"}},
		{acceptance, anyone, lie{What: "field", Field: "recipients", Value: [][]string{{stranger, "certificato"}}}, []string{"destinatari is"}},
		{acceptance, anyone, lie{What: "lost"}, []string{"was lost without a fault that can have lost it"}},
		{acceptance, anyone, lie{What: "field", Field: "at", Value: 1e9}, []string{"outside of all attempts", "certifies the instant"}},
		{delivery, anyone, lie{What: "field", Field: "at", Value: 4e9}, []string{"certifies the instant", "that at is"}},
		{acceptance, anyone, lie{What: "record", Field: "sender", Value: stranger}, []string{"that sender is"}},
		{envelope, anyone, lie{What: "record", Field: "recipients", Value: []map[string]string{{"address": stranger, "type": "certificato"}}}, []string{"that recipients is"}},
		{charge, anyone, lie{What: "record", Field: "taken", Value: []string{stranger}}, []string{"that taken is"}},
		{delivery, anyone, lie{What: "record", Field: "recipient", Value: stranger}, []string{"that recipient is"}},
		{delivery, anyone, lie{What: "record", Field: "digest", Value: strings.Repeat("0", 64)}, []string{"that digest is"}},
		{delivery, anyone, lie{What: "record", Field: "messages", Value: []string{}}, []string{"names 0 messages"}},
		{delivery, anyone, lie{What: "field", Field: "wish", Value: "altra"}, []string{"wanted was"}},
		{delivery, anyone, lie{What: "field", Field: "provider", Value: "Altra PEC S.p.A."}, []string{"issued by"}},
		{charge, anyone, lie{What: "field", Field: "system", Value: stranger}, []string{"a matter of", "was signed by"}},
	}
	mails = mails[1:] // the one that another is said to be about
	told := []lie{{What: "entry", Of: "preavviso-errore-consegna"}}
	about := []mail{{file: "preavviso-errore-consegna of a lie"}}
	wants := [][]string{{"nothing happened of which", "that nobody got"}}
	for _, l := range list {
		at := slices.IndexFunc(mails, func(m mail) bool { return m.kind == l.kind && l.fits(m) })
		if at < 0 {
			t.Errorf("there is no %s of which to tell %s", l.kind, l.lie.What)
			continue
		}
		m := mails[at]
		mails = slices.DeleteFunc(mails, func(other mail) bool { return other.msgID == m.msgID })
		if l.lie.Of = m.file; l.lie.What == "refused" || l.lie.What == "lost" {
			l.lie.Of = m.msgID
		}
		told, about, wants = append(told, l.lie), append(about, m), append(wants, l.wants)
	}
	v, err := judge(told...)
	if err != nil {
		return err
	}
	blamed := func(m mail, violation string) bool {
		return slices.ContainsFunc([]string{m.file, m.msgID, m.identifier}, func(name string) bool { return name != "" && strings.Contains(violation, name) })
	}
	for i, l := range told {
		for _, want := range wants[i] {
			if !slices.ContainsFunc(v.Violations, func(s string) bool { return strings.Contains(s, want) && blamed(about[i], s) }) {
				t.Errorf("the judge was told %+v and did not say %q", l, want)
			}
		}
	}
	for _, s := range v.Violations {
		if !slices.ContainsFunc(about, func(m mail) bool { return blamed(m, s) }) {
			t.Errorf("the judge was told no lie about this: %s", s)
		}
	}
	t.Logf("%d lies told, %d violations found", len(told), len(v.Violations))
	return nil
}

// plainMails are the mails of which there is one copy, about messages whose client
// heard 250 and lost no reply: of others more than one thing may be so.
func plainMails(dir string) (list []mail, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "world.json"))
	if err != nil {
		return nil, err
	}
	var world struct {
		Sendings []sending
		Boxes    map[string]string
	}
	if err := json.Unmarshal(text, &world); err != nil {
		return nil, err
	}
	sent := map[string]sending{}
	for _, s := range world.Sendings {
		if len(s.Accepted) == 1 && len(s.Unknown) == 0 {
			sent[s.MsgID] = s
		}
	}
	copies := map[[2]string]int{}
	for _, box := range slices.Sorted(maps.Keys(world.Boxes)) {
		files, err := filepath.Glob(filepath.Join(world.Boxes[box], "new", "*"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			m, err := readMail(box, file)
			if err != nil {
				return nil, err
			}
			copies[[2]string{box, m.messageID}]++
			if s, plain := sent[m.msgID]; plain {
				m.to = s.To
				list = append(list, m)
			}
		}
	}
	list = slices.DeleteFunc(list, func(m mail) bool { return copies[[2]string{m.box, m.messageID}] > 1 })
	if len(list) == 0 {
		return nil, errors.New("no mail of which to tell lies")
	}
	return list, nil
}

var (
	field      = regexp.MustCompile(`(?m)^(X-Ricevuta|X-Trasporto|Message-ID|X-Riferimento-Message-ID): (.*)$`)
	daticert   = regexp.MustCompile(`filename="daticert.xml"\n\n([A-Za-z0-9+/=\n]+)\n--`)
	identifier = regexp.MustCompile(`<identificativo>(.*)</identificativo>`)
)

func readMail(box, file string) (m mail, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return m, err
	}
	header, body, _ := bytes.Cut(raw, []byte("\n\n"))
	m = mail{file: file, box: box, original: bytes.Contains(body, []byte(`name="postacert.eml"`))}
	for _, f := range field.FindAllSubmatch(header, -1) {
		switch value := string(f[2]); string(f[1]) {
		case "X-Ricevuta", "X-Trasporto":
			m.kind = value
		case "Message-ID":
			m.messageID = value
		default:
			m.msgID = value
		}
	}
	encoded := daticert.FindSubmatch(body)
	if encoded == nil {
		return m, fmt.Errorf("%s: no daticert.xml", file)
	}
	data, err := base64.StdEncoding.DecodeString(string(encoded[1]))
	if found := identifier.FindSubmatch(data); found != nil {
		m.identifier = string(found[1])
	}
	return m, err
}
