package message

import (
	"bytes"
	"strings"
	"testing"
)

const odd = "Received: from x\r\n\tby y\r\nFrom:anna@alfa.example\r\nCc:\tbob@beta.example\r\nX : y\r\nX-Empty:\r\n" +
	"X-Fold: a\r\n  \r\n \t b\r\nSubject: caff\xe8  \r\n"

const oddBody = "\r\n.\r\n\x00\r caff\xe8 \n\r\nMessage-ID: <in@the.body>\r\nX-Riferimento-Message-ID: x\r\nno end"

func TestRelabel(t *testing.T) {
	for _, tt := range []struct{ name, in, msgid, want string }{
		{"in the middle", "A: 1\r\nMessage-Id: <c@x>\r\nB: 2\r\n\r\nbody", "<c@x>",
			"A: 1\r\nMessage-Id: <id@p>\r\nB: 2\r\nX-Riferimento-Message-ID: <c@x>\r\n\r\nbody"},
		{"odd fields and body", odd + "MESSAGE-ID\t:<c@x>\r\n" + oddBody, "<c@x>",
			odd + "MESSAGE-ID: <id@p>\r\nX-Riferimento-Message-ID: <c@x>\r\n" + oddBody},
		{"folded Message-ID", "Message-ID:\r\n <c@x>\r\nA: 1\r\n\r\n", "<c@x>",
			"Message-ID: <id@p>\r\nA: 1\r\nX-Riferimento-Message-ID: <c@x>\r\n\r\n"},
		{"none", "A: 1\r\n\r\nbody", "", "A: 1\r\nMessage-ID: <id@p>\r\n\r\nbody"},
		{"several", "message-id: <a@x>\r\nA: 1\r\nMessage-ID: <b@x>\r\n\r\n", "<a@x>",
			"message-id: <id@p>\r\nA: 1\r\nX-Riferimento-Message-ID: <a@x>\r\n\r\n"},
		{"forged reference", "X-Riferimento-Message-ID: <z@x>\r\nMessage-ID: <a@x>\r\nx-riferimento-message-id:\r\n <y@x>\r\nA: 1\r\n\r\n", "",
			"Message-ID: <id@p>\r\nA: 1\r\n\r\n"},
		{"names that only begin like it", "Message-ID-X: 1\r\nMessage-I: 2\r\n\r\n", "",
			"Message-ID-X: 1\r\nMessage-I: 2\r\nMessage-ID: <id@p>\r\n\r\n"},
		{"bare LF", "Message-ID: <a@x>\nA: 1\n\nbody\n", "<a@x>",
			"Message-ID: <id@p>\nA: 1\nX-Riferimento-Message-ID: <a@x>\r\n\nbody\n"},
		{"no line end", "A: 1\r\nB: 2", "<a@x>", "A: 1\r\nB: 2\r\nMessage-ID: <id@p>\r\nX-Riferimento-Message-ID: <a@x>\r\n"},
		{"no line end, nothing appended", "Message-ID: <a@x>\r\nB: 2", "", "Message-ID: <id@p>\r\nB: 2"},
		{"no line end of the Message-ID", "A: 1\r\nMessage-ID: <a@x>", "<a@x>", "A: 1\r\nMessage-ID: <id@p>\r\nX-Riferimento-Message-ID: <a@x>\r\n"},
		{"no empty line", "A: 1\r\nnot a field\r\n", "", "A: 1\r\nMessage-ID: <id@p>\r\nnot a field\r\n"},
		{"no header", "\r\nbody", "", "Message-ID: <id@p>\r\n\r\nbody"},
		{"neither header nor empty line", " body: x", "", "Message-ID: <id@p>\r\n\r\n body: x"},
		{"nothing", "", "", "Message-ID: <id@p>\r\n"},
		{"long msgid", "A: 1\r\n\r\n", "<" + long(500) + "@x>", "A: 1\r\nMessage-ID: <id@p>\r\nX-Riferimento-Message-ID: <" + long(500) + "@x>\r\n\r\n"},
		{"hostile msgid", "A: 1\r\n\r\n", "<a\rB: 2>", "A: 1\r\nMessage-ID: <id@p>\r\nX-Riferimento-Message-ID: =?UTF-8?B?PGENQjogMj4=?=\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := Bytes(tt.in)
			m, err := Read(src)
			if err != nil {
				t.Fatal(err)
			}
			c := Relabel(m, "id@p", tt.msgid)
			var b bytes.Buffer
			if _, err := c.WriteTo(&b); err != nil {
				t.Fatal(err)
			}
			if got := b.String(); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if string(src) != tt.in {
				t.Errorf("the original became %q", src)
			}
		})
	}
}

func FuzzRelabel(f *testing.F) {
	f.Add([]byte(odd+"Message-Id: <c@x>\r\n"+oddBody), "<c@x>")
	f.Add([]byte(" body"), "")
	f.Add([]byte("A: 1\nX-Riferimento-Message-ID: x"), "<a b>")
	f.Fuzz(func(t *testing.T, in []byte, msgid string) {
		m, err := Read(Bytes(in))
		if err != nil {
			return
		}
		got, err := Read(Relabel(m, "id@p", msgid))
		if err != nil {
			return
		}
		if got.Header.Get(messageID) != "<id@p>" || got.Header.Count(messageID) != 1 {
			t.Errorf("Message-ID %q", got.Header.Values(messageID))
		}
		if n := len(got.Header.Fields); got.Header.Has("X-Riferimento-Message-ID") != (msgid != "") ||
			msgid != "" && !strings.HasPrefix(string(got.Header.Fields[n-1].Raw), "X-Riferimento-Message-ID: ") {
			t.Errorf("fields %q", got.Header.Fields)
		}
		if !bytes.Equal(at(t, got.Source, got.Body), at(t, m.Source, m.Body)) {
			t.Error("the body changed")
		}
		want, rest := others(m.Header), others(got.Header)
		if len(rest)-len(want) > 2 || !strings.HasPrefix(rest, want) {
			t.Errorf("fields %q became %q", want, rest)
		}
	})
}

// others returns the fields that Relabel does not touch.
func others(h Header) string {
	var b strings.Builder
	for _, f := range h.Fields {
		if n := strings.ToLower(f.Name()); n != "message-id" && n != "x-riferimento-message-id" {
			b.Write(f.Raw)
		}
	}
	return b.String()
}
