package timestamp

import (
	"bytes"
	"errors"
	"os"
	"testing"
)

func FuzzReadResponse(f *testing.F) {
	for _, file := range []string{"testdata/granted.tsr", "testdata/rejected.tsr"} {
		der, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, der []byte) {
		token, err := readResponse(der)
		if err == nil && !bytes.Contains(der, token) || err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrRejected) {
			t.Errorf("%x, %v", token, err)
		}
	})
}
