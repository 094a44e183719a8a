package signer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ErrSeal says that octets are not a manifest of the register that the identity
// may sign.
var ErrSeal = errors.New("signer: not a manifest of the provider's register")

// sealFormat is the format of a manifest; package logstore/seal writes it.
const sealFormat = "pecd-seal-1"

// maxSeal bounds a manifest, in octets; they have about 1 KB.
const maxSeal = 64 << 10

// SignSeal returns a manifest of a day of the register inside a SignedData in DER,
// signed at the instant at with the identity in force then (DPR 68/2005, art. 10).
// It is not a way to sign other octets: what is not a manifest sealed at that
// instant, as logstore/seal writes it, is refused. Such errors wrap ErrSeal, and
// the key was not used then.
func (s *Signer) SignSeal(ctx context.Context, manifest []byte, at time.Time) ([]byte, error) {
	t := s.at(at)
	if t.prepared != nil {
		return nil, t.prepared
	}
	if err := checkSeal(manifest, at); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeal, err)
	}
	detached, err := t.signDigest(ctx, sha256.Sum256(manifest), at)
	if err != nil {
		return nil, err
	}
	return enclose(detached, manifest)
}

// checkSeal reads a manifest: all fields of one, none other, and that it was made
// at the instant at, after the end of its day.
func checkSeal(manifest []byte, at time.Time) error {
	if len(manifest) > maxSeal {
		return fmt.Errorf("more than %d octets", maxSeal)
	}
	var m struct {
		Format, Provider, Day, Zone string
		Text                        string `json:"text_format"`
		Since, Until, Sealed        time.Time
		SealedUnix                  int64 `json:"sealed_unix"`
		First, Last, Entries        int64
		ChainBefore                 string `json:"chain_before"`
		ChainAfter                  string `json:"chain_after"`
		TextSHA256                  string `json:"text_sha256"`
		RecordsSHA256               string `json:"records_sha256"`
		PreviousSHA256              string `json:"previous_sha256"`
	}
	d := json.NewDecoder(bytes.NewReader(manifest))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return err
	}
	switch {
	case len(bytes.TrimSpace(manifest[d.InputOffset():])) > 0:
		return errors.New("octets after the end")
	case m.Format != sealFormat || m.Provider == "" || m.Day == "" || m.Zone == "":
		return fmt.Errorf("format %.40q", m.Format)
	case m.SealedUnix != at.Unix() || m.Sealed.Unix() != at.Unix() || at.Before(m.Until) || !m.Since.Before(m.Until):
		return errors.New("its times are not those of a seal made now")
	case m.First < 1 || m.Last-m.First != m.Entries-1 || m.Entries < 0:
		return errors.New("its numbers cannot be")
	}
	for _, digest := range []string{m.ChainBefore, m.ChainAfter, m.TextSHA256, m.RecordsSHA256, m.PreviousSHA256} {
		if len(digest) != 2*sha256.Size {
			return errors.New("a digest of another length")
		}
	}
	return nil
}
