package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/logstore"
	"pecd/logstore/consistency"
	"pecd/pec"
)

// logShowCmd is pecd log show.
type logShowCmd struct {
	configFlag
	Identifier string `arg:"" help:"Provider's identifier of the message."`
	Store      string `help:"Store directory; default: the one of the configuration." placeholder:"DIR"`
	JSON       bool   `name:"json" help:"A JSON object."`
}

// A tale is what pecd log show prints as JSON.
type tale struct {
	Identifier pec.Identifier     `json:"identifier"`
	Entries    []logstore.Entry   `json:"entries"`
	Awaited    []awaited          `json:"awaited,omitempty"`
	Outbox     []logstore.Waiting `json:"outbox,omitempty"`
}

// awaited is a row of the ledger, in JSON.
type awaited struct {
	Recipient pec.Address `json:"recipient"`
	Sent      time.Time   `json:"sent"`
	TakenAt   time.Time   `json:"taken_at,omitzero"`
	EndedAt   time.Time   `json:"ended_at,omitzero"`
	Outcome   pec.Kind    `json:"outcome,omitempty"`
	WarnedAt  time.Time   `json:"warned_at,omitzero"`
	ExpiredAt time.Time   `json:"expired_at,omitzero"`
}

// Run tells the whole story of a message.
func (c *logShowCmd) Run(ctx context.Context, std streams) error {
	dir, loc, err := storeAndZone(c.Config, c.Store)
	if err != nil {
		return err
	}
	store, err := logstore.OpenReadOnly(ctx, dir)
	if err != nil {
		return err
	}
	defer store.Close()
	t, err := tell(ctx, store, pec.Identifier(strings.Trim(c.Identifier, "<>")), loc)
	if err != nil {
		return err
	}
	if len(t.Entries) == 0 {
		fmt.Fprintf(std.err, "pecd: the register knows no message %s; search by address or Message-ID with: pecd log search\n", printable(c.Identifier))
		return errNo
	}
	if c.JSON {
		return json.NewEncoder(std.out).Encode(t)
	}
	w := bufio.NewWriter(std.out)
	t.print(w, loc)
	return w.Flush()
}

func tell(ctx context.Context, store *logstore.Reader, id pec.Identifier, loc *time.Location) (tale, error) {
	t := tale{Identifier: id}
	err := store.Search(ctx, logstore.Query{Identifier: id}, func(e logstore.Entry) error {
		e.At = e.At.In(loc)
		t.Entries = append(t.Entries, e)
		return nil
	})
	if err != nil {
		return t, err
	}
	rows, err := store.Awaited(ctx, id)
	if err != nil {
		return t, err
	}
	for _, a := range rows {
		t.Awaited = append(t.Awaited, awaited{a.Recipient, a.Sent, a.TakenAt, a.EndedAt, a.Outcome, a.WarnedAt, a.ExpiredAt})
	}
	t.Outbox, err = store.Waiting(ctx, id)
	return t, err
}

// print writes the story for people.
func (t tale) print(w io.Writer, loc *time.Location) {
	e := t.Entries[0]
	fmt.Fprintf(w, "message   %s\n", printable(string(t.Identifier)))
	for _, f := range []struct{ name, value string }{
		{"from", string(e.Sender)}, {"to", recipients(e.Recipients)}, {"subject", e.Subject}, {"msgid", e.MsgID}, {"provider", e.SendingProvider},
	} {
		if f.value != "" {
			fmt.Fprintf(w, "%-9s %s\n", f.name, printable(f.value))
		}
	}
	fmt.Fprintln(w)
	for _, e := range t.Entries {
		fmt.Fprintf(w, "%s  %-26s %s\n", e.At.In(loc).Format("2006-01-02 15:04:05 -0700"), e.Type, printable(about(e)))
	}
	if len(t.Awaited) > 0 {
		fmt.Fprintln(w)
	}
	for _, a := range t.Awaited {
		fmt.Fprintf(w, "%-33s %s\n", printable(string(a.Recipient)), a.state(loc))
	}
	if len(t.Outbox) > 0 {
		fmt.Fprintln(w)
	}
	for _, o := range t.Outbox {
		fmt.Fprintf(w, "outbox    %s <%s>, %d attempts, next at %s", o.Kind, o.MessageID, o.Attempts, o.Due.In(loc).Format(time.DateTime))
		if o.Why != "" {
			fmt.Fprintf(w, ": %s", printable(o.Why))
		}
		fmt.Fprintln(w)
	}
}

// about is what an entry says beside its time and type.
func about(e logstore.Entry) string {
	var s []string
	add := func(label, value string) {
		if value != "" {
			s = append(s, strings.TrimSpace(label+" "+value))
		}
	}
	add("", string(e.Recipient))
	for _, a := range e.Taken {
		add("", string(a))
	}
	if e.Error != pec.NoError {
		add("error", string(e.Error))
	}
	add("", e.Detail)
	if len(e.Messages) > 0 {
		add("", "<"+strings.Join(e.Messages, ">, <")+">")
	}
	add("qid", e.QueueID)
	return strings.Join(s, "; ")
}

// state says what is known of a recipient.
func (a awaited) state(loc *time.Location) string {
	at := func(t time.Time) string { return t.In(loc).Format(time.DateTime) }
	s := "nothing heard yet"
	switch {
	case a.Outcome == pec.KindDelivery:
		s = "delivered, known since " + at(a.EndedAt)
	case a.Outcome != "":
		s = "not delivered, known since " + at(a.EndedAt)
	case !a.TakenAt.IsZero():
		s = "taken charge of, known since " + at(a.TakenAt)
	}
	if !a.ExpiredAt.IsZero() {
		return s + "; notice of 24 hours at " + at(a.ExpiredAt)
	}
	if !a.WarnedAt.IsZero() {
		return s + "; notice of 12 hours at " + at(a.WarnedAt)
	}
	return s
}

// logCheckCmd is pecd log check.
type logCheckCmd struct {
	configFlag
	Since string `help:"Only messages of which the first entry is from this time on." placeholder:"TIME"`
	Until string `help:"Only messages of which the first entry is from before this time." placeholder:"TIME"`
	All   bool   `help:"Print also what is explained."`
	JSON  bool   `name:"json" help:"One JSON object a line, and one for the sum."`
}

// A checkSum is how a check of the register ended.
type checkSum struct {
	Messages  int64 `json:"messages"`
	Wrong     int64 `json:"wrong"`
	Explained int64 `json:"explained"`
}

// Run holds the register against the rules of docs/rules.md, L4.
func (c *logCheckCmd) Run(ctx context.Context, std streams) error {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	loc, err := time.LoadLocation(cfg.Provider.Timezone)
	if err != nil {
		return cfg.Problem("provider.timezone", err, "")
	}
	q, err := (&logSearchCmd{Since: c.Since, Until: c.Until}).query(loc)
	if err != nil {
		return err
	}
	store, err := logstore.OpenReadOnly(ctx, cfg.Store.Path)
	if err != nil {
		return err
	}
	defer store.Close()
	w := bufio.NewWriter(std.out)
	sum, err := c.check(ctx, store, q, w, std.err)
	if err != nil {
		return err
	}
	if c.JSON {
		err = json.NewEncoder(w).Encode(sum)
	} else {
		_, err = fmt.Fprintf(w, "%d messages: %d things wrong, %d explained\n", sum.Messages, sum.Wrong, sum.Explained)
	}
	if err == nil {
		err = w.Flush()
	}
	if err == nil && sum.Wrong > 0 {
		err = errNo
	}
	return err
}

func (c *logCheckCmd) check(ctx context.Context, store *logstore.Reader, q logstore.Query, w io.Writer, terminal io.Writer) (sum checkSum, err error) {
	st, err := store.Stats(ctx)
	if err != nil {
		return sum, err
	}
	j := &storyJudge{store: store}
	if _, err := j.look(ctx); err != nil {
		return sum, err
	}
	show, read := progress(terminal), int64(0)
	err = store.Stories(ctx, func(entries []logstore.Entry) error {
		if read += int64(len(entries)); show != nil && read < st.Entries {
			show(read, st.Entries)
		}
		left, found, err := j.judge(ctx, entries)
		if err != nil || len(left) == 0 {
			return err
		}
		first := left[0].At
		if first.Before(q.Since) || !q.Until.IsZero() && !first.Before(q.Until) {
			return nil
		}
		sum.Messages++
		for _, f := range found {
			if f.Explained {
				sum.Explained++
			} else {
				sum.Wrong++
			}
			if err := c.print(w, f); err != nil {
				return err
			}
		}
		return nil
	})
	if show != nil {
		show(st.Entries, st.Entries)
	}
	return sum, err
}

// A storyJudge holds stories against the rules, without the entries that a purge has
// named. They go one after the other, while the register is read, and some of them stay
// where the purge was broken off.
type storyJudge struct {
	store  *logstore.Reader
	gone   int64     // the last entry that was purged
	begins time.Time // when the one after it was made; zero: none was purged
}

// look finds out where the register begins, and reports whether that is another entry
// than before.
func (j *storyJudge) look(ctx context.Context) (moved bool, err error) {
	gone, err := j.store.PurgedThrough(ctx)
	if err != nil || gone.Seq == j.gone {
		return false, err
	}
	oldest, err := j.store.LinkAt(ctx, gone.Seq+1)
	if err != nil {
		return false, err
	}
	j.gone, j.begins = gone.Seq, oldest.At
	return true, nil
}

// judge returns the entries that count and what is to be said of them. What lacks may
// have gone since the last look.
func (j *storyJudge) judge(ctx context.Context, entries []logstore.Entry) (left []logstore.Entry, found []consistency.Finding, err error) {
	for {
		left = slices.DeleteFunc(entries, func(e logstore.Entry) bool { return e.Seq <= j.gone })
		if len(left) == 0 {
			return nil, nil, nil
		}
		if found = consistency.Story(left, j.begins, clock()); len(found) == 0 {
			return left, nil, nil
		}
		if moved, err := j.look(ctx); err != nil || !moved {
			return left, found, err
		}
		entries = left
	}
}

func (c *logCheckCmd) print(w io.Writer, f consistency.Finding) error {
	switch {
	case c.JSON:
		return json.NewEncoder(w).Encode(f)
	case !f.Explained:
		_, err := fmt.Fprintf(w, "WRONG      %s\n", printable(f.String()))
		return err
	case c.All:
		_, err := fmt.Fprintf(w, "explained  %s\n", printable(f.String()))
		return err
	}
	return nil
}
