package issue

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"pecd/pec"
	"pecd/pec/daticert"
	"pecd/pec/message"
)

func TestNewIdentifier(t *testing.T) {
	at := time.Date(2031, 7, 4, 9, 5, 3, 45e6, rome)
	r := rnd()
	form := regexp.MustCompile(`^20310704070503045[0-9a-v]{24}@alfa\.example$`)
	seen := map[pec.Identifier]bool{}
	var last pec.Identifier
	for i := range 1000 {
		id, err := NewIdentifier(at, "alfa.example", r)
		if err != nil || !form.MatchString(string(id)) || seen[id] {
			t.Fatalf("%q, %v, seen %v", id, err, seen[id])
		}
		seen[id] = true
		later, err := NewIdentifier(at.Add(time.Duration(i+1)*time.Millisecond), "alfa.example", r)
		if err != nil || later <= id || later <= last {
			t.Fatalf("%q does not sort after %q and %q: %v", later, id, last, err)
		}
		last = later
	}
	for _, domain := range []string{"", "a b", "a>", "-a", "a.", "è.example", "a\r\nb", strings.Repeat("a", 254)} {
		if _, err := NewIdentifier(at, domain, r); !errors.Is(err, ErrEvent) {
			t.Errorf("domain %q: %v", domain, err)
		}
	}
	if _, err := NewIdentifier(at, "alfa.example", strings.NewReader("too short")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short of randomness: %v", err)
	}
}

// TestRandomness: a draft takes all its randomness from the reader, and says so
// when there is too little at any point.
func TestRandomness(t *testing.T) {
	m := read(t, original)
	for n := range 75 {
		if _, err := alfa.Acceptance(newEvent(), io.LimitReader(rnd(), int64(n))); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Errorf("acceptance with %d octets: %v", n, err)
		}
		if n >= 60 {
			continue
		}
		if d, err := alfa.Transport(newEvent(), m, message.Facts{}, io.LimitReader(rnd(), int64(n))); err == nil || d.Entity != nil {
			t.Errorf("transport with %d octets: %v", n, err)
		}
	}
}

func TestPrimary(t *testing.T) {
	cases := []struct {
		header string
		want   bool
	}{
		{"To: bob@beta.example\r\n", true},
		{"To: anna@alfa.example\r\nCc: bob@beta.example\r\n", false},
		{"To: anna@alfa.example\r\nCc: \"B\" <bob@Beta.example>, c@d.example\r\n", false},
		{"To: bob@beta.example\r\nCc: bob@beta.example\r\n", true},
		{"To: anna@alfa.example\r\n", true},
		{"Cc: bob@beta.example\r\n", false},
		{"To: undisclosed:;\r\nCc: bob@beta.example\r\n", false},
		{"To: group: x@y.example, bob@beta.example;\r\n", true},
		{"To: <<broken\r\nCc: bob@beta.example\r\n", true},
		{"To: anna@alfa.example\r\nCc: bob@beta.example, <<broken\r\n", true},
		{"Subject: none\r\n", true},
	}
	for _, c := range cases {
		if got := Primary(read(t, c.header+"\r\n"), "bob@beta.example"); got != c.want {
			t.Errorf("%q: %v", c.header, got)
		}
	}
}

// TestKinds: what a kind does not certify is left out of it, whatever the
// caller's event holds.
func TestKinds(t *testing.T) {
	ev := newEvent()
	ev.Kind, ev.Provider = "something else", "somebody else"
	ev.Receipt = ""
	ev.Recipient, ev.Taken, ev.Detail = "x@y.example", []pec.Address{"bob@beta.example"}, "left over"
	kinds := map[string]pec.Kind{
		"acceptance": pec.KindAcceptance, "transport": pec.KindTransport, "take-charge": pec.KindTakeCharge,
		"non-delivery": pec.KindNonDelivery, "non-acceptance": pec.KindNonAcceptance, "timeout-12": pec.KindTimeout,
		"non-delivery-virus": pec.KindNonDelivery, "non-acceptance-virus": pec.KindNonAcceptance, "virus": pec.KindVirus,
		"timeout-24": pec.KindTimeout, "anomaly": pec.KindAnomaly, "anomaly-bounce": pec.KindAnomaly,
	}
	for name, d := range all(t, ev, original) {
		got := d.Event
		want, ok := kinds[name]
		if !ok {
			want = pec.KindDelivery
		}
		one := want == pec.KindDelivery || want == pec.KindNonDelivery || want == pec.KindTimeout || want == pec.KindVirus
		typed := want == pec.KindDelivery || want == pec.KindTransport
		wrong := want == pec.KindNonDelivery || want == pec.KindTimeout || want == pec.KindNonAcceptance || want == pec.KindAnomaly ||
			want == pec.KindVirus
		if got.Kind != want || got.Provider == ev.Provider ||
			(got.Recipient != "") != one || (got.Receipt != "") != typed ||
			(got.Taken != nil) != (want == pec.KindTakeCharge) ||
			(got.Detail != "") != wrong || (got.Error != pec.NoError) != wrong {
			t.Errorf("%s certifies %+v", name, got)
		}
		if name == "delivery-copy" && got.Receipt != pec.Complete {
			t.Errorf("no type asked for became %q", got.Receipt)
		}
	}
}

func TestRefuses(t *testing.T) {
	type edit func(*Issuer, *pec.Event)
	everywhere := map[string]edit{
		"no sender":         func(_ *Issuer, ev *pec.Event) { ev.Sender = "" },
		"sender, no domain": func(_ *Issuer, ev *pec.Event) { ev.Sender = "alice" },
		"sender, two lines": func(_ *Issuer, ev *pec.Event) { ev.Sender = "a@b\r\nBcc: c@d" },
		"sender, brackets":  func(_ *Issuer, ev *pec.Event) { ev.Sender = "<a@b>" },
		"sender, 8-bit":     func(_ *Issuer, ev *pec.Event) { ev.Sender = "è@alfa.example" },
		"sender, long":      func(_ *Issuer, ev *pec.Event) { ev.Sender = pec.Address(strings.Repeat("a", 320) + "@b") },
		"no identifier":     func(_ *Issuer, ev *pec.Event) { ev.Identifier = "" },
		"no recipients":     func(_ *Issuer, ev *pec.Event) { ev.Recipients = nil },
		"recipient, type":   func(_ *Issuer, ev *pec.Event) { ev.Recipients[0].Type = "interno" },
		"no instant":        func(_ *Issuer, ev *pec.Event) { ev.At = time.Time{} },
		"odd zone":          func(_ *Issuer, ev *pec.Event) { ev.At = ev.At.In(time.FixedZone("", 30)) },
		"odd error":         func(_ *Issuer, ev *pec.Event) { ev.Error = "strano" },
		"no name":           func(i *Issuer, _ *pec.Event) { i.Name = "" },
		"no address":        func(i *Issuer, _ *pec.Event) { i.Address = "" },
		"address, 8-bit":    func(i *Issuer, _ *pec.Event) { i.Address = "posta-certificata@è.example" },
		"blank name":        func(i *Issuer, _ *pec.Event) { i.Name = "\n" },
	}
	only := func(kind pec.Kind, f func(*pec.Event)) edit {
		return func(_ *Issuer, ev *pec.Event) {
			if ev.Kind == kind {
				f(ev)
			} else {
				ev.Sender = "" // the others are refused anyway
			}
		}
	}
	everywhere["delivery without recipient"] = only(pec.KindDelivery, func(ev *pec.Event) { ev.Recipient = "" })
	everywhere["receipt of unknown type"] = only(pec.KindDelivery, func(ev *pec.Event) { ev.Receipt = "lunga" })
	everywhere["notice without recipient"] = only(pec.KindNonDelivery, func(ev *pec.Event) { ev.Recipient = "" })
	everywhere["notice without detail"] = only(pec.KindNonDelivery, func(ev *pec.Event) { ev.Detail = " \n" })
	everywhere["notice without error"] = only(pec.KindNonDelivery, func(ev *pec.Event) { ev.Error = "" })
	everywhere["notice of no error"] = only(pec.KindNonDelivery, func(ev *pec.Event) { ev.Error = pec.NoError })
	everywhere["timeout without recipient"] = only(pec.KindTimeout, func(ev *pec.Event) { ev.Recipient = "" })
	everywhere["timeout of another error"] = only(pec.KindTimeout, func(ev *pec.Event) { ev.Error = pec.ErrorNoDest })
	everywhere["non-acceptance without reason"] = only(pec.KindNonAcceptance, func(ev *pec.Event) { ev.Detail = "\n" })
	everywhere["non-acceptance of another error"] = only(pec.KindNonAcceptance, func(ev *pec.Event) { ev.Error = pec.ErrorNoDomain })
	everywhere["acceptance with error"] = only(pec.KindAcceptance, func(ev *pec.Event) { ev.Error = pec.ErrorOther })
	everywhere["virus notice without recipient"] = only(pec.KindVirus, func(ev *pec.Event) { ev.Recipient = "" })
	everywhere["virus notice without virus"] = only(pec.KindVirus, func(ev *pec.Event) { ev.Detail = " " })
	everywhere["virus notice without error"] = only(pec.KindVirus, func(ev *pec.Event) { ev.Error = "" })
	everywhere["virus notice of another error"] = only(pec.KindVirus, func(ev *pec.Event) { ev.Error = pec.ErrorOther })
	everywhere["non-acceptance for virus without one"] = only(pec.KindNonAcceptance, func(ev *pec.Event) { ev.Error, ev.Detail = pec.ErrorVirus, "" })
	everywhere["non-delivery for virus without one"] = only(pec.KindNonDelivery, func(ev *pec.Event) { ev.Error, ev.Detail = pec.ErrorVirus, "" })
	everywhere["acceptance with virus"] = only(pec.KindAcceptance, func(ev *pec.Event) { ev.Error = pec.ErrorVirus })
	everywhere["transport with virus"] = only(pec.KindTransport, func(ev *pec.Event) { ev.Error = pec.ErrorVirus })
	everywhere["take-charge with virus"] = only(pec.KindTakeCharge, func(ev *pec.Event) { ev.Error = pec.ErrorVirus })
	everywhere["delivery with virus"] = only(pec.KindDelivery, func(ev *pec.Event) { ev.Error = pec.ErrorVirus })
	everywhere["timeout with virus"] = only(pec.KindTimeout, func(ev *pec.Event) { ev.Error = pec.ErrorVirus })
	everywhere["taken from nobody"] = only(pec.KindTakeCharge, func(ev *pec.Event) { ev.Taken = nil })
	everywhere["identifier with dots"] = only(pec.KindTransport, func(ev *pec.Event) { ev.Identifier = "a.b@alfa.example" })
	everywhere["identifier, two lines"] = only(pec.KindTransport, func(ev *pec.Event) { ev.Identifier = "a@b\r\nc" })
	everywhere["msgid, 8-bit"] = only(pec.KindTransport, func(ev *pec.Event) { ev.MsgID = "<è@b>" })
	everywhere["msgid, long"] = only(pec.KindTransport, func(ev *pec.Event) { ev.MsgID = strings.Repeat("a", 941) })
	everywhere["recipient in brackets"] = only(pec.KindTransport, func(ev *pec.Event) { ev.Recipients[1].Address = "a@b>" })

	for name, f := range everywhere {
		for _, kind := range []pec.Kind{pec.KindTransport, pec.KindAcceptance, pec.KindNonAcceptance, pec.KindTakeCharge,
			pec.KindDelivery, pec.KindNonDelivery, pec.KindTimeout, pec.KindVirus} {
			i, ev := beta, newEvent()
			ev.Kind, ev.Recipient, ev.Taken = kind, "bob@beta.example", []pec.Address{"bob@beta.example"}
			if kind == pec.KindNonDelivery || kind == pec.KindNonAcceptance {
				ev.Error, ev.Detail = pec.ErrorOther, "5.2.2 - Beta - casella piena"
			}
			if kind == pec.KindVirus {
				ev.Error, ev.Detail = pec.ErrorVirus, "Eicar"
			}
			f(&i, &ev)
			d, err := issueAs(t, i, kind, ev)
			if !errors.Is(err, ErrEvent) || d.Entity != nil || d.Header != nil {
				t.Errorf("%s in %s: %v", name, kind, err)
			}
		}
	}
	late := newEvent()
	late.Recipient = "bob@beta.example"
	for _, hours := range []int{0, 11, 22, -12, 48} {
		if d, err := alfa.Timeout(late, hours, rnd()); !errors.Is(err, ErrEvent) || d.Entity != nil {
			t.Errorf("timeout of %d hours: %v", hours, err)
		}
	}
	if _, err := alfa.TakeCharge(newEvent(), "service@alfa.example", rnd()); !errors.Is(err, ErrEvent) {
		t.Errorf("take-charge of nobody: %v", err)
	}
	ev := newEvent()
	ev.Taken = []pec.Address{"bob@beta.example"}
	if _, err := alfa.TakeCharge(ev, "a@b\r\nc", rnd()); !errors.Is(err, ErrEvent) {
		t.Errorf("service mailbox of two lines: %v", err)
	}
	infected := newEvent()
	infected.Recipient, infected.Error, infected.Detail = "bob@beta.example", pec.ErrorVirus, "Eicar"
	if _, err := beta.Virus(infected, "a@b\r\nc", rnd()); !errors.Is(err, ErrEvent) {
		t.Errorf("virus notice to two lines: %v", err)
	}
	ev.Subject = strings.Repeat("è", daticert.MaxSize)
	if _, err := alfa.Acceptance(ev, rnd()); !errors.Is(err, ErrEvent) || !errors.Is(err, daticert.ErrLimit) {
		t.Errorf("subject over the limit: %v", err)
	}
}

func issueAs(t *testing.T, i Issuer, kind pec.Kind, ev pec.Event) (Draft, error) {
	switch kind {
	case pec.KindTransport:
		return i.Transport(ev, read(t, original), message.Facts{}, rnd())
	case pec.KindAcceptance:
		return i.Acceptance(ev, rnd())
	case pec.KindTakeCharge:
		return i.TakeCharge(ev, "service@alfa.example", rnd())
	case pec.KindDelivery:
		return i.Delivery(ev, message.Text([]byte(original)), false, rnd())
	case pec.KindNonAcceptance:
		return i.NonAcceptance(ev, rnd())
	case pec.KindVirus:
		return i.Virus(ev, "service@alfa.example", rnd())
	case pec.KindTimeout:
		return i.Timeout(ev, 24, rnd())
	default:
		return i.NonDelivery(ev, rnd())
	}
}

func TestDetail(t *testing.T) {
	for given, want := range map[string]string{
		"5.1.1 - Beta - indirizzo non valido": "5.1.1 - Beta - indirizzo non valido",
		"casella piena":                       "5.0.0 - Beta Servizi - casella piena",
		"5.2.2 casella piena":                 "5.0.0 - Beta Servizi - 5.2.2 casella piena",
	} {
		ev := newEvent()
		ev.Recipient, ev.Error, ev.Detail = "bob@beta.example", pec.ErrorOther, given
		d, err := beta.NonDelivery(ev, rnd())
		if err != nil || d.Event.Detail != want {
			t.Errorf("%q became %q, %v", given, d.Event.Detail, err)
		}
	}
	ev := newEvent()
	ev.Recipient, ev.Error, ev.Detail = "bob@beta.example", pec.ErrorVirus, "Eicar"
	d, err := alfa.NonDelivery(ev, rnd())
	if want := "5.5.1 - Alfa PEC S.p.A. - Eicar"; err != nil || d.Event.Detail != want {
		t.Errorf("a virus became %q, %v; want %q", d.Event.Detail, err, want)
	}
}

// TestTimeoutDetail: programs take what begins with 5.4.1 for the last word on a
// message.
func TestTimeoutDetail(t *testing.T) {
	ev := newEvent()
	ev.Recipient, ev.Detail = "bob@beta.example", "left over"
	for hours, want := range map[int]string{
		12: "4.4.1 - Alfa PEC S.p.A. - il messaggio non è stato consegnato nelle prime dodici ore dal suo invio",
		24: "5.4.1 - Alfa PEC S.p.A. - il messaggio non è stato consegnato nelle ventiquattro ore successive al suo invio. " +
			"Si ritiene che la spedizione debba considerarsi non andata a buon fine.",
	} {
		i := alfa
		i.Name = " " + alfa.Name + "\n"
		d, err := i.Timeout(ev, hours, rnd())
		if err != nil || d.Event.Detail != want || d.Event.Error != pec.ErrorOther || d.To[0] != ev.Sender {
			t.Errorf("%d hours: %+v, %v", hours, d.Event, err)
		}
	}
}

// TestHeaderLimit: what could not be read again is not issued.
func TestHeaderLimit(t *testing.T) {
	ev := newEvent()
	for raw, fits := range map[string]bool{
		"To: " + strings.Repeat("b@beta.example,\r\n ", 1000) + "c@beta.example\r\n\r\n": true,
		strings.Repeat("Received: x\r\n", 9970) + "\r\n":                                 true,
		strings.Repeat("Received: x\r\n", 9995) + "\r\n":                                 false,
		"To: " + strings.Repeat("b@beta.example,\r\n ", 58150) + "\r\n\r\n":              false,
	} {
		m := read(t, raw)
		d, err := alfa.Transport(ev, m, message.Facts{}, rnd())
		if fits != (err == nil) || !fits && !errors.Is(err, ErrEvent) || fits == (d.Header == nil) {
			t.Errorf("transport of %.40q: %v", raw, err)
		}
		d, err = alfa.Anomaly(reported(ev), m, message.Facts{}, rnd())
		if fits != (err == nil) || !fits && !errors.Is(err, ErrUnwrappable) || fits == (d.Header == nil) {
			t.Errorf("anomaly of %.40q: %v", raw, err)
		}
		if err == nil {
			if m := read(t, string(signed(t, d))); m.Header.Get("Content-Type") == "" {
				t.Errorf("header of %.40q is cut off", raw)
			}
		}
	}
	ev.Subject = strings.Repeat("è", 350_000)
	if _, err := alfa.Acceptance(ev, rnd()); !errors.Is(err, ErrEvent) {
		t.Errorf("subject longer than a header: %v", err)
	}
}

// TestForeignMsgID: another provider's envelope may name a Message-ID that no
// header field holds; its receipts are issued all the same.
func TestForeignMsgID(t *testing.T) {
	for _, id := range []string{"<è@b>", "<" + strings.Repeat("a", 2000) + ">"} {
		ev := newEvent()
		ev.MsgID, ev.Taken = id, []pec.Address{"bob@beta.example"}
		d, err := beta.TakeCharge(ev, "service@alfa.example", rnd())
		if err != nil || bytes.Contains(d.Header, []byte(pec.HeaderReference)) || d.Event.MsgID != id {
			t.Errorf("%v\n%s", err, d.Header)
		}
	}
}

// TestSenderQuoted: a local part may hold what ends a quoted string.
func TestSenderQuoted(t *testing.T) {
	ev := newEvent()
	ev.Sender = `"a\"b"@alfa.example`
	d, err := alfa.Transport(ev, read(t, "Subject: x\r\n\r\n"), message.Facts{}, rnd())
	if err != nil {
		t.Fatal(err)
	}
	want := `From: "Per conto di: \"a\\\"b\"@alfa.example" <posta-certificata@alfa.example>` + "\r\n"
	if !bytes.Contains(d.Header, []byte(want)) {
		t.Errorf("header\n%s", d.Header)
	}
	m := read(t, string(d.Header)+"\r\n")
	if from, err := m.Header.Addresses("From"); err != nil || len(from) != 1 || from[0] != alfa.Address {
		t.Errorf("From reads as %q, %v", from, err)
	}
}

func TestReplyTo(t *testing.T) {
	d, err := alfa.Transport(newEvent(), read(t, "To: bob@beta.example\r\n\r\n"), message.Facts{}, rnd())
	if err != nil || !bytes.Contains(d.Header, []byte("\r\nReply-To: alice@alfa.example\r\n")) {
		t.Errorf("%v\n%s", err, d.Header)
	}
}

// TestInherit: what cannot travel in a header does not get into ours.
func TestInherit(t *testing.T) {
	for raw, want := range map[string]string{
		"To: a@b\n c@d\n\nx":                "To: a@b\r\n c@d\r\n",
		"To: a@b\rX-Ricevuta: x\r\n\r\n":    "To: a@b X-Ricevuta: x\r\n",
		"To: a\x00@b\r\n\r\n":               "To: a @b\r\n",
		"To: a@b":                           "To: a@b\r\n",
		"To: a@b\r\nSubject: x\r\nto:c\r\n": "To: a@b\r\nto:c\r\n",
		"TO :\ta@b\xe8 \r\n\t\r\n z\r\n":    "TO :\ta@b\xe8 \r\n\t\r\n z\r\n",
		"Subject: x\r\n\r\nTo: body\r\n":    "",
	} {
		var h header
		h.inherit(&read(t, raw).Header, "To")
		if h.String() != want {
			t.Errorf("%q inherited as %q, want %q", raw, h.String(), want)
		}
	}
}

// A spool stands for a file: it holds a head and then size zeros that nobody
// stores.
type spool struct {
	head string
	size int64
}

func (s *spool) Size() int64 { return s.size }

func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	if off >= s.size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), s.size-off)
	for i := range n {
		p[i] = '0'
		if (off+i)%80 == 79 {
			p[i] = '\n'
		} else if (off+i)%80 == 78 {
			p[i] = '\r'
		}
	}
	if off < int64(len(s.head)) {
		copy(p[:n], s.head[off:])
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func spooled(t testing.TB, size int64) *message.Message {
	t.Helper()
	head, _, _ := strings.Cut(original, "\r\n\r\n")
	m, err := message.Read(&spool{head + "\r\n\r\n", size})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestOriginalIsARange: the body stays where it is stored, however long.
func TestOriginalIsARange(t *testing.T) {
	for _, size := range []int64{10 << 10, 30 << 20} {
		m := spooled(t, size)
		d, err := alfa.Transport(newEvent(), m, message.Facts{}, rnd())
		if err != nil {
			t.Fatal(err)
		}
		var stored, written int64
		for _, p := range d.Entity {
			if p.Source == nil {
				written += p.Size()
			} else if p.Source == m.Source {
				stored += p.Size()
			}
		}
		if stored < m.Body.Len || written > 8<<10 {
			t.Errorf("of %d octets %d are stored, %d written", size, stored, written)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := alfa.Transport(newEvent(), m, message.Facts{}, rnd()); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%d octets allocated for an original of %d", n, size)
		}
	}
}

// TestOriginalOddities: whatever the line ends inside, postacert.eml has the
// same bytes.
func TestOriginalOddities(t *testing.T) {
	for _, raw := range []string{
		"Subject: x\nMessage-ID: <a@b>\n\nbare\nlines\n",
		"Subject: x\r\n\r\n\r\n\r\n",
		"Subject: x\r\n\r\na\rb\x00c\n\r\r\n",
		"Subject: x",
		"\r\nno header",
		"not a field\r\nat all",
		"Subject: x\r\n\r\n--=_\r\n--\r\n\xff\xfe",
	} {
		m := read(t, raw)
		d, err := alfa.Transport(newEvent(), m, facts(t, raw), rnd())
		if err != nil {
			t.Fatal(err)
		}
		inside := string(bytesOf(t, message.Relabel(m, newEvent().Identifier, newEvent().MsgID)))
		root, err := read(t, string(signed(t, d))).Structure()
		if err != nil {
			t.Fatal(err)
		}
		mixed := root.Children[0]
		if len(mixed.Children) != 3 {
			t.Fatalf("%q: %d parts", raw, len(mixed.Children))
		}
		checkOriginal(t, made{d, inside}, mixed.Children[2])
	}
}

func BenchmarkTransport10KB(b *testing.B) { benchmarkTransport(b, 10<<10) }
func BenchmarkTransport30MB(b *testing.B) { benchmarkTransport(b, 30<<20) }

func benchmarkTransport(b *testing.B, size int64) {
	m, ev, r := spooled(b, size), newEvent(), rnd()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := alfa.Transport(ev, m, message.Facts{}, r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAcceptance(b *testing.B) {
	ev, r := newEvent(), rnd()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := alfa.Acceptance(ev, r); err != nil {
			b.Fatal(err)
		}
	}
}
