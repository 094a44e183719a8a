package directory

import (
	"bytes"
	"reflect"
	"testing"
)

// FuzzParse: what parses can be written and parses to the same again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(root + alfa(certificate(alfaNext)) + beta()))
	f.Add([]byte("version: 1\r\n\r\n# c\r\n " + alfa()))
	f.Add([]byte(alfa("description:< file:///etc/hostname")))
	f.Add([]byte(alfa("description:\n < file:///etc/hostname")))
	f.Add([]byte("dn:: bz1wb3N0YWNlcnQ=\n\n" + beta("providerUnit:: w6g=")))
	f.Fuzz(func(t *testing.T, ldif []byte) {
		d, err := Parse(ldif)
		if err != nil {
			if d != nil {
				t.Error("a directory beside an error")
			}
			return
		}
		first := values(d)
		var out bytes.Buffer
		if err := Marshal(&out, first); err != nil {
			t.Fatalf("%v\n%q", err, ldif)
		}
		again, err := Parse(out.Bytes())
		if err != nil {
			t.Fatalf("%v\n%q\n%s", err, ldif, out.Bytes())
		}
		if second := values(again); !reflect.DeepEqual(first, second) {
			t.Errorf("%+v became %+v", first, second)
		}
	})
}

func values(d *Directory) []Provider {
	var ps []Provider
	for _, p := range d.Providers() {
		v := *p
		v.in = nil
		ps = append(ps, v)
	}
	return ps
}
