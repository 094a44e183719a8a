package message

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pecd/pec"
)

func TestField(t *testing.T) {
	for _, tt := range []struct{ raw, name, value, unfolded string }{
		{"From:x\r\n", "From", "x\r\n", "x"},
		{"Cc:\tx\r\n", "Cc", "\tx\r\n", "x"},
		{"X : y : z \r\n", "X", " y : z \r\n", "y : z"},
		{"X\t:\r\n", "X", "\r\n", ""},
		{"X: a\r\n  b\r\n\tc\r\n", "X", " a\r\n  b\r\n\tc\r\n", "a  b\tc"},
		{"X: a\n b\n", "X", " a\n b\n", "a b"},
		{"X:\r\n \r\n a\r\n", "X", "\r\n \r\n a\r\n", "a"},
		{"X: a\rb", "X", " a\rb", "a\rb"},
	} {
		f := Field{[]byte(tt.raw)}
		if f.Name() != tt.name || string(f.Value()) != tt.value || f.Unfolded() != tt.unfolded {
			t.Errorf("%q: %q, %q, %q", tt.raw, f.Name(), f.Value(), f.Unfolded())
		}
	}
}

func TestHeader(t *testing.T) {
	h := mustRead(t, "Received: one\r\nTo : a@x\r\nRECEIVED:two\r\n\tfolded\r\nX-Empty:\r\n\r\nReceived: body\r\n").Header
	if n := h.Count("received"); n != 2 {
		t.Errorf("Count %d", n)
	}
	if got := h.Values("Received"); !slices.Equal(got, []string{"one", "two\tfolded"}) {
		t.Errorf("Values %q", got)
	}
	if got := string(h.Raw("Received")); got != "Received: one\r\nRECEIVED:two\r\n\tfolded\r\n" {
		t.Errorf("Raw %q", got)
	}
	if h.Get("to") != "a@x" || h.Get("Cc") != "" || h.Get("Receive") != "" {
		t.Errorf("Get %q, %q, %q", h.Get("to"), h.Get("Cc"), h.Get("Receive"))
	}
	if !h.Has("x-empty") || h.Has("Bcc") || h.Values("Bcc") != nil || h.Raw("Bcc") != nil {
		t.Error("Has: wrong")
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"Offerta  di  gara", "Offerta  di  gara"},
		{"=?UTF-8?Q?caff=C3=A8?=", "caffè"},
		{"=?iso-8859-1?q?caff=E8_?= =?ISO-8859-1?B?6A==?=", "caffè è"},
		{"=?windows-1252?Q?=80_100?=", "€ 100"},
		{"=?utf-8?B?w6g=?=\r\n =?utf-8?B?w6g=?= a", "èè a"},
		{"POSTA CERTIFICATA: =?UTF-8?Q?perch=C3=A9_no?=", "POSTA CERTIFICATA: perché no"},
		{"caff\xc3\xa8", "caffè"},
		{"caff\xe8 \x80", "caffè €"},
		{"caff\xe8 =?UTF-8?Q?=C3=A8?=", "caffè è"},
		{"=?x-nobody?Q?caff=E8?=", "caffè"},
		{"=?utf-8?Q?caff=E8?=", "caff\uFFFD"},
		{"=?utf-8?Q?a=00b=0D=0Ac?=", "a b  c"},
		{"a\tb\x00c\x7f", "a b c"},
		{"=?utf-8?Q?broken", "=?utf-8?Q?broken"},
		{"=?utf-8?Z?x?=", "=?utf-8?Z?x?="},
		{"  \t ", ""},
	} {
		h := mustRead(t, "Subject: "+tt.in+"\r\n\r\n").Header
		if got := h.Text("subject"); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want string // joined by blanks; "-" for an error
	}{
		{"To: anna@alfa.example\r\n", "anna@alfa.example"},
		{"To:anna@alfa.example,\r\n\tbob@beta.example\r\nto: Mario <mario@ordinary.example>\r\n", "anna@alfa.example bob@beta.example mario@ordinary.example"},
		{"To: \"Rossi, Anna\" (ufficio) <Anna@Alfa.Example>\r\n", "Anna@Alfa.Example"},
		{"To: Consiglio: a@x.example, B <b@x.example>;, c@x.example\r\n", "a@x.example b@x.example c@x.example"},
		{"To: undisclosed-recipients:;\r\n", ""},
		{"To:\r\n", ""},
		{"Cc: a@x.example\r\n", ""},
		{"To: Nicol\xf2 <n@x.example>, \"Citt\xe0\" <c@x.example>\r\n", "n@x.example c@x.example"},
		{"To: Nicol\xc3\xb2 <n@x.example>\r\n", "n@x.example"},
		{"To: =?x-nobody?Q?Nicol=F2?= <n@x.example>\r\n", "n@x.example"},
		{"To: \"a b\"@x.example, \"plain\"@x.example\r\n", "\"a b\"@x.example plain@x.example"},
		{"To: \"Per conto di: a@x.example\" <posta-certificata@y.example>\r\n", "posta-certificata@y.example"},
		{"To: a@x.example,, b@x.example,\r\n", "a@x.example b@x.example"},
		{"To: Per conto di: a@x.example <b@y.example>\r\n", "-"},
		{"To: a@x.example; b@x.example\r\n", "-"},
		{"To: a@x.example b@x.example\r\n", "-"},
		{"To: anna\r\n", "-"},
		{"To: a@x.example\r\nTo: <\r\n", "-"},
	} {
		h := mustRead(t, tt.in+"\r\n").Header
		list, err := h.Addresses("To")
		if (err != nil) != (tt.want == "-") || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: error %v", tt.in, err)
			continue
		}
		var got []string
		for _, a := range list {
			got = append(got, string(a))
		}
		if s := strings.Join(got, " "); err == nil && s != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, s, tt.want)
		}
	}
}

func TestAddressErrorIsShort(t *testing.T) {
	h := mustRead(t, "To: <a@["+strings.Repeat("1", 100_000)+"]>\r\n\r\n").Header
	if _, err := h.Addresses("To"); err == nil || len(err.Error()) > 500 {
		t.Errorf("error of %d octets", len(err.Error()))
	}
}

func TestMediaType(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		params   map[string]string
	}{
		{"Multipart/Signed; Micalg=\"sha-256\"; protocol=\"application/x-pkcs7-signature\"; boundary=\"----A=_1\"", "multipart/signed", map[string]string{"micalg": "sha-256", "protocol": "application/x-pkcs7-signature", "boundary": "----A=_1"}},
		{"multipart/signed;\r\n micalg=sha-256;\r\n\tboundary=----A=_1;", "multipart/signed", map[string]string{"micalg": "sha-256", "boundary": "----A=_1"}},
		{"message/rfc822; name=postacert.eml", "message/rfc822", map[string]string{"name": "postacert.eml"}},
		{"text/plain; charset=us-ascii (Plain text)", "text/plain", map[string]string{"charset": "us-ascii"}},
		{"application/pdf; name=Verbale di gara.pdf; x=y", "application/pdf", map[string]string{"name": "Verbale di gara.pdf", "x": "y"}},
		{"text/plain; charset=a; charset=b", "text/plain", map[string]string{"charset": "a"}},
		{"text/plain (comment); ;; charset=a", "text/plain", map[string]string{"charset": "a"}},
		{"text/plain; name=\"a\\\"b; c\" junk; x=\"open", "text/plain", map[string]string{"name": `a"b; c`, "x": "open"}},
		{"text/plain; name=\"caff\xe8\"", "text/plain", map[string]string{"name": "caff\xe8"}},
		{"text/plain; name*=iso-8859-1'it'caff%E8.txt", "text/plain", map[string]string{"name": "caffè.txt"}},
		{"text/plain; name*0*=utf-8''caff%C3; name*1*=%A8; name*2=\".t%20t\"; name=x", "text/plain", map[string]string{"name": "caffè.t%20t"}},
		{"text/plain; name*=utf-8''a; name*0=b", "text/plain", map[string]string{"name": "a"}},
		{"text/plain; name*=100%", "text/plain", map[string]string{"name": "100%"}},
		{"text/plain; *=x; ==; a", "text/plain", map[string]string{}},
		{"text/plain", "text/plain", map[string]string{}},
		{"", "text/plain", map[string]string{}},
		{"multipart/mixed; x=\"" + strings.Repeat("y", 70_000) + "\"; boundary=b", "multipart/mixed", map[string]string{}},
	} {
		h := mustRead(t, "Content-Type: "+tt.in+"\r\n\r\n").Header
		got, params, err := h.MediaType()
		if err != nil || got != tt.want || len(params) != len(tt.params) {
			t.Errorf("%.100q: %q %q %v", tt.in, got, params, err)
		}
		for k, v := range tt.params {
			if params[k] != v {
				t.Errorf("%.100q: %s is %q, want %q", tt.in, k, params[k], v)
			}
		}
	}
	for _, in := range []string{"text", "/", "text/", "/plain", "a/b/c", "; charset=x", "=?", "\x00"} {
		h := mustRead(t, "Content-Type: "+in+"\r\n\r\n").Header
		got, params, err := h.MediaType()
		if !errors.Is(err, ErrMalformed) || got != "text/plain" || params == nil {
			t.Errorf("%q: %q %v %v", in, got, params, err)
		}
	}
	h := mustRead(t, "A: b\r\n\r\n").Header
	if got, params, err := h.MediaType(); got != "text/plain" || params == nil || err != nil {
		t.Errorf("without a Content-Type: %q %v %v", got, params, err)
	}
}

// Long values must not take more than linear time: what takes a second here
// would take hours if it were quadratic.
func TestHostileValues(t *testing.T) {
	start := time.Now()
	for _, unit := range []string{"(", "\"", "a@b.example,", "=?", "=?utf-8?Q?x?= ", "=?a?q?", "a:", "<", "a*0=b;", ";", "\\", "=\xe8", "x ", "a;b=(", "[", "a@["} {
		v := strings.Repeat(unit, 300_000/len(unit))
		m := mustRead(t, "To: "+v+"\r\n\r\n")
		m.Header.Text("To")
		_, _ = m.Header.Addresses("To")
		m = mustRead(t, "Content-Type: text/plain; "+v[:60_000]+"\r\nContent-Disposition: inline; "+v[:60_000]+"\r\n\r\n")
		if p, err := m.Structure(); err != nil {
			t.Error(err)
		} else {
			p.FileName()
		}
		EncodeHeader("X", "", v[:100_000])
		if d := time.Since(start); d > 20*time.Second {
			t.Fatalf("%q: %v", unit, d)
		}
		start = time.Now()
	}
}

func FuzzMediaType(f *testing.F) {
	for _, s := range []string{"text/plain; name*0*=utf-8''a%20; name*1=b", "multipart/mixed; boundary=\"a\\\"b\";", "a/b; c=d (e); f", "text/plain; x*1=a; x*=b",
		"A/B; C=d;\te=\"f; g\"", "a/b; c=d; C=e", "a/b; c=\"\"", "a/b;", "a/b c", "a; b=c d", "a/b; c=\"*\"", "a/b; c=\"d", "/b", "a/", "inline; Filename=\"a b\"", "x; filename=a; b=c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		h := Header{[]Field{{[]byte("Content-Type: " + v + "\r\n")}}}
		if quick, plain, ok := parsePlain(v); ok {
			if slow, any := parseAny(v); quick != slow || !maps.Equal(plain, any) {
				t.Errorf("%q is read quickly as %q %q, else as %q %q", v, quick, plain, slow, any)
			}
		}
		if name, ok := plainFileName(v); ok {
			if _, any := parseAny(v); any["filename"] != name {
				t.Errorf("%q: the file name is %q quickly, else %q", v, name, any["filename"])
			}
		}
		mediaType, params, _ := h.MediaType()
		if !strings.Contains(mediaType, "/") || params == nil {
			t.Errorf("%q: %q %v", v, mediaType, params)
		}
		again, params2, _ := h.MediaType()
		if again != mediaType || len(params2) != len(params) {
			t.Errorf("%q is read in two ways", v)
		}
		for k, v := range params {
			if params2[k] != v {
				t.Errorf("parameter %q is read in two ways: %q, %q", k, v, params2[k])
			}
		}
	})
}

func FuzzAddresses(f *testing.F) {
	f.Add("\"a b\"@x.example, Nicol\xf2 <n@x>, g: a@b;")
	f.Add("\"Per conto di: a@b.example\" <c-d.e+f_g@h.example>")
	f.Add("\"a\" <b.@c>")
	f.Add("\"a\" <b@c..d>")
	f.Add(".a@b")
	f.Add("=?x?Q?a?= <\"\\\"\"@[1.2.3.4]>")
	f.Fuzz(func(t *testing.T, v string) {
		if quick, ok := plainAddress(v); ok {
			if slow, err := addresses.ParseList(v); err != nil || len(slow) != 1 || addrSpec(slow[0]) != quick {
				t.Errorf("%q is read quickly as %q, else as %q, %v", v, quick, slow, err)
			}
		}
		h := Header{[]Field{{[]byte("To: " + v + "\r\n")}}}
		list, err := h.Addresses("To")
		if err != nil {
			return
		}
		for _, a := range list {
			h := Header{[]Field{{[]byte("To: <" + string(a) + ">\r\n")}}}
			again, err := h.Addresses("To")
			if err != nil || !slices.Equal(again, []pec.Address{a}) {
				t.Errorf("%q in %q is read as %q, %v", a, v, again, err)
			}
		}
	})
}
