package dsn

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pecd/pec"
	"pecd/pec/message"
)

func load(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".eml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func read(t testing.TB, raw string) (*Report, error) {
	t.Helper()
	m, err := message.Read(message.Bytes(raw))
	if err != nil {
		t.Fatal(err)
	}
	return Read(m)
}

const identifier = "20310704070503000abc@alfa.example"

// failure is a recipient of whom 5.1.1 is said by SMTP.
func failure(final, original pec.Address) Recipient {
	return Recipient{final, original, Failed, "5.1.1", fmt.Sprintf("550 5.1.1 <%s>: no such user here", final), "mx.beta.example"}
}

// reports says what is in testdata.
var reports = map[string]struct {
	envelope   string
	recipients []Recipient
}{
	"postfix-unknown-full":  {identifier, []Recipient{failure("bob@reject.beta.example", "bob@beta.example")}},
	"postfix-unknown-orcpt": {identifier, []Recipient{failure("bruna@reject.beta.example", "bruna+tag@beta.example")}},
	"postfix-7bit":          {identifier, []Recipient{failure("bruna@reject.beta.example", "bruna+tag@beta.example")}},
	"postfix-envid":         {"a+b= c", []Recipient{failure("bob@reject.beta.example", "bob@reject.beta.example")}},
	"postfix-mailbox-full": {identifier, []Recipient{
		{"anna@full.beta.example", "anna@full.beta.example", Failed, "5.2.2", "552 5.2.2 mailbox is full", "mx.beta.example"},
		{"bob@full.beta.example", "bob@full.beta.example", Failed, "5.2.2", "552 5.2.2 mailbox is full", "mx.beta.example"}}},
	"postfix-no-domain": {identifier, []Recipient{
		{"bob@nowhere.invalid", "bob@nowhere.invalid", Failed, "5.4.4", "unable to look up host nowhere.invalid: Name or service not known", ""}}},
	"postfix-size": {identifier, []Recipient{
		{"bob@small.beta.example", "bob@small.beta.example", Failed, "5.3.4",
			"message size 5075 exceeds size limit 1000 of server mx.beta.example[192.0.2.25]", ""}}},
	"postfix-many-lines": {identifier, []Recipient{
		{"bob@multi.beta.example", "bob@multi.beta.example", Failed, "5.1.1", "550-5.1.1 The account that you tried to reach 550 5.1.1" +
			" does not exist. Look at https://beta.example/help?id=1", "mx.beta.example"}}},
	"postfix-no-code": {identifier, []Recipient{
		{"bob@nocode.beta.example", "bob@nocode.beta.example", Failed, "5.0.0", "554 relay refused", "mx.beta.example"}}},
	"postfix-delayed": {identifier, []Recipient{
		{"bob@dead.beta.example", "bob@dead.beta.example", Delayed, "4.4.1", "connect to mx.beta.example[192.0.2.25]:25: Connection refused", ""}}},
	"postfix-expired": {identifier, []Recipient{
		{"bob@dead.beta.example", "bob@dead.beta.example", Failed, "4.4.1", "connect to mx.beta.example[192.0.2.25]:25: Connection refused", ""}}},
	"postfix-relayed": {identifier, []Recipient{
		{"bob@plain.beta.example", "bob@plain.beta.example", Relayed, "2.0.0", "250 2.0.0 stored", "mx.beta.example"}}},
	"postfix-delivered": {identifier, []Recipient{
		{"bob@lmtp.beta.example", "bob@lmtp.beta.example", Delivered, "2.0.0", "250 2.0.0 stored", "mx.beta.example"}}},
	"postfix-utf8": {identifier, []Recipient{
		{"żółw@utf8.beta.example", "żółw@utf8.beta.example", Failed, "5.1.1", "550 5.1.1 unknown", "mx.beta.example"}}},
	"postfix-utf8-7bit": {identifier, []Recipient{
		{"=C5=BC=C3=B3=C5=82w@utf8.beta.example", "=C5=BC=C3=B3=C5=82w@utf8.beta.example", Failed, "5.1.1", "550 5.1.1 unknown", "mx.beta.example"}}},
	"sendmail-unknown": {identifier, []Recipient{
		{"bob@beta.example", "bob@beta.example", Failed, "5.1.1", "550 5.1.1 <bob@beta.example>... User unknown", "mx.beta.example"},
		{"list@beta.example", "", Expanded, "2.0.0", "", ""}}},
	"sendmail-expired": {"", []Recipient{{"bob@beta.example", "", Failed, "4.4.7", "", ""}}},
	"exchange-unknown": {"", []Recipient{{"bob@beta.example", "", Failed, "5.1.10",
		"550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", ""}}},
	"loose": {"20310704070503000abc+40alfa.example", []Recipient{
		{"bob@beta.example", "bob+2Btag@beta.example", Failed, "5.2.2", "550-5.2.2 The mailbox is full", ""}, {}}},
}

func TestRead(t *testing.T) {
	files, err := filepath.Glob("testdata/*.eml")
	if err != nil || len(files) != len(reports) {
		t.Fatalf("%d files, %d expected: %v", len(files), len(reports), err)
	}
	for name, want := range reports {
		r, err := read(t, load(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.EnvelopeID != want.envelope {
			t.Errorf("%s: envelope %q", name, r.EnvelopeID)
		}
		if !reflect.DeepEqual(r.Recipients, want.recipients) {
			t.Errorf("%s: recipients\n%+v\nwant\n%+v", name, r.Recipients, want.recipients)
		}
		if name == "loose" {
			continue
		}
		id, kind := identifier, pec.TransportCertified
		if name == "postfix-utf8-7bit" { // its header is broken: the envelope identifier has to do
			id, kind = "", ""
		}
		if got := r.MessageID(); got != id {
			t.Errorf("%s: Message-ID %q", name, got)
		}
		if got := r.Returned.Get(pec.HeaderTransport); got != kind {
			t.Errorf("%s: X-Trasporto %q", name, got)
		}
		if r.ReportingMTA == "" || r.ArrivalDate.IsZero() {
			t.Errorf("%s: reported by %q, arrived %v", name, r.ReportingMTA, r.ArrivalDate)
		}
	}
}

func TestReportOfMessage(t *testing.T) {
	r, err := read(t, load(t, "postfix-unknown-full"))
	if err != nil {
		t.Fatal(err)
	}
	want := time.Date(2026, 11, 22, 12, 3, 37, 0, time.UTC)
	if r.ReportingMTA != "mx.alfa.example" || !r.ArrivalDate.Equal(want) {
		t.Errorf("by %q, arrived %v", r.ReportingMTA, r.ArrivalDate)
	}
	r, err = read(t, load(t, "loose"))
	if err != nil {
		t.Fatal(err)
	}
	if r.ReportingMTA != "mx.beta.example" || !r.ArrivalDate.IsZero() || len(r.Returned.Fields) != 0 || r.MessageID() != "" {
		t.Errorf("loose: %+v", r)
	}
}

func TestEnvelopeIDs(t *testing.T) {
	for id, want := range map[string][]string{
		"":                  nil,
		"abc@alfa.example":  {"abc@alfa.example"},
		"abc+40alfa":        {"abc+40alfa", "abc@alfa"},
		"a+2Bb+3D":          {"a+2Bb+3D", "a+b="},
		"a+":                {"a+"},
		"a+4":               {"a+4"},
		"a+zz":              {"a+zz"},
		"a+00b":             {"a+00b"}, // no text
		"a+0D+0Ab":          {"a+0D+0Ab"},
		"a+FFb":             {"a+FFb"},
		"\u202eb\x00 c\xff": {"b  c\ufffd"},
	} {
		r := Report{EnvelopeID: text(id)}
		if got := r.EnvelopeIDs(); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, want %q", id, got, want)
		}
	}
}

func TestNotAReport(t *testing.T) {
	report := load(t, "sendmail-unknown")
	change := func(old, new string) string {
		if !strings.Contains(report, old) {
			t.Fatalf("no %q", old)
		}
		return strings.ReplaceAll(report, old, new)
	}
	for name, raw := range map[string]string{
		"ordinary":           "From: a@b.example\r\n\r\nFinal-Recipient: rfc822; bob@beta.example\r\nAction: failed\r\n",
		"empty":              "",
		"other report":       change("report-type=delivery-status", "report-type=disposition-notification"),
		"other multipart":    change("multipart/report", "multipart/mixed"),
		"no status part":     change("message/delivery-status", "message/disposition-notification"),
		"status inside":      change("Content-Type: message/delivery-status\r\n", "Content-Type: message/rfc822\r\n\r\nContent-Type: message/delivery-status\r\n"),
		"no boundary":        change("boundary=\"364759aa000123", "boundary=\"other"),
		"attached to a mail": "Content-Type: message/rfc822\r\n\r\n" + report,
	} {
		if r, err := read(t, raw); !errors.Is(err, ErrOther) || r != nil {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	for _, raw := range []string{change("-Recipient: ", "-Person: "), change("Final-Recipient: RFC822; ", "Final-Recipient")} {
		raw = strings.ReplaceAll(raw, "Original-Recipient: rfc822;bob@beta.example\r\n", "")
		if r, err := read(t, raw); !errors.Is(err, ErrMalformed) || r != nil {
			t.Errorf("no recipient: %+v, %v", r, err)
		}
	}
}

// report returns a report with that status part and that returned message.
func report(status, returned string) string {
	return "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n" +
		"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n" + status +
		"\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n" + returned + "\r\n--b--\r\n"
}

func TestLimits(t *testing.T) {
	const one = "Final-Recipient: rfc822; bob@beta.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n"
	if r, err := read(t, report(strings.Repeat(one, maxRecipients), "Message-ID: <a@b>\r\n\r\n")); err != nil || len(r.Recipients) != maxRecipients {
		t.Errorf("as many as allowed: %v", err)
	}
	for name, raw := range map[string]string{
		"recipients": report(strings.Repeat(one, maxRecipients+1), ""),
		"status":     report(one+strings.Repeat("X-Filler: x\r\n", maxStatus/13), ""),
		"parts":      strings.Replace(report(one, ""), "text\r\n", strings.Repeat("text\r\n--b\r\n\r\n", 1001), 1),
		"header":     "X: y\r\n" + strings.Replace(report(one, ""), "text\r\n", "text\r\n--b\r\n"+strings.Repeat("X: y\r\n", 10001)+"\r\n", 1),
	} {
		if r, err := read(t, raw); !errors.Is(err, ErrLimit) || r != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The returned message may be of any size, and its header worthless.
	for returned, id := range map[string]string{
		"Message-ID: <a@b>\r\n\r\n" + strings.Repeat("x", 4<<20):         "a@b",
		"Message-ID: <a@b>\r\nX: " + strings.Repeat("x", 4<<20) + "\r\n": "a@b",
		strings.Repeat("X: y\r\n", 10001) + "Message-ID: <a@b>\r\n":      "",
		"no header at all": "",
		"":                 "",
	} {
		r, err := read(t, report(one, returned))
		if err != nil || r.MessageID() != id {
			t.Errorf("%.60q: %v, %v", returned, r, err)
		}
	}
	long := strings.Repeat("è", 5000)
	r, err := read(t, report("Diagnostic-Code: smtp; "+long+"\r\n"+one, ""))
	if err != nil || len(r.Recipients[0].Diagnostic) != maxText {
		t.Errorf("long text: %v, %v", r, err)
	}
}

// A broken source cannot be read.
type broken struct{ message.Bytes }

var errBroken = errors.New("broken")

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(strings.Index(string(b.Bytes), "Reporting-MTA")) {
		return 0, errBroken
	}
	return b.Bytes.ReadAt(p, off)
}

func TestBrokenSource(t *testing.T) {
	whole := message.Bytes(strings.Repeat("X: y\r\n", 20000/6) + report("Final-Recipient: rfc822; bob@beta.example\r\n", ""))
	m, err := message.Read(whole)
	if err != nil {
		t.Fatal(err)
	}
	m.Source = broken{whole}
	if r, err := Read(m); !errors.Is(err, errBroken) || r != nil {
		t.Errorf("%v, %v", r, err)
	}
}

// FuzzRead: a report is read or refused, and nothing of it can disturb a log.
func FuzzRead(f *testing.F) {
	for name := range reports {
		f.Add([]byte(load(f, name)))
	}
	f.Add([]byte(report("Final-Recipient: utf-8; \\x{202E}\\x{110000}b\r\nStatus: 5.999.999 \r\n :x\r\n", "\r\n\r\n")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := message.Read(message.Bytes(raw))
		if err != nil {
			return
		}
		r, err := Read(m)
		if err != nil {
			if !errors.Is(err, ErrOther) && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrLimit) {
				t.Fatal(err)
			}
			return
		}
		texts := append(r.EnvelopeIDs(), r.EnvelopeID, r.ReportingMTA, r.MessageID())
		for _, rcpt := range r.Recipients {
			texts = append(texts, string(rcpt.Final), string(rcpt.Original), rcpt.Diagnostic, rcpt.RemoteMTA)
			checkRecipient(t, rcpt)
		}
		for _, s := range texts {
			if len(s) > maxText || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) || strings.TrimSpace(s) != s {
				t.Errorf("text %q", s)
			}
		}
	})
}

func checkRecipient(t *testing.T, r Recipient) {
	t.Helper()
	e, status, text := r.Error()
	if (r.Action == Failed) != (e != pec.NoError) || (text == "") != (e == pec.NoError) {
		t.Errorf("%+v: %q %q %q", r, e, status, text)
	}
	if r.Status != "" && statusForm.FindString(r.Status) != r.Status || status != "" && statusForm.FindString(status) != status {
		t.Errorf("status %q became %q", r.Status, status)
	}
	if strings.HasPrefix(status, "4.") {
		t.Errorf("%+v: for good, with %s", r, status)
	}
	if r.Original != "" && !r.Names(r.Original) || r.Original == "" && r.Final != "" && !r.Names(r.Final) {
		t.Errorf("%+v does not name itself", r)
	}
}
