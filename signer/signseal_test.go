package signer_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"pecd/signer"
)

// aSeal is a manifest as logstore/seal writes it.
const aSeal = `{
  "format": "pecd-seal-1",
  "text_format": "pecd-text-1",
  "provider": "Alfa PEC S.p.A.",
  "day": "2026-03-29",
  "zone": "Europe/Rome",
  "since": "2026-03-29T00:00:00+01:00",
  "until": "2026-03-30T00:00:00+02:00",
  "sealed": "2026-03-30T00:10:00+02:00",
  "sealed_unix": 1774822200,
  "first": 3,
  "last": 4,
  "entries": 2,
  "chain_before": "0100000000000000000000000000000000000000000000000000000000000000",
  "chain_after": "0200000000000000000000000000000000000000000000000000000000000000",
  "text_sha256": "0300000000000000000000000000000000000000000000000000000000000000",
  "records_sha256": "0400000000000000000000000000000000000000000000000000000000000000",
  "previous_sha256": "0000000000000000000000000000000000000000000000000000000000000000"
}
`

// TestSignSeal: OpenSSL and we read the manifest out of it.
func TestSignSeal(t *testing.T) {
	ca, alfa := newAlfa(t)
	at := time.Unix(1774822200, 0)
	p7m, err := signer.NewSigner(alfa.Identity).SignSeal(t.Context(), []byte(aSeal), at)
	if err != nil {
		t.Fatal(err)
	}
	if content := openssl(t, p7m, "cms", "-verify", "-binary", "-inform", "DER", "-CAfile", ca.File); string(content) != aSeal {
		t.Errorf("%s", content)
	}
	got, report, err := signer.NewVerifier(ca.Pool()).OpenData(t.Context(), p7m, at)
	if err != nil || string(got) != aSeal || !report.SigningTime.Equal(at) {
		t.Errorf("%s, %v", got, err)
	}
}

// TestSignSealRefuses: the key signs manifests of now and nothing else.
func TestSignSealRefuses(t *testing.T) {
	_, alfa := newAlfa(t)
	at := time.Unix(1774822200, 0)
	sign := func(manifest string, at time.Time) error {
		p7m, err := signer.NewSigner(alfa.Identity).SignSeal(t.Context(), []byte(manifest), at)
		if (p7m == nil) != (err != nil) {
			t.Errorf("%x, %v", p7m, err)
		}
		return err
	}
	for name, m := range map[string]string{
		"other octets": "Content-Type: text/plain\r\n\r\nx",
		"format":       strings.Replace(aSeal, "pecd-seal-1", "x", 1),
		"field":        strings.Replace(aSeal, `"first"`, `"more": 1, "first"`, 1),
		"missing":      strings.Replace(aSeal, `"provider": "Alfa PEC S.p.A.",`, "", 1),
		"numbers":      strings.Replace(aSeal, `"last": 4`, `"last": 5`, 1),
		"digest":       strings.Replace(aSeal, `"0300`, `"03`, 1),
		"day not over": strings.Replace(aSeal, "2026-03-30T00:00:00+02:00", "2026-03-31T00:00:00+02:00", 1),
		"more":         aSeal + "x",
		"large":        string(bytes.Repeat([]byte(" "), 70000)) + aSeal,
	} {
		if err := sign(m, at); !errors.Is(err, signer.ErrSeal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := sign(aSeal, at.Add(time.Hour)); !errors.Is(err, signer.ErrSeal) {
		t.Errorf("another instant: %v", err)
	}
}
