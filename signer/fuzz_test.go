package signer_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pecd/pec/message"
	"pecd/signer"
)

// FuzzVerify: whatever the message, the answer is one of the errors that exist,
// and what verifies verifies in all respects. The seeds in testdata/verify are
// genuine (TestStoredSignatures); making keys here would take longer than the
// fuzzing.
func FuzzVerify(f *testing.F) {
	for _, file := range storedSignatures(f) {
		mail, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(mail)
	}
	f.Add([]byte("Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\r\n0\r\n--b--"))
	v := storedVerifier(f)
	f.Fuzz(func(t *testing.T, mail []byte) {
		m, err := message.Read(message.Bytes(mail))
		if err != nil {
			return
		}
		r, err := v.Verify(m, testTime)
		if err == nil {
			if !r.SignatureHolds || !r.ContentIntact || r.ChainErr != nil || r.Entity == nil || r.Signer == nil {
				t.Errorf("verified with %+v", r)
			}
			return
		}
		for _, known := range []error{signer.ErrNoSignature, signer.ErrMalformedSignature, signer.ErrAltered,
			signer.ErrSignature, signer.ErrUntrusted, signer.ErrExpired, signer.ErrWeak} {
			if errors.Is(err, known) {
				return
			}
		}
		t.Errorf("unknown error %v", err)
	})
}

// TestStoredSignatures: signatures made once, in each form, go on verifying.
func TestStoredSignatures(t *testing.T) {
	v := storedVerifier(t)
	for _, file := range storedSignatures(t) {
		mail, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := v.Verify(read(t, mail), testTime); err != nil {
			t.Errorf("%s: %v, %+v", file, err, r)
		}
		if _, err := v.Verify(read(t, mail), testTime.AddDate(100, 0, 0)); !errors.Is(err, signer.ErrExpired) {
			t.Errorf("%s in a hundred years: %v", file, err)
		}
		if r, _ := v.Verify(read(t, mail), time.Time{}); r == nil {
			t.Errorf("%s at its own time: no report", file)
		}
	}
}

func storedSignatures(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/verify/*.eml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d stored messages, %v", len(files), err)
	}
	return files
}

func storedVerifier(t testing.TB) *signer.Verifier {
	t.Helper()
	anchors, _, err := signer.LoadAnchors("testdata/verify/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	return signer.NewVerifier(anchors)
}
