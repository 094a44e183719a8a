package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"pecd/logstore"
	"pecd/pec"
	"pecd/signer"
)

// A leavingKey is a key that may be away.
type leavingKey struct {
	crypto.Signer
	away *atomic.Bool
}

func (k leavingKey) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if k.away.Load() {
		return nil, fmt.Errorf("%w: on purpose", signer.ErrKeyUnavailable)
	}
	return k.Signer.Sign(r, digest, o)
}

// newLeavingBeta is newBeta with such a key.
func newLeavingBeta(t *testing.T) (*crashWorld, *atomic.Bool) {
	t.Helper()
	w, away := newBeta(t), new(atomic.Bool)
	w.provider.Identity.Through(func(k crypto.Signer) crypto.Signer { return leavingKey{k, away} })
	return w, away
}

// wantCopies brings raw several times while something is away, and then once more. The
// mailbox store gets one copy at most before that, and one receipt is issued.
func wantCopies(t *testing.T, w *crashWorld, raw []byte, to []string, back func()) {
	t.Helper()
	for range 4 {
		if s := w.bring(t.Context(), raw, to...)[0]; !s.Deferred() {
			t.Errorf("the MTA hears %v", s)
		}
	}
	copies := w.count(&w.mailbox)
	if copies > 1 {
		t.Errorf("%d copies in the mailbox before anything could be certified", copies)
	}
	back()
	for range 2 {
		if s := w.bring(t.Context(), raw, to...)[0]; !s.OK() {
			t.Errorf("in the end the MTA hears %v", s)
		}
	}
	if n := w.count(&w.mailbox); n != copies+1 {
		t.Errorf("%d copies in the mailbox in the end, %d before", n, copies)
	}
	for _, k := range []pec.Kind{pec.KindTakeCharge, pec.KindDelivery} {
		if n := w.entries(logstore.EntryType(k)); n != 1 {
			t.Errorf("%d of %s", n, k)
		}
	}
}

// TestKeyAwayAfterTakeCharge: the mailbox store was away when the message was taken in
// charge, and when it is back the key is away.
func TestKeyAwayAfterTakeCharge(t *testing.T) {
	w, away := newLeavingBeta(t)
	raw, to := w.envelopeTo(1)
	w.fault.arm(stepStore, 1, false, true)
	if s := w.bring(t.Context(), raw, to...)[0]; !s.Deferred() {
		t.Errorf("with the mailbox store away the MTA hears %v", s)
	}
	away.Store(true)
	wantCopies(t, w, raw, to, func() { away.Store(false) })
}

// TestKeyAwayKnown: the same when another message has met with the absence before. The
// mailbox store gets nothing.
func TestKeyAwayKnown(t *testing.T) {
	w, away := newLeavingBeta(t)
	raw, to := w.envelopeTo(1)
	w.fault.arm(stepStore, 1, false, true)
	w.bring(t.Context(), raw, to...)
	away.Store(true)
	other, others := w.envelopeTo(2) // the second has no take-charge receipt yet
	if s := w.bring(t.Context(), other, others[1])[0]; !s.Deferred() {
		t.Errorf("without a key the MTA hears %v", s)
	}
	wantCopies(t, w, raw, to, func() {
		if n := w.count(&w.mailbox); n != 0 {
			t.Errorf("%d copies in the mailbox", n)
		}
		away.Store(false)
	})
}

// TestKeyAwayBeforeReceipt: the key goes away while the mailbox store has the message.
func TestKeyAwayBeforeReceipt(t *testing.T) {
	w, away := newLeavingBeta(t)
	raw, to := w.envelopeTo(1)
	first := true
	w.doors.atStep = func(step string) {
		if step == stepStored && first {
			first = false
			away.Store(true)
		}
	}
	wantCopies(t, w, raw, to, func() { away.Store(false) })
}

// A tightStore has room for a transaction without acts only, while it is tight.
type tightStore struct {
	logstore.Store
	tight *atomic.Bool
}

var errTight = fmt.Errorf("%w: no room", logstore.ErrUnavailable)

func (s tightStore) Commit(ctx context.Context, tx logstore.Tx) ([]bool, error) {
	if s.tight.Load() && len(tx.Acts) > 0 {
		return nil, errTight
	}
	return s.Store.Commit(ctx, tx)
}

func (s tightStore) Try(ctx context.Context) error {
	if s.tight.Load() {
		return errTight
	}
	return s.Store.Try(ctx)
}

// TestRoomForLittle: a disk that has room for a mark but not for a receipt is full.
func TestRoomForLittle(t *testing.T) {
	w := newBeta(t)
	s := tightStore{w.store, new(atomic.Bool)}
	w.doors.store, w.clerk().Store = s, s
	raw, to := w.envelopeTo(1)
	w.fault.arm(stepStore, 1, false, true)
	w.bring(t.Context(), raw, to...)
	s.tight.Store(true)
	wantCopies(t, w, raw, to, func() { s.tight.Store(false) })
}

// TestReceiptWhileKeyAway: what others certify goes to our user also without our key.
func TestReceiptWhileKeyAway(t *testing.T) {
	w, away := newLeavingBeta(t)
	away.Store(true)
	raw, to := w.envelopeTo(1)
	if s := w.bring(t.Context(), raw, to...)[0]; !s.Deferred() {
		t.Errorf("without a key the MTA hears %v", s)
	}
	ev := w.event("alice@alfa.example")
	ev.Identifier, ev.Sender, ev.Recipient, ev.Receipt = "20261122y@beta.example", "bob@beta.example", "alice@alfa.example", pec.Concise
	d, err := w.Alfa.Issuer.Delivery(ev, nil, false, rand.Reader)
	if s := w.bring(t.Context(), signed(t, w.Alfa, d, err), "bob@beta.example")[0]; !s.OK() {
		t.Errorf("of a receipt the MTA hears %v", s)
	}
	if !w.doors.doubtKey.Load() {
		t.Error("nobody has made sure of the key")
	}
}
