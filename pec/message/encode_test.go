package message

import (
	"mime"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEncodeHeader(t *testing.T) {
	words := strings.Repeat("parola ", 20) + "fine"
	for _, tt := range []struct{ prefix, text, want string }{
		{"", "avvenuta-consegna", "Subject: avvenuta-consegna\r\n"},
		{"", "", "Subject: \r\n"},
		{"CONSEGNA: ", "", "Subject: CONSEGNA: \r\n"},
		{"CONSEGNA: ", "a  b", "Subject: CONSEGNA: a  b\r\n"},
		{"CONSEGNA: ", " a", "Subject: CONSEGNA:  a\r\n"},
		{"CONSEGNA: ", "a ", "Subject: CONSEGNA: =?UTF-8?Q?a_?=\r\n"},
		{"", " a", "Subject: =?UTF-8?Q?_a?=\r\n"},
		{"CONSEGNA: ", "perché no", "Subject: CONSEGNA: =?UTF-8?Q?perch=C3=A9_no?=\r\n"},
		{"CONSEGNA: ", "èèèè", "Subject: CONSEGNA: =?UTF-8?B?w6jDqMOow6g=?=\r\n"},
		{"CONSEGNA: ", "=?x", "Subject: CONSEGNA: =?UTF-8?B?PT94?=\r\n"},
		{"CONSEGNA: ", "a\r\nBcc: b", "Subject: CONSEGNA: =?UTF-8?B?YQ0KQmNjOiBi?=\r\n"},
		{"CONSEGNA: ", "a\xe8", "Subject: CONSEGNA: =?UTF-8?B?Ye+/vQ==?=\r\n"},
		{"Re:", "è", "Subject: =?UTF-8?B?UmU6w6g=?=\r\n"},
		{"A  B:  ", "è", "Subject: A  B:  =?UTF-8?B?w6g=?=\r\n"},
		{"perché: ", "a", "Subject: =?UTF-8?Q?perch=C3=A9=3A_a?=\r\n"},
		{"", words, "Subject:" + strings.Repeat(" parola", 9) + "\r\n" + strings.Repeat(" parola", 10) + "\r\n parola fine\r\n"},
		{"", long(900), "Subject: " + long(900) + "\r\n"},
		{"a ", long(800), "Subject: a\r\n " + long(800) + "\r\n"},
	} {
		if got := string(EncodeHeader("Subject", tt.prefix, tt.text)); got != tt.want {
			t.Errorf("%q + %.50q:\ngot  %q\nwant %q", tt.prefix, tt.text, got, tt.want)
		}
	}
}

func TestEncodeHeaderLong(t *testing.T) {
	if raw := string(EncodeHeader("Subject", "", long(901))); strings.Contains(raw, long(100)) {
		t.Errorf("a line too long to be sent: %q", raw)
	}
	for _, text := range []string{
		long(901),
		strings.Repeat(" ", 200) + "a",
		strings.Repeat("perché così è più facile 🏛 ", 4),
		strings.Repeat("è", 60),
		strings.Repeat("🏛", 40),
		strings.Repeat("\x00", 60),
	} {
		for n := range 80 {
			checkHeader(t, "Subject", "POSTA CERTIFICATA: ", long(n)+text)
			checkHeader(t, "Subject", long(n)+" \xe8: ", text)
			checkHeader(t, long(n+1), "", text)
			checkHeader(t, "Subject", long(n)+strings.Repeat(" ", n), "")
		}
	}
}

// checkHeader checks what holds for every field that is generated.
func checkHeader(t *testing.T, name, prefix, text string) {
	t.Helper()
	raw := EncodeHeader(name, prefix, text)
	m, err := Read(Bytes(raw))
	if err != nil {
		return // over the limits of a header
	}
	if len(m.Header.Fields) != 1 || m.Body.Len != 0 || m.Header.Fields[0].Name() != name {
		t.Fatalf("%q is not one field", raw)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(string(raw), "\r\n"), "\r\n")
	for i, line := range lines {
		line = strings.TrimSuffix(line, "\r\n")
		if i > 0 && strings.Trim(line, " ") == "" {
			t.Errorf("a line of white space in %q", raw)
		}
		if len(line) > 998 {
			t.Errorf("a line of %d octets", len(line))
		}
		for _, r := range line {
			if r < ' ' || r > '~' {
				t.Errorf("%q in %q", r, line)
			}
		}
		if len(line) > max(maxColumns, len(name)+2+minWord) && strings.Contains(line, "=?") {
			t.Errorf("%d columns: %q", len(line), line)
		}
	}
	value := strings.ReplaceAll(strings.TrimPrefix(string(raw), name+":"), "\r\n", "")
	got, err := new(mime.WordDecoder).DecodeHeader(strings.TrimPrefix(value, " "))
	valid := func(s string) string { return strings.ToValidUTF8(s, string(utf8.RuneError)) }
	if want := valid(prefix) + valid(text); err != nil || got != want {
		t.Errorf("%q decodes to %q, %v, want %q", raw, got, err, want)
	}
	for word := range strings.FieldsSeq(value) {
		if strings.HasPrefix(word, "=?") {
			one, err := new(mime.WordDecoder).Decode(word)
			if err != nil || len(word) > maxWord || !utf8.ValidString(one) {
				t.Errorf("word %q: %q, %v", word, one, err)
			}
		}
	}
}

func FuzzEncodeHeader(f *testing.F) {
	f.Add("POSTA CERTIFICATA: ", "perché no")
	f.Add("", " a  b ")
	f.Add("è: ", "=?utf-8?q?x?=")
	f.Add("  ", "\xe8")
	f.Add("a: ", strings.Repeat("x", 901))
	f.Fuzz(func(t *testing.T, prefix, text string) {
		checkHeader(t, "Subject", prefix, text)
	})
}
