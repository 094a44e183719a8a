package signer

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pecd/pec/message"
)

func TestToDER(t *testing.T) {
	long := strings.Repeat("61", 200)
	for name, tc := range map[string]struct{ ber, der, err string }{
		"primitive":          {ber: "0201 05", der: "0201 05"},
		"NULL":               {ber: "0500", der: "0500"},
		"sequence":           {ber: "3003 020105", der: "3003 020105"},
		"indefinite":         {ber: "3080 020105 0000", der: "3003 020105"},
		"empty, indefinite":  {ber: "3080 0000", der: "3000"},
		"nested, indefinite": {ber: "3080 3080 0500 0000 020105 0000", der: "3007 3002 0500 020105"},
		"definite within":    {ber: "3080 3002 0500 0000", der: "3004 3002 0500"},
		"indefinite within":  {ber: "3006 3080 0500 0000", der: "3004 3002 0500"},
		"long length":        {ber: "30820003 020105", der: "3003 020105"},
		"four octets":        {ber: "0484000000c8" + long, der: "0481c8" + long},
		"long content":       {ber: "3080 0481c8" + long + "0000", der: "3081cb 0481c8" + long},
		"chunks":             {ber: "2480 0402 6161 0401 62 0000", der: "0403 616162"},
		"definite chunks":    {ber: "2407 0402 6161 0401 62", der: "0403 616162"},
		"chunks in chunks":   {ber: "2480 2480 0401 61 0000 0401 62 0000", der: "0402 6162"},
		"no chunks":          {ber: "2480 0000", der: "0400"},
		"chunks beside":      {ber: "3080 2480 0401 61 0000 020105 0000", der: "3006 0401 61 020105"},
		"high tag":           {ber: "bf8101 80 0500 0000", der: "bf8101 02 0500"},
		"zero octets inside": {ber: "3004 0402 0000", der: "3004 0402 0000"},

		"empty":                  {ber: "", err: "truncated"},
		"no length":              {ber: "30", err: "truncated"},
		"no content":             {ber: "0402 61", err: "truncated"},
		"longer than around":     {ber: "3003 0402 6161", err: "truncated"},
		"length cut":             {ber: "3082 01", err: "truncated"},
		"length of five octets":  {ber: "3085 0000000001 00", err: "too large"},
		"length of 4 GB":         {ber: "3084 ffffffff 00", err: "truncated"},
		"no end":                 {ber: "3080 0500", err: "truncated"},
		"half an end":            {ber: "3080 0500 00", err: "end of contents"},
		"end without beginning":  {ber: "0000", err: "end of contents"},
		"end in definite":        {ber: "3004 0500 0000", err: "end of contents"},
		"end reaches too far":    {ber: "3003 3080 00 00", err: "end of contents"},
		"primitive, indefinite":  {ber: "0480 0000", err: "primitive"},
		"octets after the end":   {ber: "0500 00", err: "after the end"},
		"two values":             {ber: "0500 0500", err: "after the end"},
		"chunk of another type":  {ber: "2480 020105 0000", err: "holds something else"},
		"tag without end":        {ber: "3fffffff", err: "truncated"},
		"tag number too large":   {ber: "3fffffffffff01 00", err: "too large"},
		"deep":                   {ber: strings.Repeat("3080", 65), err: "nested deeper"},
		"deep, definite lengths": {ber: deepDefinite(65), err: "nested deeper"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := toDER(unhex(t, tc.ber))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("got %x, %v, want an error with %q", got, err, tc.err)
				}
				return
			}
			if want := unhex(t, tc.der); err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %x, %v, want %x", got, err, want)
			}
		})
	}
	if _, err := toDER(append(bytes.Repeat([]byte{0x30, 0x80}, 64), make([]byte, 128)...)); err != nil {
		t.Errorf("depth 64: %v", err)
	}
}

// TestHostileNesting: a million levels would end the process in pkcs7.Parse.
func TestHostileNesting(t *testing.T) {
	for _, unit := range [][]byte{{0x30, 0x80}, {0x24, 0x80}, {0xa0, 0x80}, {0xff, 0x81, 0x01, 0x80}} {
		if _, err := readSignedData(bytes.Repeat(unit, 4_000_000)); !errors.Is(err, ErrMalformedSignature) {
			t.Errorf("%x: %v", unit, err)
		}
	}
	many := append([]byte{0x30, 0x80}, bytes.Repeat([]byte{0x05, 0x00}, maxElements)...)
	if _, err := toDER(append(many, 0, 0)); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%d values: %v", maxElements, err)
	}
}

func deepDefinite(n int) string {
	b := []byte{}
	for range n {
		b = tlv(tagSequence, b)
	}
	return hex.EncodeToString(b)
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzToDER: what comes out is one value that encoding/asn1 can walk through,
// and DER stays as it is; what is read from it never panics.
func FuzzToDER(f *testing.F) {
	for _, s := range []string{"3080020105 0000", "2480 0402 6161 0401 62 0000", "3003020105", "308030800000", "bf8101800500 0000"} {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(bytes.Repeat([]byte{0x30, 0x80}, 100))
	for _, p7s := range storedStructures(f) {
		f.Add(p7s)
	}
	f.Fuzz(func(t *testing.T, ber []byte) {
		if sd, err := readSignedData(ber); err == nil {
			sd.signer.certificate(sd.certificates)
		} else if !errors.Is(err, ErrMalformedSignature) {
			t.Errorf("readSignedData: %v", err)
		}
		der, err := toDER(ber)
		if err != nil {
			return
		}
		again, err := toDER(der)
		if err != nil || !bytes.Equal(again, der) {
			t.Fatalf("%x became %x, then %x: %v", ber, der, again, err)
		}
		if len(der) > len(ber)+4*len(ber) {
			t.Errorf("%d octets became %d", len(ber), len(der))
		}
		var v asn1.RawValue
		if rest, err := asn1.Unmarshal(der, &v); err == nil && len(rest) > 0 {
			t.Errorf("%x is more than one value", der)
		}
	})
}

// storedStructures returns the signatures in testdata/verify.
func storedStructures(f *testing.F) [][]byte {
	f.Helper()
	files, err := filepath.Glob("testdata/verify/*.eml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no stored messages: %v", err)
	}
	var all [][]byte
	for _, file := range files {
		mail, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		m, err := message.Read(message.Bytes(mail))
		if err != nil {
			f.Fatal(err)
		}
		_, part, _, err := signedParts(m)
		if err != nil {
			f.Fatal(err)
		}
		p7s, err := readSignature(part)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, p7s)
	}
	return all
}

// TestCRLFWriter splits a text at every place: the writer must not care.
func TestCRLFWriter(t *testing.T) {
	const text = "\na\r\n\r\nb\n\n\rc\r\r\n\r"
	const want = "\r\na\r\n\r\nb\r\n\r\n\rc\r\r\n\r"
	for i := range len(text) {
		for j := i; j <= len(text); j++ {
			var out bytes.Buffer
			w := &crlfWriter{to: &out}
			for _, p := range []string{text[:i], text[i:j], text[j:]} {
				if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
					t.Fatal(n, err)
				}
			}
			if out.String() != want {
				t.Fatalf("split at %d and %d: %q", i, j, out.String())
			}
		}
	}
}
