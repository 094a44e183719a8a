package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

const (
	mario  = "mario@ordinary.example" // whose server is the sink
	taken  = "ricevute@alfa.example"
	people = 50 // the most sessions
)

// sender is the user of a session, and the one to whom he writes within his
// provider or at the other.
func sender(i int) string        { return fmt.Sprintf("p%d@alfa.example", i%people+1) }
func neighbour(i int) string     { return sender(i + 1) }
func correspondent(i int) string { return fmt.Sprintf("p%d@beta.example", i%people+1) }
func all(of func(int) string) (list []string) {
	for i := range people {
		list = append(list, of(i))
	}
	return list
}

var sizes = []struct {
	name   string
	octets int
	fewer  int // than a burst of the smallest
}{{"4KB", 4 << 10, 1}, {"100KB", 100 << 10, 5}, {"5MB", 5 << 20, 50}}

// jobs are the measurements.
func (h *hall) jobs(ctx context.Context) ([]job, error) {
	var list []job
	for _, size := range sizes {
		for _, sessions := range []int{1, 10, 50} {
			n := max(sessions, h.burst/size.fewer)
			list = append(list, job{
				name: fmt.Sprintf("burst/%s/%d", size.name, sessions), lanes: h.all(), base: h.dkim,
				load: func(l *lane) load { return l.abroad(sessions, n, size.octets) },
				show: []figure{acceptedPerSecond, donePerSecond, cpuPerMessage},
			})
		}
	}
	exchanges, err := h.exchanges(ctx)
	return append(list, exchanges...), err
}

// abroad is a load of messages to another domain: the message, or the envelope,
// goes to the sink, and with pecd the acceptance receipt to the sender.
func (l *lane) abroad(sessions, messages, octets int) load {
	o := load{sessions: sessions, messages: messages, sunk: 1, parts: func(i int) []part { return one(sender(i), mario, octets) }}
	if l.certified() {
		o.boxed, o.boxes = 1, all(sender)
	}
	return o
}

func one(from, to string, octets int) []part {
	return []part{{from, []string{to}, func(n int64) []byte { return letter(n, from, to, octets) }}}
}

func (l *lane) certified() bool { return l.stage.Alfa.Pecd.Bin != "" }

// exchange is a load of complete certified exchanges: in the mailboxes are then
// the envelope, the acceptance, the take-charge and the delivery receipt.
func exchange(sessions, messages, octets int, to func(int) string) load {
	boxes := append(all(sender), taken)
	if to(0) != neighbour(0) {
		boxes = append(boxes, all(to)...)
	}
	return load{sessions: sessions, messages: messages, boxed: 4, boxes: boxes,
		parts: func(i int) []part { return one(sender(i), to(i), octets) }}
}

// exchanges are complete certified exchanges within one provider and between two,
// and how long acceptance takes at half of the load that one provider can bear.
func (h *hall) exchanges(ctx context.Context) ([]job, error) {
	var list []job
	lanes := append([]*lane{h.plain}, h.pecd...)
	for _, way := range []struct {
		name string
		to   func(int) string
	}{{"one provider", neighbour}, {"two providers", correspondent}} {
		four, err := h.four(ctx, way.to)
		if err != nil {
			return nil, err
		}
		for _, sessions := range []int{1, 10, 50} {
			list = append(list, job{name: fmt.Sprintf("exchange/%s/%d", way.name, sessions), lanes: lanes, base: h.plain,
				load: func(l *lane) load {
					o := exchange(sessions, h.burst/2, 4<<10, way.to)
					if !l.certified() {
						o.parts = four
					}
					return o
				},
				show: []figure{donePerSecond, cpuPerMessage}})
		}
	}
	for _, n := range []int{1, 10, 50} {
		list = append(list, job{name: fmt.Sprintf("recipients/%d", n), lanes: h.pecd,
			load: func(*lane) load { return crowd(n, max(4, h.burst/(5*n))) }, show: []figure{donePerSecond, cpuPerMessage}})
	}
	return append(list, job{name: "exchange/acceptance at half load", lanes: h.pecd,
		load: func(l *lane) load {
			o := exchange(20, 0, 4<<10, neighbour)
			o.rate = l.bearable / 2
			o.messages = int(o.rate * 10)
			if l.bearable == 0 { // nothing was measured before: warming up finds it out
				o.messages = 20 * 200
			}
			return o
		},
		show: []figure{acceptedPerSecond, middle, tail99, cpuPerMessage}}), nil
}

// crowd is a load of messages to n recipients of the same provider each: one
// acceptance and one take-charge receipt, n envelopes and n delivery receipts.
func crowd(n, messages int) load {
	return load{sessions: 4, messages: messages, boxed: 2 + 2*n, boxes: append(all(sender), taken),
		parts: func(i int) []part {
			var to []string
			for k := range n {
				to = append(to, sender(i+k))
			}
			from := sender(i)
			return []part{{from, to, func(m int64) []byte { return letter(m, from, strings.Join(to, ">, <"), 4<<10) }}}
		}}
}

// four returns the messages of one certified exchange as they lie in the
// mailboxes, to be sent as ordinary mail through servers without pecd: each from a
// user of the server on which it began, to the mailbox where it ended.
func (h *hall) four(ctx context.Context, to func(int) string) (func(int) []part, error) {
	l := h.pecd[0]
	o := exchange(1, 1, 4<<10, to)
	var envelope, acceptance, charge, delivery []byte
	o.look = func() error {
		for address, into := range map[string][]*[]byte{to(0): {&envelope}, sender(0): {&acceptance, &delivery}, taken: {&charge}} {
			list, err := l.stage.Mailbox(ctx, address)
			if err != nil {
				return err
			}
			if len(list) != len(into) {
				return fmt.Errorf("%s has %d messages", address, len(list))
			}
			for i := range into {
				*into[i] = list[i]
			}
		}
		return nil
	}
	if _, err := l.carry(ctx, o); err != nil {
		return nil, err
	}
	same := func(raw []byte) func(int64) []byte { return func(int64) []byte { return raw } }
	return func(i int) []part {
		there := to(i)
		if strings.HasSuffix(there, "@alfa.example") {
			there = sender(i) // one session serves all: it is the same server
		}
		return []part{
			{sender(i), []string{to(i)}, same(envelope)},
			{sender(i), []string{sender(i)}, same(acceptance)},
			{there, []string{taken}, same(charge)},
			{there, []string{sender(i)}, same(delivery)},
		}
	}, nil
}

// letter is message n as a mail program writes it, of about so many octets.
func letter(n int64, from, to string, octets int) []byte {
	header := fmt.Sprintf("From: <%s>\r\nTo: <%s>\r\nDate: Sun, 22 Nov 2026 10:45:36 +0100\r\n"+
		"Subject: =?UTF-8?Q?Offerta_n=C2=B0_%d?=\r\nMessage-ID: <b%d.%d@alfa.example>\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: text/plain; charset=UTF-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n", from, to, n, n, os.Getpid())
	const line = "Gentile signora, in allegato l'offerta che aveva chiesto per la fornitura.\r\n"
	return []byte(header + strings.Repeat(line, max(1, (octets-len(header))/len(line))))
}
