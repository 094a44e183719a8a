package issue

import (
	"mime"
	"strings"
	"testing"
)

func TestParameter(t *testing.T) {
	for value, want := range map[string]string{
		"":               `name=""`,
		"a.pdf":          `name="a.pdf"`,
		`a"b\c`:          `name="a\"b\\c"`,
		"é.pdf":          "name*=UTF-8''%C3%A9.pdf",
		"=?UTF-8?Q?a?=":  "name*=UTF-8''%3D%3FUTF-8%3FQ%3Fa%3F%3D", // in quotes programs would read a
		"a\r\nb\x00":     "name*=UTF-8''a%0D%0Ab%00",
		"a\xff":          "name*=UTF-8''a%EF%BF%BD",
		"😀'*% -._~":      "name*=UTF-8''%F0%9F%98%80%27%2A%25%20-._~",
		"\u202egnp.exe":  "name*=UTF-8''%E2%80%AEgnp.exe",
		"perché sì no 1": "name*=UTF-8''perch%C3%A9%20s%C3%AC%20no%201",
	} {
		if got := parameter("name", value); got != ";\r\n\t"+want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
	// The standard library puts the pieces together.
	for _, value := range []string{strings.Repeat("a", 201), strings.Repeat("日本 ", 100), strings.Repeat("😀'", 77)} {
		field := "x/y" + parameter("name", value)
		_, params, err := mime.ParseMediaType(strings.ReplaceAll(field, "\r\n", ""))
		if err != nil || params["name"] != value {
			t.Errorf("%q reads as %q, %v", value, params["name"], err)
		}
		for _, line := range strings.Split(field, "\r\n") {
			if len(line) > 78 {
				t.Errorf("line of %d octets: %q", len(line), line)
			}
		}
	}
}
