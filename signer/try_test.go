package signer_test

import (
	"errors"
	"testing"

	"pecd/signer"
)

// TestTry: the key that is in force is used once, and a key that is away is told.
func TestTry(t *testing.T) {
	h := &hardware{}
	_, id := hardwareIdentity(t, h)
	s := signer.NewSigner(id)
	if err := s.Try(t.Context(), testTime); err != nil || h.used.Load() != 1 {
		t.Errorf("%v, and the key was used %d times", err, h.used.Load())
	}
	h.err = signer.ErrKeyUnavailable
	if err := s.Try(t.Context(), testTime); !errors.Is(err, signer.ErrKeyUnavailable) {
		t.Errorf("with the key away: %v", err)
	}
	h.err, h.wrong = nil, true
	if err := s.Try(t.Context(), testTime); !errors.Is(err, signer.ErrIdentity) {
		t.Errorf("with a key that is wrong: %v", err)
	}
}
