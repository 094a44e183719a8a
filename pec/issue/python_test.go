package issue

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pecd/pec"
	"pecd/pec/daticert"
)

// A reading is what testdata/reading.py finds in a message.
type reading struct {
	Fields    map[string]string
	MessageID string `json:"message_id"`
	From      [][]string
	Structure any
	Plain     string
	HTML      string
	Tags      []string
	Charsets  []string
	Files     []string
	Defects   []string
	Data      [][]any
	Original  string
	Brief     [][]string
}

// pythonReads returns what Python's email module finds in drafts.
func pythonReads(t *testing.T, drafts map[string]made, originals map[string]string) map[string]reading {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, d := range drafts {
		write(name+".eml", signed(t, d.Draft))
	}
	for name, raw := range originals {
		write(name+".original", []byte(raw))
	}
	cmd := exec.Command("python3", "testdata/reading.py", dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python3: %v", err)
	}
	var found map[string]reading
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatal(err)
	}
	if len(found) != len(drafts) {
		t.Fatalf("%d messages read, %d written", len(found), len(drafts))
	}
	return found
}

// TestPython: a parser that was not written here reads every kind as it is meant.
func TestPython(t *testing.T) {
	hostile := newEvent()
	hostile.Subject = "<b>x</b>\r\nX-Ricevuta: no \u202eabc\u2028日本 &amp; “q” =?UTF-8?Q?a?=  b"
	hostile.MsgID, hostile.ReplyTo = "", ""
	eight := strings.Replace(original, "Testo.", "Perch\xe9, perch\u00e9?", 1)
	for set, drafts := range map[string]map[string]made{
		"plain": all(t, newEvent(), original), "hostile": all(t, hostile, eight),
	} {
		inside := parcel(drafts["delivery-complete"].postacert)
		for name, r := range pythonReads(t, drafts, map[string]string{"delivery-brief": inside}) {
			t.Run(set+"/"+name, func(t *testing.T) { checkReading(t, drafts[name], r) })
		}
	}
}

func checkReading(t *testing.T, d made, r reading) {
	t.Helper()
	if len(r.Defects) > 0 {
		t.Errorf("defects %q", r.Defects)
	}
	ev := d.Event
	wanted := map[string]string{
		"Subject": prefixOf(ev) + daticert.Normal(pec.Event{Subject: ev.Subject}).Subject,
		"Date":    "Fri, 04 Jul 2031 09:05:03 +0200",
	}
	files := []string{}
	structure := []any{"multipart/mixed", []any{"multipart/alternative", "text/plain", "text/html"}}
	name := ""
	switch ev.Kind {
	case pec.KindTransport:
		wanted["X-Trasporto"], wanted["X-TipoRicevuta"] = "posta-certificata", string(ev.Receipt)
		name = "Per conto di: alice@alfa.example"
	case pec.KindAnomaly:
		wanted["X-Trasporto"] = "errore"
		name = "Per conto di: alice@alfa.example"
	default:
		wanted["X-Ricevuta"] = string(ev.Kind)
	}
	if ev.Kind == pec.KindVirus {
		wanted["X-Mittente"] = string(ev.Sender)
	} else if ev.Error == pec.ErrorVirus {
		wanted["X-VerificaSicurezza"] = "errore"
	}
	if ev.MsgID != "" && ev.Kind != pec.KindAnomaly {
		wanted["X-Riferimento-Message-ID"] = ev.MsgID
	}
	if ev.Kind != pec.KindAnomaly {
		structure, files = append(structure, "application/xml"), append(files, "daticert.xml")
	}
	if d.carries() {
		structure, files = append(structure, "message/rfc822"), append(files, "postacert.eml")
		if r.Original != "Perché" {
			t.Errorf("the original's subject is %q", r.Original)
		}
	}
	whole := []any{"multipart/signed", structure, "application/pkcs7-signature"}
	if !reflect.DeepEqual(r.Fields, wanted) || !reflect.DeepEqual(r.Structure, any(whole)) || !reflect.DeepEqual(r.Files, files) {
		t.Errorf("fields %q, structure %q, files %q\nwant %q, %q, %q", r.Fields, r.Structure, r.Files, wanted, whole, files)
	}
	if len(r.From) != 1 || r.From[0][0] != name || !strings.HasPrefix(r.From[0][1], "posta-certificata@") || r.MessageID != "<"+d.MessageID+">" {
		t.Errorf("from %q, Message-ID %q", r.From, r.MessageID)
	}
	checkReadTexts(t, d, r)
	if got, want := r.Data, expectedData(ev); !reflect.DeepEqual(got, want) {
		t.Errorf("data\n%q\nwant\n%q", got, want)
	}
	for _, pair := range r.Brief {
		if pair[2] != pair[3] {
			t.Errorf("part %q of %s holds %q, want %q", pair[0], pair[1], pair[3], pair[2])
		}
	}
	if names := []string{"", "logo.png.hash", "perché.pdf.hash", "messaggio.eml.hash"}; ev.Receipt == pec.Brief && ev.Kind == pec.KindDelivery {
		if len(r.Brief) != len(names) {
			t.Fatalf("brief form of %d parts", len(r.Brief))
		}
		for i, want := range names {
			if r.Brief[i][0] != want || r.Brief[i][1] != "text/plain" {
				t.Errorf("part %d is %q of %s, want %q", i, r.Brief[i][0], r.Brief[i][1], want)
			}
		}
	}
}

// checkReadTexts: both texts are in Latin-1, have the exact subject as far as it
// can be shown, and nothing that loads or runs.
func checkReadTexts(t *testing.T, d made, r reading) {
	t.Helper()
	if !reflect.DeepEqual(r.Charsets, []string{"iso-8859-1", "iso-8859-1"}) {
		t.Errorf("charsets %q", r.Charsets)
	}
	if want := []string{"body", "br", "h3", "head", "hr", "html", "title"}; !reflect.DeepEqual(r.Tags, want) {
		t.Errorf("tags %q", r.Tags)
	}
	shown := oneLine(d.Event.Subject)
	near, _ := nearestLatin1(shown)
	if !strings.Contains(r.HTML, "\n\""+shown+"\"") && !strings.Contains(r.HTML, "messaggio \""+shown+"\"") {
		t.Errorf("HTML without the subject %q:\n%s", shown, r.HTML)
	}
	plain := strings.ReplaceAll(r.Plain, "\r\n", "\n")
	if !strings.Contains(plain, "\""+near+"\"") || !strings.Contains(plain, "Il giorno 04/07/2031 alle ore 09:05:03 (+0200) ") {
		t.Errorf("text without the subject %q:\n%s", near, plain)
	}
}

// expectedData is the certification data of ev as elements with path, attributes
// and text, in the order of RFC 6109, 4.4.
func expectedData(ev pec.Event) [][]any {
	if ev.Kind == pec.KindAnomaly {
		return [][]any{}
	}
	var all [][]any
	add := func(path, text string, attributes ...string) {
		a := map[string]any{}
		for i := 0; i < len(attributes); i += 2 {
			a[attributes[i]] = attributes[i+1]
		}
		all = append(all, []any{"/postacert" + path, a, text})
	}
	optional := func(path, text string) {
		if text != "" {
			add(path, text)
		}
	}
	add("", "", "tipo", string(ev.Kind), "errore", string(ev.Error))
	add("/intestazione", "")
	add("/intestazione/mittente", string(ev.Sender))
	for _, r := range ev.Recipients {
		add("/intestazione/destinatari", string(r.Address), "tipo", string(r.Type))
	}
	add("/intestazione/risposte", ev.ReplyTo)
	optional("/intestazione/oggetto", ev.Subject)
	add("/dati", "")
	add("/dati/gestore-emittente", ev.Provider)
	add("/dati/data", "", "zona", "+0200")
	add("/dati/data/giorno", "04/07/2031")
	add("/dati/data/ora", "09:05:03")
	add("/dati/identificativo", string(ev.Identifier))
	optional("/dati/msgid", ev.MsgID)
	if ev.Receipt != "" {
		add("/dati/ricevuta", "", "tipo", string(ev.Receipt))
	}
	optional("/dati/consegna", string(ev.Recipient))
	for _, a := range ev.Taken {
		add("/dati/ricezione", string(a))
	}
	optional("/dati/errore-esteso", ev.Detail)
	return all
}
