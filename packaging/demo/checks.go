package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"pecd/packaging/demo/stage"
)

// check holds what arrived against what certified mail promises, shows each
// point and returns how many fail.
func check(ctx context.Context, t *terminal, s *stage.Stage, sent []byte, all []arrival) (failed int) {
	for _, c := range []struct {
		claim string
		holds func() error
	}{
		{"every message carries the signature of the provider it comes from", func() error { return signatures(ctx, s, all) }},
		{"each message came once, and none that should not be", func() error { return once(all) }},
		{"all of them name the same identifier and the client's Message-ID", func() error { return oneIdentifier(sent, all) }},
		{"the acceptance receipt tells certified from ordinary recipients", func() error { return acceptance(all) }},
		{"take-charge receipts cover every certified recipient, and no person got one", func() error { return takeCharge(s, all) }},
		{"postacert.eml is, octet for octet, what alice sent, wherever it is attached", func() error { return originals(sent, all) }},
	} {
		if err := c.holds(); err != nil {
			failed++
			t.printf("  %s  %s\n        %v\n", t.bad("NO"), c.claim, err)
			continue
		}
		t.printf("  %s  %s\n", t.good("ok"), c.claim)
	}
	return failed
}

func signatures(ctx context.Context, s *stage.Stage, all []arrival) error {
	var errs []error
	for _, a := range all {
		signer, err := s.Verify(ctx, a.raw)
		if err == nil && !strings.Contains(a.header.Get("From"), "<"+signer+">") && a.header.Get("From") != signer {
			err = fmt.Errorf("signed by %s but from %s", signer, a.header.Get("From"))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s for %s: %w", a.name(), a.mailbox, err))
		}
	}
	return errors.Join(errs...)
}

func once(all []arrival) error {
	want := expected()
	var errs []error
	for _, a := range all {
		if a.kind == "presa-in-carico" {
			continue
		}
		if !want[a.key()] {
			errs = append(errs, fmt.Errorf("%s for %s: too many, or not for him", a.name(), a.mailbox))
		}
		delete(want, a.key())
	}
	return errors.Join(errs...)
}

func oneIdentifier(sent []byte, all []arrival) error {
	fields, _ := setAside(sent)
	for _, a := range all {
		if a.data.Identifier != all[0].data.Identifier || a.data.MsgID != fields["message-id"] {
			return fmt.Errorf("%s for %s: identifier %s, msgid %s", a.name(), a.mailbox, a.data.Identifier, a.data.MsgID)
		}
	}
	return nil
}

func acceptance(all []arrival) error {
	for _, a := range all {
		if a.kind != "accettazione" {
			continue
		}
		got := map[string]string{}
		for _, r := range a.data.Recipients {
			got[r.Address] = r.Type
		}
		for _, r := range certified {
			if got[r] != "certificato" {
				return fmt.Errorf("%s is %q", r, got[r])
			}
		}
		if got[mario] != "esterno" || len(got) != len(recipients) {
			return fmt.Errorf("recipients are %v", got)
		}
		return nil
	}
	return errors.New("there is none")
}

func takeCharge(s *stage.Stage, all []arrival) error {
	left := slices.Clone(certified)
	for _, a := range all {
		if a.kind != "presa-in-carico" {
			continue
		}
		if a.mailbox != s.Alfa.Service[0].Address {
			return fmt.Errorf("one is in the mailbox of %s", a.mailbox)
		}
		for _, r := range a.data.Taken {
			i := slices.Index(left, r)
			if i < 0 {
				return fmt.Errorf("%s is covered twice, or was not a recipient", r)
			}
			left = slices.Delete(left, i, i+1)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("not covered: %v", left)
	}
	return nil
}

func originals(sent []byte, all []arrival) error {
	var errs []error
	for _, a := range all {
		if a.kind != "posta-certificata" && a.kind != "avvenuta-consegna" {
			continue
		}
		// A delivery receipt for a recipient in Cc holds no original; RFC 6109, 3.3.2.1.
		if a.original == nil && a.data.Delivered == anna {
			continue
		}
		if err := sameOriginal(sent, a.original, a.data.Identifier); err != nil {
			errs = append(errs, fmt.Errorf("%s for %s: %w", a.name(), a.mailbox, err))
		}
	}
	return errors.Join(errs...)
}

// showText shows what people read in the delivery receipt for bob: the Italian
// text, which is the one that counts, not the English one below it.
func showText(t *terminal, all []arrival) {
	i := slices.IndexFunc(all, func(a arrival) bool { return a.kind == "avvenuta-consegna" && a.data.Delivered == bob })
	if i < 0 {
		return
	}
	t.heading("What %s reads in the delivery receipt for %s", all[i].mailbox, bob)
	italian, _, _ := strings.Cut(all[i].text, "\n---")
	for _, row := range strings.Split(strings.TrimSpace(italian), "\n") {
		t.printf("  %s %s\n", t.paint("2", "|"), row)
	}
}

// showMailboxes lists what every mailbox holds.
func showMailboxes(t *terminal, s *stage.Stage, all []arrival) {
	var rows [][]string
	for _, box := range mailboxes(s) {
		var holds []string
		for _, a := range all {
			if a.mailbox != box {
				continue
			}
			entry := a.name()
			if c := a.concerns(); c != "" {
				entry += " for " + c
			}
			holds = append(holds, entry)
		}
		if len(holds) == 0 {
			holds = []string{"-"}
		}
		for i, h := range holds {
			name := box
			if i > 0 {
				name = ""
			}
			rows = append(rows, []string{name, h})
		}
	}
	t.table([]string{"mailbox", "holds"}, rows)
}
