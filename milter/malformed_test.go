package milter_test

import (
	"strings"
	"testing"

	"pecd/milter"
	"pecd/milter/miltertest"
)

// A field that cannot be told as it was sent must not be left out in silence:
// go-milter would do that with a NUL in the value, and answer out of turn.
func TestMalformedField(t *testing.T) {
	r := newRecorder()
	c := start(t, milter.Options{Backend: r,
		Malformed: milter.Verdict{Action: milter.Reject, Reply: "550 5.6.0 Malformed header field"}}).dial(t)
	for name, field := range map[string]string{
		"NUL in value":     "X\x00 a\x00b\x00",
		"NUL first":        "X\x00\x00abc\x00",
		"NUL last":         "X\x00abc\x00\x00",
		"no name":          "\x00abc\x00",
		"empty":            "",
		"no value":         "X\x00",
		"no end":           "X\x00abc",
		"colon in name":    "X:\x00abc\x00",
		"line end in name": "X\nY\x00abc\x00",
		"two fields":       "X\x00 a\nBcc: b\x00",
		"line end at end":  "X\x00 a\n\x00",
		"empty line":       "X\x00 a\n\n b\x00",
		"maybe cut":        "X\x00" + strings.Repeat("x", 49_999) + "\x00",
		"not kept":         "X\x00" + strings.Repeat("x", 1<<20-4) + "\x00",
	} {
		t.Run(name, func(t *testing.T) {
			a, err := c.Mail(plain.From, nil)
			does(t, a, err)
			a, err = c.Rcpt("bob@x", nil)
			does(t, a, err)
			a, err = c.Field("Subject", " x")
			does(t, a, err)
			if err := c.Packet('L', []byte(field)); err != nil {
				t.Fatal(err)
			}
			a, err = c.EndHeader(nil)
			does(t, a, err)
			if a, err := c.End(nil); err != nil || a.Reply != "550 5.6.0 Malformed header field" {
				t.Errorf("answer %q %q, %v", a.Code, a.Reply, err)
			}
			if m := r.next(t); m.aborts != 1 || m.ends != 0 {
				t.Errorf("aborted %d times, ended %d times", m.aborts, m.ends)
			}
		})
	}
	mustSend(t, c, plain, 'd')
	r.next(t)
}

// TestMalformedFrom: who is asked about a malformed message knows its envelope, and a
// panic there puts it off.
func TestMalformedFrom(t *testing.T) {
	r := newRecorder()
	c := start(t, milter.Options{Backend: r, Malformed: milter.Verdict{Action: milter.Reject}, MalformedFrom: func(env milter.Envelope) milter.Verdict {
		switch env.Sender + " " + strings.Join(env.Recipients, " ") {
		case "good@x bob@x":
			return milter.Verdict{Action: milter.Continue}
		case "bad@x bob@x":
			return milter.Verdict{Action: milter.Reject, Reply: "550 5.6.0 No"}
		}
		panic("on purpose")
	}}).dial(t)
	for from, want := range map[string]miltertest.Answer{"good@x": {Code: 'c'}, "bad@x": {Code: 'y', Reply: "550 5.6.0 No"}, "odd@x": {Code: 't'}} {
		m := miltertest.Mail{From: from, To: []string{"bob@x"}, Bytes: []byte("X: " + strings.Repeat("x", 50_000) + "\r\n\r\n")}
		if a := mustSend(t, c, m, want.Code); a.Reply != want.Reply {
			t.Errorf("%s: %q", from, a.Reply)
		}
		if m := r.next(t); m.aborts != 1 || m.ends != 0 {
			t.Errorf("%s: aborted %d times, ended %d times", from, m.aborts, m.ends)
		}
	}
}
