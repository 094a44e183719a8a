package access

import (
	"context"
	"strings"
	"testing"

	"pecd/pec"
	"pecd/pec/message"
	"pecd/points"
)

const good = "From: Alice Rossi <alice@alfa.example>\r\n" +
	"To: Bob <bob@beta.example>, bruna@beta.example\r\n" +
	"Cc: mario@ordinary.example\r\n" +
	"Subject: Offerta\r\n" +
	"Message-ID: <client-1@alfa.example>\r\n" +
	"\r\n" +
	"Testo.\r\n"

// submit is a submission of raw with the envelope that fits good.
func submit(t *testing.T, raw string) Submission {
	t.Helper()
	m, err := message.Read(message.Bytes(raw))
	if err != nil {
		t.Fatal(err)
	}
	var s message.Scanner
	s.Write([]byte(raw))
	return Submission{Login: "alice@alfa.example", Sender: "alice@alfa.example", SenderOurs: true,
		Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}, {Address: "bruna@beta.example", Type: pec.Certified},
			{Address: "mario@ordinary.example", Type: pec.External}},
		Message: m, Facts: s.Facts(), Limits: Limits{MaxSize: 30_000_000, MaxRecipients: 50, MaxTotal: 50_000_000}}
}

func decide(t *testing.T, p Point, s Submission) Decision {
	t.Helper()
	d, err := p.Decide(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAccept(t *testing.T) {
	s := submit(t, good)
	if o := decide(t, Builtin{}, s); o.Verdict != points.Accept {
		t.Fatalf("verdict %v, reasons %v", o.Verdict, o.Reasons)
	}
	s.Recipients = append(s.Recipients, s.Recipients[0])
	ev := s.Event("Alfa PEC S.p.A.")
	want := []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}, {Address: "bruna@beta.example", Type: pec.Certified},
		{Address: "mario@ordinary.example", Type: pec.External}}
	if len(ev.Recipients) != len(want) {
		t.Fatalf("recipients %v", ev.Recipients)
	}
	for i := range want {
		if ev.Recipients[i] != want[i] {
			t.Errorf("recipient %d is %v, want %v", i, ev.Recipients[i], want[i])
		}
	}
	if ev.MsgID != "<client-1@alfa.example>" || ev.Subject != "Offerta" || ev.Sender != "alice@alfa.example" ||
		ev.ReplyTo != "alice@alfa.example" || ev.Receipt != pec.Complete || ev.Provider != "Alfa PEC S.p.A." {
		t.Errorf("event %+v", ev)
	}
}

// TestRefuse breaks one rule of RFC 6109, 3.1.1 at a time.
func TestRefuse(t *testing.T) {
	edit := func(old, new string) func(*Submission, *testing.T) {
		return func(s *Submission, t *testing.T) {
			if !strings.Contains(good, old) {
				t.Fatalf("%q is not in the good message", old)
			}
			e := submit(t, strings.Replace(good, old, new, 1))
			s.Message, s.Facts = e.Message, e.Facts
		}
	}
	tests := map[string]struct {
		change func(*Submission, *testing.T)
		cause  points.Cause
	}{
		"nobody authenticated":     {func(s *Submission, _ *testing.T) { s.Login = "" }, points.NotAuthenticated},
		"login is another":         {func(s *Submission, _ *testing.T) { s.Login = "anna@alfa.example" }, points.LoginNotSender},
		"sender of another":        {func(s *Submission, _ *testing.T) { s.SenderOurs = false }, points.SenderNotOurs},
		"no sender":                {func(s *Submission, _ *testing.T) { s.Sender = "" }, points.FromDiffers},
		"From differs":             {edit("alice@alfa", "anna@alfa"), points.FromDiffers},
		"no From":                  {edit("From:", "X-From:"), points.FromInvalid},
		"two in From":              {edit("<alice@alfa.example>", "<alice@alfa.example>, anna@alfa.example"), points.FromInvalid},
		"From is no address":       {edit("<alice@alfa.example>", "<alice>"), points.FromInvalid},
		"no To":                    {edit("To:", "X-To:"), points.ToInvalid},
		"empty To":                 {edit("Bob <bob@beta.example>, bruna@beta.example", ""), points.ToInvalid},
		"undisclosed To":           {edit("Bob <bob@beta.example>, bruna@beta.example", "undisclosed-recipients:;"), points.ToInvalid},
		"To is no address":         {edit("Bob <bob@beta.example>", "Bob <bob@>"), points.ToInvalid},
		"Cc is no address":         {edit("mario@ordinary.example", "mario at ordinary"), points.ToInvalid},
		"local part in other case": {edit("bob@beta", "Bob@beta"), points.RecipientNotInField},
		"recipient not named":      {edit("bruna@beta.example", "bianca@beta.example"), points.RecipientNotInField},
		"Bcc":                      {edit("Subject:", "Bcc: segreto@beta.example\r\nSubject:"), points.BccPresent},
		"Bcc that cannot be read":  {edit("Subject:", "bcc: <<>\r\nSubject:"), points.BccPresent},
		"two Subject":              {edit("Subject:", "Subject: altro\r\nSubject:"), points.FieldRepeated},
		"two To":                   {edit("To:", "To: bob@beta.example\r\nTo:"), points.FieldRepeated},
		"too large":                {func(s *Submission, _ *testing.T) { s.Facts.Size = 30_000_001 }, points.TooLarge},
		"size times recipients":    {func(s *Submission, _ *testing.T) { s.Facts.Size = 20_000_000 }, points.TooLargeTimes},
		"line of 999":              {edit("Testo.", strings.Repeat("x", 999)), points.LineTooLong},
		"NUL":                      {edit("Testo.", "Te\x00sto."), points.BadOctets},
		"bare CR":                  {edit("Testo.", "Te\rsto."), points.BadOctets},
		"too many recipients": {func(s *Submission, _ *testing.T) {
			for i := 0; i < 48; i++ {
				s.Recipients = append(s.Recipients, pec.Recipient{Address: "bob@beta.example"})
			}
		}, points.TooManyRecipients},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := submit(t, good)
			tt.change(&s, t)
			o := decide(t, Builtin{}, s)
			if o.Verdict != points.Refuse {
				t.Fatalf("verdict %v", o.Verdict)
			}
			for _, r := range o.Reasons {
				if r.Cause == tt.cause {
					if r.Italian == "" || r.English == "" || r.Italian == r.English {
						t.Errorf("not described: %+v", r)
					}
					return
				}
			}
			t.Errorf("reasons %v, want %s", o.Reasons, tt.cause)
		})
	}
}

// TestAllReasons wants every broken rule named, not only the first.
func TestAllReasons(t *testing.T) {
	s := submit(t, strings.NewReplacer("To:", "X-To:", "Subject:", "Bcc: x@beta.example\r\nSubject:").Replace(good))
	s.Login = ""
	o := decide(t, Builtin{}, s)
	got := map[points.Cause]bool{}
	for _, r := range o.Reasons {
		got[r.Cause] = true
	}
	for _, c := range []points.Cause{points.ToInvalid, points.BccPresent, points.NotAuthenticated, points.RecipientNotInField} {
		if !got[c] {
			t.Errorf("%s is not among %v", c, o.Reasons)
		}
	}
}

// TestTolerate accepts what is odd but breaks no rule.
func TestTolerate(t *testing.T) {
	for name, raw := range map[string]string{
		"case of domains": strings.Replace(good, "bob@beta", "bob@BETA", 1),
		"empty Bcc":       strings.Replace(good, "Subject:", "Bcc:\r\nSubject:", 1),
		"folded To":       strings.Replace(good, ", bruna", ",\r\n\tbruna", 1),
		"latin-1 name":    strings.Replace(good, "Alice Rossi", "Al\xedce", 1),
		"line of 998":     strings.Replace(good, "Testo.", strings.Repeat("x", 998), 1),
		"no Message-ID":   strings.Replace(good, "Message-ID:", "X-ID:", 1),
	} {
		t.Run(name, func(t *testing.T) {
			if o := decide(t, Builtin{}, submit(t, raw)); o.Verdict != points.Accept {
				t.Errorf("refused: %v", o.Reasons)
			}
		})
	}
}

func TestReceiptType(t *testing.T) {
	for field, want := range map[string]pec.ReceiptType{
		"X-TipoRicevuta: breve":     pec.Brief,
		"X-Tiporicevuta: SINTETICA": pec.Concise,
		"x-tiporicevuta:completa":   pec.Complete,
		"X-TipoRicevuta: altro":     pec.Complete,
		"X-Nothing: breve":          pec.Complete,
	} {
		s := submit(t, strings.Replace(good, "Subject:", field+"\r\nSubject:", 1))
		if got := s.Event("Alfa").Receipt; got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
}

func TestTrustMTA(t *testing.T) {
	s := submit(t, good)
	s.Login, s.Limits.TrustMTA = "alice", true
	if o := decide(t, Builtin{}, s); o.Verdict != points.Accept {
		t.Errorf("refused: %v", o.Reasons)
	}
	s.Login = ""
	if o := decide(t, Builtin{}, s); o.Verdict != points.Refuse {
		t.Error("accepted from nobody")
	}
}

func TestMessageIDInBrackets(t *testing.T) {
	for in, want := range map[string]string{
		"<a@b>": "<a@b>", "a@b": "<a@b>", " <a@b> ": "<a@b>", "": "", "<>": "", "<" + strings.Repeat("a", 2000) + ">": "",
	} {
		if got := messageID(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzDecide wants no panic and no acceptance of what cannot be certified.
func FuzzDecide(f *testing.F) {
	f.Add(good)
	f.Add("From: a@alfa.example\n\nx")
	f.Add("To: =?utf-8?q?=00?= <\xff@b>\r\n\r\n")
	f.Fuzz(func(t *testing.T, raw string) {
		m, err := message.Read(message.Bytes(raw))
		if err != nil {
			return
		}
		s := submit(t, good)
		s.Message = m
		o := decide(t, Builtin{}, s)
		if ev := s.Event("Alfa"); o.Verdict == points.Accept && (m.Header.Count("From") != 1 || len(ev.Recipients) != 3) {
			t.Errorf("accepted %q as %+v", raw, o)
		}
	})
}
