package revocation

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

func rsaKey(n *big.Int) *rsa.PublicKey { return &rsa.PublicKey{N: n, E: 65537} }

// FuzzList: whatever comes as a list, nothing panics, and what the authority did
// not sign says nothing.
func FuzzList(f *testing.F) {
	s := newScene(f)
	cert := s.certificate("/crl")
	with := func(x pkix.Extension) []byte {
		l := s.template(revoke(cert, start, reasonHold))
		l.ExtraExtensions = []pkix.Extension{x}
		return s.sign(l, s.ca)
	}
	genuine := [][]byte{s.list(), s.list(revoke(cert, start.Add(-day), 1)),
		with(extension(f, oidPoint, true, []byte{0x30, 3, 0x81, 1, 0xff})),
		with(extension(f, oidPoint, true, []byte{0x30, 10, 0xa0, 8, 0xa0, 6, 0x86, 4, 'h', 't', 't', 'p'})),
		with(extension(f, oidExpired, false, mustTime(f, start))),
		with(extension(f, oidDelta, true, big.NewInt(1))),
	}
	for _, g := range genuine {
		f.Add(g)
		f.Add(g[:len(g)/2])
	}
	f.Add([]byte("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := parseList(data)
		if (e == nil) != (err != nil) {
			t.Fatalf("%v, %v", e, err)
		}
		if err != nil {
			return
		}
		e.covers(cert)
		_ = e.answers(cert, start, start, time.Hour)
		judge([]*evidence{e}, cert, start)
		if err := e.signedBy(s.ca.Certificate); err == nil && !signedContent(genuine, data) {
			t.Errorf("a forgery: %x", data)
		}
	})
}

// signedContent reports whether data holds what one of genuine signs. A
// signature may be written in more than one way.
func signedContent(genuine [][]byte, data []byte) bool {
	got, err := x509.ParseRevocationList(data)
	if err != nil {
		return true // PEM
	}
	for _, g := range genuine {
		if l, err := x509.ParseRevocationList(g); err == nil && bytes.Equal(l.RawTBSRevocationList, got.RawTBSRevocationList) {
			return true
		}
	}
	return false
}

// FuzzAnswer: the same for what comes from a responder.
func FuzzAnswer(f *testing.F) {
	s := newScene(f)
	cert := s.certificate("/ocsp")
	responder, key := s.delegate(s.ca)
	genuine := [][]byte{s.answerOf(cert, ocsp.Good), s.answerOf(cert, ocsp.Revoked),
		s.answerBy(responder, key, cert, ocsp.Good, func(r *ocsp.Response) { r.Certificate = responder })}
	for _, g := range append(genuine, ocsp.TryLaterErrorResponse, s.answerOf(cert, ocsp.Unknown)) {
		f.Add(g)
		f.Add(g[:len(g)/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := parseAnswer(data, cert, s.ca.Certificate, time.Hour)
		if (e == nil) != (err != nil) {
			t.Fatalf("%v, %v", e, err)
		}
		if err != nil {
			return
		}
		got, err := ocsp.ParseResponse(data, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range genuine {
			if r, err := ocsp.ParseResponse(g, nil); err == nil && bytes.Equal(r.TBSResponseData, got.TBSResponseData) {
				return
			}
		}
		t.Errorf("a forgery: %x", data)
	})
}
