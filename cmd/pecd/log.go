package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"pecd/logstore"
	"pecd/pec"
)

// logSearchCmd is pecd log search.
type logSearchCmd struct {
	configFlag
	Store      string `help:"Store directory; default: the one of the configuration." placeholder:"DIR"`
	Identifier string `help:"Provider's identifier of the message." placeholder:"ID" aliases:"id"`
	MsgID      string `name:"msgid" help:"Message-ID, of the client's message or of one that was generated." placeholder:"ID"`
	Address    string `help:"Address of the sender or of a recipient." placeholder:"ADDRESS"`
	Since      string `help:"Only from this time on: 2026-11-22, 2026-11-22T10:00:00 or with a zone." placeholder:"TIME"`
	Until      string `help:"Only before this time." placeholder:"TIME"`
	JSON       bool   `name:"json" help:"One JSON object a line."`
}

// Run prints the entries found; finding none is the answer no.
func (c *logSearchCmd) Run(ctx context.Context, std streams) error {
	dir, loc, err := storeAndZone(c.Config, c.Store)
	if err != nil {
		return err
	}
	q, err := c.query(loc)
	if err != nil {
		return err
	}
	store, err := logstore.OpenReadOnly(ctx, dir)
	if err != nil {
		return err
	}
	defer store.Close()
	return search(ctx, store, q, c.JSON, loc, std)
}

func (c *logSearchCmd) query(loc *time.Location) (logstore.Query, error) {
	q := logstore.Query{Identifier: pec.Identifier(strings.Trim(c.Identifier, "<>")), MessageID: c.MsgID, Address: pec.Address(c.Address)}
	for _, t := range []struct {
		flag, text string
		to         *time.Time
	}{{"--since", c.Since, &q.Since}, {"--until", c.Until, &q.Until}} {
		if t.text == "" {
			continue
		}
		v, err := parseTime(t.text, loc)
		if err != nil {
			return q, fmt.Errorf("%w: %s %s: not a time; write 2026-11-22, 2026-11-22T10:00:00 or 2026-11-22T10:00:00+01:00", errUsage, t.flag, t.text)
		}
		*t.to = v
	}
	return q, nil
}

// parseTime reads a time, in loc where it names no zone.
func parseTime(s string, loc *time.Location) (time.Time, error) {
	var t time.Time
	var err error
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err = time.ParseInLocation(layout, s, loc); err == nil {
			return t, nil
		}
	}
	return t, err
}

type searcher interface {
	Search(ctx context.Context, q logstore.Query, f func(logstore.Entry) error) error
}

func search(ctx context.Context, s searcher, q logstore.Query, asJSON bool, loc *time.Location, std streams) error {
	w := bufio.NewWriter(std.out)
	n := 0
	err := s.Search(ctx, q, func(e logstore.Entry) error {
		n++
		e.At = e.At.In(loc)
		if asJSON {
			return json.NewEncoder(w).Encode(e)
		}
		return printEntry(w, e)
	})
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return err
	}
	if n == 0 {
		fmt.Fprintln(std.err, "pecd: no entry of the register matches")
		return errNo
	}
	return nil
}

// printEntry writes an entry for people: what happened on the first line, the
// rest below it.
func printEntry(w io.Writer, e logstore.Entry) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-17s  %s\n", e.At.Format("2006-01-02 15:04:05 -0700"), e.Type, e.Identifier)
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-9s %s\n", name, printable(value))
		}
	}
	field("from", string(e.Sender))
	field("to", recipients(e.Recipients))
	field("subject", e.Subject)
	field("msgid", e.MsgID)
	field("about", string(e.Recipient))
	for _, t := range e.Taken {
		field("taken", string(t))
	}
	if e.Error != "" && e.Error != pec.NoError {
		field("error", string(e.Error))
	}
	field("detail", e.Detail)
	field("message", strings.Join(e.Messages, ", "))
	field("provider", e.SendingProvider)
	_, err := io.WriteString(w, b.String())
	return err
}

func recipients(list []pec.Recipient) string {
	s := make([]string, len(list))
	for i, r := range list {
		s[i] = string(r.Address)
		if r.Type != "" {
			s[i] += " (" + string(r.Type) + ")"
		}
	}
	return strings.Join(s, ", ")
}

// printable keeps what came from outside from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}
