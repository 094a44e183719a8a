package dsn

import (
	"testing"

	"pecd/pec"
)

func TestError(t *testing.T) {
	cases := []struct {
		status, diagnostic string
		error              pec.ErrorCode
		code, text         string
	}{
		{"5.1.1", "", pec.ErrorNoDest, "5.1.1", noMailbox},
		{"5.1.0", "", pec.ErrorNoDest, "5.1.0", noMailbox},
		{"5.1.3", "", pec.ErrorNoDest, "5.1.3", noMailbox},
		{"5.1.6", "", pec.ErrorNoDest, "5.1.6", "casella trasferita, nuovo indirizzo non noto"},
		{"5.1.2", "", pec.ErrorNoDomain, "5.1.2", noDomain},
		{"5.4.4", "", pec.ErrorNoDomain, "5.4.4", noDomain},
		{"5.1.10", "556 5.1.10 null MX", pec.ErrorNoDomain, "5.1.10", "il dominio non riceve posta"},
		{"5.1.10", "550 5.1.10 not found", pec.ErrorNoDest, "5.1.10", noMailbox},
		{"5.1.8", "", pec.ErrorOther, "5.1.8", refused}, // about the sender
		{"5.2.1", "", pec.ErrorOther, "5.2.1", "casella disabilitata"},
		{"5.2.2", "", pec.ErrorOther, "5.2.2", "casella piena"},
		{"5.2.9", "", pec.ErrorOther, "5.2.9", subjects["2"]},
		{"5.3.4", "", pec.ErrorOther, "5.3.4", tooLarge},
		{"5.3.0", "", pec.ErrorOther, "5.3.0", subjects["3"]},
		{"5.4.1", "550 5.4.1 access denied", pec.ErrorOther, "5.4.1", refused},
		{"5.4.3", "", pec.ErrorOther, "5.4.3", subjects["4"]},
		{"5.6.1", "", pec.ErrorOther, "5.6.1", subjects["6"]},
		{"5.7.1", "", pec.ErrorOther, "5.7.1", subjects["7"]},
		{"5.0.0", "554 no", pec.ErrorOther, "5.0.0", refused},
		{"5.9.9", "", pec.ErrorOther, "5.9.9", refused},
		{"4.4.1", "", pec.ErrorOther, "5.4.7", expired},
		{"4.4.7", "", pec.ErrorOther, "5.4.7", expired},
		{"4.2.2", "", pec.ErrorOther, "5.4.7", expired},
		{"", "", pec.ErrorOther, "5.0.0", refused},
		{"2.0.0", "", pec.ErrorOther, "5.0.0", refused},
	}
	for _, c := range cases {
		r := Recipient{Action: Failed, Status: c.status, Diagnostic: c.diagnostic}
		if e, code, text := r.Error(); e != c.error || code != c.code || text != c.text {
			t.Errorf("%s %s: %q %q %q", c.status, c.diagnostic, e, code, text)
		}
		for _, a := range []Action{"", Delayed, Delivered, Relayed, Expanded} {
			r.Action = a
			if e, code, text := r.Error(); e != pec.NoError || code != "" || text != "" {
				t.Errorf("%s %q: %q %q %q", a, c.status, e, code, text)
			}
		}
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct{ status, diagnostic, want string }{
		{"5.1.1", "", "5.1.1"},
		{"5.1.1 (bad)", "", "5.1.1"},
		{"5.1.1000", "", ""},
		{"6.1.1", "", ""},
		{"x5.1.1", "", ""},
		{"", "smtp; 550 5.1.1 no", "5.1.1"},
		{"", "smtp;550-5.1.1 no", "5.1.1"},
		{"", "X-Unix; 67", ""},
		{"", "smtp; 550 see 5.1.1", ""},
		{"5.0.0", "smtp; 550 5.1.1 no", "5.1.1"},
		{"5.0.0", "smtp; 450 4.1.1 no", "5.0.0"}, // another class is another matter
		{"5.2.0", "smtp; 550 5.1.1 no", "5.2.0"},
	} {
		r := newRecipient(group{"status": c.status, "diagnostic-code": c.diagnostic})
		if r.Status != c.want {
			t.Errorf("%q, %q: %q, want %q", c.status, c.diagnostic, r.Status, c.want)
		}
	}
}

func TestAddress(t *testing.T) {
	for value, want := range map[string]pec.Address{
		"rfc822; bob@beta.example":            "bob@beta.example",
		"RFC822;bob@beta.example":             "bob@beta.example",
		"rfc822; <bob@beta.example>":          "bob@beta.example",
		"bob@beta.example":                    "bob@beta.example",
		`rfc822; "b  b"@beta.example`:         `"b  b"@beta.example`,
		"utf-8; \u017c@beta.example":          "\u017c@beta.example",
		`utf-8; \x{17C}\x{F3}b@beta.example`:  "\u017c\u00f3b@beta.example",
		`utf-8; \x{0A}\x{202E}a@beta.example`: "a@beta.example",
		`utf-8; \x{FFFFFF}a@beta.example`:     `\x{FFFFFF}a@beta.example`,
		"x400; /C=IT/":                        "",
		"local; bob":                          "",
		"rfc822;":                             "",
		"rfc822; bob\r@beta.example":          "bob @beta.example",
	} {
		if got := address(value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		original, final, asked pec.Address
		want                   bool
	}{
		{"bob@beta.example", "robert@beta.example", "bob@Beta.example", true},
		{"bob@beta.example", "robert@beta.example", "robert@beta.example", false},
		{"", "bob@beta.example", "bob@beta.example", true},
		{"bob+2Btag@beta.example", "", "bob+tag@beta.example", true},
		{"bob+2Btag@beta.example", "", "bob+2Btag@beta.example", true},
		{"bob+tag@beta.example", "", "bob+tag@beta.example", true},
		{"", "", "", false},
	} {
		r := Recipient{Original: c.original, Final: c.final}
		if got := r.Names(c.asked); got != c.want {
			t.Errorf("%+v names %q: %v", r, c.asked, got)
		}
	}
}
