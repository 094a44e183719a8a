package storetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"pecd/logstore"
)

// Each entry carries the digest over the one before and its own record, also
// across commits and starts.
func testChain(b *bench) {
	ctx := context.Background()
	if head, err := b.store.Head(ctx); err != nil || head.Seq != 0 {
		b.Errorf("Head of a new store: %+v, %v", head, err)
	}
	b.access(300, "bob@beta.example")
	b.mustCommit(logstore.Tx{At: At.Add(time.Second), Acts: []logstore.Act{entry("1@alfa.example", time.Time{}), entry("2@alfa.example", time.Time{})}})
	b.reopen()
	b.mustCommit(logstore.Tx{At: At.Add(2 * time.Second), Acts: []logstore.Act{entry("3@alfa.example", time.Time{})}})

	prev, n := strings.Repeat("0", 64), int64(0)
	var last logstore.Link
	err := b.store.Chain(ctx, 1, func(l logstore.Link) error {
		n++
		prev = fmt.Sprintf("%x", sha256.Sum256([]byte(prev+"\n"+string(l.Record)+"\n")))
		if l.Seq != n || l.Chain.String() != prev {
			return fmt.Errorf("entry %d has number %d and chain %v, want %s", n, l.Seq, l.Chain, prev)
		}
		last = l
		return nil
	})
	if err != nil || n != 5 {
		b.Errorf("Chain: %d entries, %v", n, err)
	}
	if head, err := b.store.Head(ctx); err != nil || head.Seq != 5 || head.Chain != last.Chain || !head.At.Equal(At.Add(2*time.Second)) {
		b.Errorf("Head: %+v, %v", head, err)
	}
	if l, err := b.store.LinkAt(ctx, 5); err != nil || l.Chain != last.Chain {
		b.Errorf("LinkAt: %+v, %v", l, err)
	}
	if s, err := b.store.Span(ctx, At.Add(time.Second), At.Add(2*time.Second)); err != nil || s != (logstore.Span{First: 3, Last: 4, Entries: 2}) {
		b.Errorf("Span: %+v, %v", s, err)
	}
}
