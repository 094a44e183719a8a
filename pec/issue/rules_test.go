package issue

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/text/encoding/charmap"

	"pecd/pec"
	"pecd/pec/daticert"
	"pecd/pec/message"
)

// TestReaders holds every kind of draft against what the programs that read
// certified mail need, for ordinary and for hostile messages.
func TestReaders(t *testing.T) {
	subjects := map[string]string{
		"plain":    "Richiesta",
		"empty":    "",
		"Latin-1":  "Perché è così",
		"typeset":  "“L’atto” – parte 1… 5 € – Łódź, București",
		"newline":  "a\r\nX-Trasporto: posta-certificata\n\nb",
		"HTML":     `</body><script>alert("x")</script><img src=http://x.example/>&#60;`,
		"bidi":     "abc\u202egnp.exe\u202c\u2066x\u2069\u200f",
		"lines":    "a\u2028b\u2029c\u0085d\x0be",
		"long":     strings.Repeat("parola ", 43),
		"one word": strings.Repeat("x", 1200),
		"Japanese": strings.Repeat("日本語の件名", 20),
		"emoji":    "👩‍👩‍👧 ok 🇮🇹",
		"encoded":  "=?UTF-8?Q?no?= =?",
		"template": "{{.Sender}} %s %!d(x)",
		"invalid":  "a\xff\xfeb",
		"quotes":   `a" proveniente da "b@c`,
	}
	eight := strings.Replace(original, "Testo.", "Perch\xe9", 1)
	for name, subject := range subjects {
		ev := newEvent()
		ev.Subject = subject
		for kind, d := range all(t, ev, original) {
			t.Run(name+"/"+kind, func(t *testing.T) { checkDraft(t, d, subject) })
		}
	}
	for kind, d := range all(t, newEvent(), eight) {
		t.Run("8bit/"+kind, func(t *testing.T) { checkDraft(t, d, newEvent().Subject) })
	}
	bare := newEvent()
	bare.MsgID = ""
	for kind, d := range all(t, bare, original) {
		t.Run("no msgid/"+kind, func(t *testing.T) { checkDraft(t, d, bare.Subject) })
	}
	many := newEvent()
	for i := range 1000 {
		many.Recipients = append(many.Recipients,
			pec.Recipient{Address: pec.Address(fmt.Sprintf("r%d@beta.example", i)), Type: pec.Certified})
	}
	for kind, d := range all(t, many, original) {
		t.Run("many/"+kind, func(t *testing.T) { checkDraft(t, d, many.Subject) })
	}
}

// checkDraft reads d back as other programs do; docs/rules.md, E1.
func checkDraft(t *testing.T, d made, subject string) {
	t.Helper()
	raw := signed(t, d.Draft)
	m := read(t, string(raw))
	checkHeader(t, d, m, subject)
	root, err := m.Structure()
	if err != nil {
		t.Fatal(err)
	}
	mixed := checkStructure(t, d, root)
	checkTexts(t, d, mixed.Children[0])
	if d.Event.Kind != pec.KindAnomaly {
		checkData(t, d, mixed.Children[1])
	}
	if d.carries() {
		checkOriginal(t, d, mixed.Children[len(mixed.Children)-1])
	}
	f, err := message.ScanContent(message.Text(raw))
	if err != nil || f.LongestLine > 998 || f.NUL || f.BareCR || f.BareLF || !f.EndsInNewline {
		t.Errorf("facts %+v, %v", f, err)
	}
	// Declared without need is an original whose only octets over 127 were replaced.
	if f.EightBit && !d.EightBit {
		t.Error("8-bit, and not declared")
	}
}

// line returns the one line of the header that begins with "name: "; the case
// of the name counts.
func line(t *testing.T, d made, name string) string {
	t.Helper()
	var found []string
	for _, l := range strings.Split(string(d.Header), "\r\n") {
		if strings.HasPrefix(strings.ToLower(l), strings.ToLower(name)+":") {
			found = append(found, l)
		}
	}
	if len(found) == 0 {
		return ""
	}
	if len(found) > 1 || !strings.HasPrefix(found[0], name+": ") {
		t.Errorf("header has %q", found)
	}
	return strings.TrimPrefix(found[0], name+": ")
}

func checkHeader(t *testing.T, d made, m *message.Message, subject string) {
	t.Helper()
	ev := d.Event
	if !bytes.HasSuffix(d.Header, []byte("\r\n")) || bytes.Contains(d.Header, []byte("\r\n\r\n")) {
		t.Error("header does not end with just one line end")
	}
	receipt, envelope, kind := line(t, d, "X-Ricevuta"), line(t, d, "X-Trasporto"), line(t, d, "X-TipoRicevuta")
	wantReceipt, wantEnvelope, wantKind := string(ev.Kind), "", "" // never both
	reference := ev.MsgID
	switch ev.Kind {
	case pec.KindTransport:
		wantReceipt, wantEnvelope, wantKind = "", "posta-certificata", string(ev.Receipt)
	case pec.KindAnomaly:
		wantReceipt, wantEnvelope, reference = "", "errore", ""
	}
	if receipt != wantReceipt || envelope != wantEnvelope || kind != wantKind {
		t.Errorf("X-Ricevuta %q, X-Trasporto %q, X-TipoRicevuta %q", receipt, envelope, kind)
	}
	if got := line(t, d, "X-Riferimento-Message-ID"); got != reference {
		t.Errorf("X-Riferimento-Message-ID %q, want %q", got, reference)
	}
	if got, want := line(t, d, "Date"), ev.At.Format("Mon, 2 Jan 2006 15:04:05 -0700"); got != want {
		t.Errorf("Date %q, want %q", got, want)
	}
	if got := m.Header.Get("Message-ID"); m.Header.Count("Message-ID") != 1 || got != "<"+d.MessageID+">" {
		t.Errorf("Message-ID %q of %q", got, d.MessageID)
	}
	if ev.Kind != pec.KindAnomaly && !identifierForm.MatchString(d.MessageID) {
		t.Errorf("Message-ID %q", d.MessageID)
	}
	if (d.MessageID == string(ev.Identifier)) != (ev.Kind == pec.KindTransport) {
		t.Errorf("Message-ID %q of a %s about %q", d.MessageID, ev.Kind, ev.Identifier)
	}
	checkSubject(t, d, m, subject)
	checkSecurity(t, d)
	if ev.Kind == pec.KindTransport || ev.Kind == pec.KindAnomaly {
		checkEnvelope(t, d, m)
		return
	}
	if got := line(t, d, "From"); got != string(d.From) || !strings.HasPrefix(got, "posta-certificata@") {
		t.Errorf("From %q, envelope from %q", got, d.From)
	}
	if got := line(t, d, "To"); len(d.To) != 1 || got != string(d.To[0]) {
		t.Errorf("To %q, envelope to %q", got, d.To)
	}
}

var prefixes = map[pec.Kind]string{
	pec.KindTransport: "POSTA CERTIFICATA: ", pec.KindAcceptance: "ACCETTAZIONE: ",
	pec.KindTakeCharge: "PRESA IN CARICO: ", pec.KindDelivery: "CONSEGNA: ",
	pec.KindNonDelivery: "AVVISO DI MANCATA CONSEGNA: ", pec.KindNonAcceptance: "AVVISO DI NON ACCETTAZIONE: ",
	pec.KindTimeout: "AVVISO DI MANCATA CONSEGNA PER SUP. TEMPO MASSIMO: ", pec.KindAnomaly: "ANOMALIA MESSAGGIO: ",
	pec.KindVirus: "PROBLEMA DI SICUREZZA: ",
}

// prefixOf returns the subject's prefix of a message that certifies ev.
func prefixOf(ev pec.Event) string {
	if ev.Error == pec.ErrorVirus {
		switch ev.Kind {
		case pec.KindNonAcceptance:
			return "AVVISO DI NON ACCETTAZIONE PER VIRUS: "
		case pec.KindNonDelivery:
			return "AVVISO DI MANCATA CONSEGNA PER VIRUS: "
		}
	}
	return prefixes[ev.Kind]
}

// checkSecurity: X-VerificaSicurezza stands in the notices to the sender about a
// virus, X-Mittente in the one to his provider; RFC 6109, 3.1.3, 3.2.3, 3.2.4.
func checkSecurity(t *testing.T, d made) {
	t.Helper()
	security, sender := "", ""
	switch ev := d.Event; {
	case ev.Kind == pec.KindVirus:
		sender = string(ev.Sender)
	case ev.Error == pec.ErrorVirus:
		security = "errore"
	}
	if got := line(t, d, "X-VerificaSicurezza"); got != security {
		t.Errorf("X-VerificaSicurezza %q, want %q", got, security)
	}
	if got := line(t, d, "X-Mittente"); got != sender {
		t.Errorf("X-Mittente %q, want %q", got, sender)
	}
}

// checkSubject: the prefix is clear, with one blank, and the rest decodes
// to what the user wrote.
func checkSubject(t *testing.T, d made, m *message.Message, subject string) {
	t.Helper()
	prefix := prefixOf(d.Event)
	if got := m.Header.Get("Subject"); !strings.HasPrefix(got+" ", prefix) {
		t.Errorf("Subject %q", got)
	}
	want := strings.Trim(prefix+daticert.Normal(pec.Event{Subject: subject}).Subject, " ")
	if got := m.Header.Text("Subject"); got != want {
		t.Errorf("Subject %q, want %q", got, want)
	}
}

// checkEnvelope: From names the sender in ASCII, and what is inherited has the
// same bytes.
func checkEnvelope(t *testing.T, d made, m *message.Message) {
	t.Helper()
	by := alfa
	if d.Event.Kind == pec.KindAnomaly {
		by = beta
	}
	if got, want := line(t, d, "From"), `"Per conto di: alice@alfa.example" <`+string(by.Address)+`>`; got != want {
		t.Errorf("From %q, want %q", got, want)
	}
	inside := read(t, d.postacert)
	for _, name := range []string{"Received", "Return-Path", "To", "Cc", "Reply-To"} {
		want := inside.Header.Raw(name)
		if d.Event.Kind == pec.KindAnomaly {
			want = inheritedOnce(&inside.Header, name)
		}
		if len(want) == 0 && name == "Reply-To" {
			want = []byte("Reply-To: alice@alfa.example\r\n")
		}
		if want = endLine(want); !bytes.Equal(m.Header.Raw(name), want) {
			t.Errorf("%s inherited as %q, want %q", name, m.Header.Raw(name), want)
		}
	}
	if m.Header.Count("From") != 1 || m.Header.Count("Message-ID") != 1 || m.Header.Count("Subject") != 1 {
		t.Error("a field of the original beside the envelope's")
	}
	to := make([]pec.Address, 0, len(d.Event.Recipients))
	for _, r := range d.Event.Recipients {
		to = append(to, r.Address)
	}
	if d.From != d.Event.Sender || !reflect.DeepEqual(d.To, to) || d.NullSender != (d.From == "") {
		t.Errorf("SMTP envelope from %q to %q", d.From, d.To)
	}
}

// inheritedOnce returns what an anomaly envelope has of name: of a field that may
// stand only once, the first.
func inheritedOnce(h *message.Header, name string) []byte {
	if name == "Received" || name == "Return-Path" {
		return h.Raw(name)
	}
	for _, f := range h.Fields {
		if strings.EqualFold(f.Name(), name) {
			return f.Raw
		}
	}
	if name == "To" {
		return []byte("To: undisclosed-recipients:;\r\n")
	}
	return nil
}

// endLine returns a field with a line end.
func endLine(raw []byte) []byte {
	if len(raw) == 0 || bytes.HasSuffix(raw, []byte("\n")) {
		return raw
	}
	return append(bytes.Clone(raw), "\r\n"...)
}

// checkStructure: parts in the order and with the headers that all emit. It
// returns the multipart/mixed.
func checkStructure(t *testing.T, d made, root *message.Part) *message.Part {
	t.Helper()
	types := func(p *message.Part) (s []string) {
		for _, c := range p.Children {
			s = append(s, c.MediaType)
		}
		return s
	}
	if got := types(root); !reflect.DeepEqual(got, []string{"multipart/mixed", "application/pkcs7-signature"}) {
		t.Fatalf("multipart/signed of %q", got)
	}
	mixed := root.Children[0]
	want := []string{"multipart/alternative", "application/xml"}
	if d.Event.Kind == pec.KindAnomaly {
		want = want[:1]
	}
	if d.carries() {
		want = append(want, "message/rfc822")
	}
	if got := types(mixed); !reflect.DeepEqual(got, want) || d.Original != d.carries() {
		t.Fatalf("multipart/mixed of %q, want %q; Original %v", got, want, d.Original)
	}
	if got := types(mixed.Children[0]); !reflect.DeepEqual(got, []string{"text/plain", "text/html"}) {
		t.Fatalf("multipart/alternative of %q", got)
	}
	encoding := "7bit"
	if d.EightBit {
		encoding = "8bit"
		if got := mixed.Header.Get("Content-Transfer-Encoding"); got != "8bit" {
			t.Errorf("multipart/mixed declares %q", got)
		}
	}
	if d.Event.Kind != pec.KindAnomaly {
		exactHeader(t, mixed.Children[1], "application/xml", "daticert.xml", "base64")
	}
	if d.carries() {
		exactHeader(t, mixed.Children[len(mixed.Children)-1], "message/rfc822", "postacert.eml", encoding)
	}
	return mixed
}

func exactHeader(t *testing.T, p *message.Part, mediaType, name, encoding string) {
	t.Helper()
	var got bytes.Buffer
	for _, f := range p.Header.Fields {
		got.Write(f.Raw)
	}
	want := "Content-Type: " + mediaType + `; name="` + name + "\"\r\nContent-Transfer-Encoding: " + encoding +
		"\r\nContent-Disposition: inline; filename=\"" + name + "\"\r\n"
	if got.String() != want {
		t.Errorf("part has\n%swant\n%s", got.String(), want)
	}
}

// checkData: daticert.xml says what the event says.
func checkData(t *testing.T, d made, p *message.Part) {
	t.Helper()
	xml := readAll(t, p.Decoded())
	ev, err := daticert.Parse(xml, d.Event.At.Location())
	if err != nil {
		t.Fatal(err)
	}
	if !ev.At.Equal(d.Event.At) || d.Event.At.Nanosecond() != 0 {
		t.Errorf("instant %v, want %v", ev.At, d.Event.At)
	}
	ev.At = d.Event.At
	if !reflect.DeepEqual(ev, d.Event) {
		t.Errorf("got  %+v\nwant %+v", ev, d.Event)
	}
	coded := ev.Kind == pec.KindNonDelivery || ev.Kind == pec.KindTimeout
	if coded && !detailForm.MatchString(ev.Detail) || (ev.Detail == "") != (ev.Error == pec.NoError) {
		t.Errorf("%s: errore %q, errore-esteso %q", ev.Kind, ev.Error, ev.Detail)
	}
	for _, l := range strings.Split(strings.TrimSuffix(string(d.raw(t, p)), "\r\n"), "\r\n") {
		if len(l) > 76 {
			t.Errorf("base64 line of %d", len(l))
		}
	}
}

// raw returns the body of p as it stands.
func (d made) raw(t *testing.T, p *message.Part) []byte {
	t.Helper()
	return readAll(t, message.Section(p.Source, p.Body).Reader())
}

func readAll(t *testing.T, r io.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var tag = regexp.MustCompile(`<[^>]*>`)

// checkTexts: both texts are in ISO-8859-1, say the same, and hold nothing that
// loads or runs.
func checkTexts(t *testing.T, d made, p *message.Part) {
	t.Helper()
	for _, c := range p.Children {
		if got := string(c.Header.Raw("Content-Type")); !strings.HasSuffix(got, "; charset=\"iso-8859-1\"\r\n") {
			t.Errorf("Content-Type %q", got)
		}
		if c.Header.Get("Content-Transfer-Encoding") != "quoted-printable" || c.Header.Get("Content-Disposition") != "inline" {
			t.Error("text part is not inline and quoted-printable")
		}
	}
	latin, err := charmap.ISO8859_1.NewDecoder().Bytes(readAll(t, p.Children[0].Decoded()))
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.Split(string(latin), "\r\n")
	markup := string(readAll(t, p.Children[1].Decoded()))
	for _, found := range tag.FindAllString(markup, -1) {
		switch found {
		case "<html>", "<head>", "<title>", "</title>", "</head>", "<body>", "<h3>", "</h3>", "<br>", "<hr>", "</body>", "</html>":
		default:
			t.Errorf("HTML holds %q", found)
		}
	}
	if strings.IndexFunc(markup, func(r rune) bool { return r > '~' }) >= 0 {
		t.Error("HTML is not ASCII")
	}
	_, body, _ := strings.Cut(markup, "<body>\r\n")
	body = strings.ReplaceAll(body, "<hr>\r\n", "\r\n"+rule+"\r\n\r\n")
	shown := strings.Split(html.UnescapeString(tag.ReplaceAllString(body, "")), "\r\n")
	shown = shown[:len(shown)-2] // after </body> and </html>
	if n := len(plain) - 2; len(plain) > len(shown) && (plain[n] == lossEnglish || plain[n] == anomalyLossEnglish) {
		plain = plain[:len(plain)-4]
		plain = append(plain, "")
	}
	if len(plain) != len(shown) {
		t.Fatalf("text of %d lines:\n%q\nHTML of %d lines:\n%q", len(plain), plain, len(shown), shown)
	}
	for i := range plain {
		near, _ := nearestLatin1(shown[i])
		exact, _ := latin1(shown[i]) // addresses
		if plain[i] != near && plain[i] != exact {
			t.Errorf("line %d: text %q, HTML %q", i, plain[i], shown[i])
		}
	}
}

func checkOriginal(t *testing.T, d made, p *message.Part) {
	t.Helper()
	if got := d.raw(t, p); string(got) != d.postacert {
		t.Errorf("postacert.eml is\n%q\nwant\n%q", got, d.postacert)
	}
}
