package daticert

import (
	"strings"
	"testing"
	"time"
)

// readBoth reads data with quick and holds what it says against what reader says.
func readBoth(t *testing.T, data []byte) (ok bool) {
	t.Helper()
	for _, loc := range []*time.Location{nil, summer} {
		q := quick{rest: string(data)}
		got, quickly := q.document(loc)
		if !quickly {
			return false
		}
		r := newReader(data)
		want := r.document(loc)
		if r.err != nil {
			t.Fatalf("read quickly in spite of %v:\n%s", r.err, data)
		}
		sameEvent(t, got, want)
	}
	return true
}

func TestQuickReadsWhatMarshalWrites(t *testing.T) {
	for name, ev := range events() {
		data, err := Marshal(ev)
		if err != nil {
			t.Fatal(err)
		}
		if !readBoth(t, data) {
			t.Errorf("%s: not read quickly\n%s", name, data)
		}
	}
}

// TestQuickLeavesTheRest: of any octet that is left out, doubled or replaced,
// quick says the same as reader, or nothing.
func TestQuickLeavesTheRest(t *testing.T) {
	ev := events()["non-delivery"]
	ev.Taken = append(ev.Taken, "bruna@beta.example")
	data, err := Marshal(ev)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		for _, instead := range []string{"", string(data[i]) + string(data[i]), " ", "x", "&", "<", ">", "\"", "\x00", "\xff", "\ufffe", "\r", "0"} {
			readBoth(t, []byte(string(data[:i])+instead+string(data[i+1:])))
		}
	}
	whole := string(data)
	for _, odd := range []string{
		whole + " ", " " + whole, whole[:len(whole)-1], strings.ReplaceAll(whole, "\n", "\r\n"),
		strings.Replace(whole, "&amp;", "&amp", 1), strings.Replace(whole, "&amp;", "&#38;", 1), strings.Replace(whole, "&amp;", "&nbsp;", 1),
		strings.Replace(whole, "Alfa", "<!-- -->Alfa", 1), strings.Replace(whole, "Alfa", "<![CDATA[Alfa]]>", 1),
		strings.Replace(whole, "Alfa", "\ufffe", 1), strings.Replace(whole, "Alfa", "\xe8", 1), strings.Replace(whole, "Alfa", "\t", 1),
		strings.Replace(whole, "+0200", "+02:00", 1), strings.Replace(whole, "\"no-dest\"", "\" no-dest\"", 1),
		strings.Replace(whole, "04/07/2031", "31/02/2031", 1), strings.Replace(whole, "UTF-8", "utf-8", 1),
	} {
		if odd == whole || readBoth(t, []byte(odd)) {
			t.Errorf("read quickly:\n%q", odd)
		}
	}
}
