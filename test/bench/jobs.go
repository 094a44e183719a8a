package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

const (
	alice = "alice@alfa.example"
	anna  = "anna@alfa.example"
	bob   = "bob@beta.example"
	mario = "mario@ordinary.example" // whose server is the sink
	taken = "ricevute@alfa.example"
)

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
	o := load{sessions: sessions, messages: messages, sunk: 1, boxes: map[string]int{},
		parts: []part{{alice, mario, func(n int64) []byte { return letter(n, alice, mario, octets) }}}}
	if l.certified() {
		o.boxes[alice] = 1
	}
	return o
}

func (l *lane) certified() bool { return l.stage.Alfa.Pecd.Bin != "" }

// exchanges are complete certified exchanges within one provider and between two,
// and how long acceptance takes at half of the load that one provider can bear.
func (h *hall) exchanges(ctx context.Context) ([]job, error) {
	var list []job
	lanes := append([]*lane{h.plain}, h.pecd...)
	for _, way := range []struct{ name, to string }{{"one provider", anna}, {"two providers", bob}} {
		four, err := h.four(ctx, way.to)
		if err != nil {
			return nil, err
		}
		for _, sessions := range []int{1, 10, 50} {
			list = append(list, job{name: fmt.Sprintf("exchange/%s/%d", way.name, sessions), lanes: lanes, base: h.plain,
				load: func(l *lane) load {
					o := load{sessions: sessions, messages: h.burst / 2, boxes: map[string]int{way.to: 1, alice: 2, taken: 1}, parts: four}
					if l.certified() {
						o.parts = certified(way.to)
					}
					return o
				},
				show: []figure{donePerSecond, cpuPerMessage}})
		}
	}
	return append(list, job{name: "latency/half load", lanes: h.pecd,
		load: func(l *lane) load {
			o := load{sessions: 20, parts: certified(anna), boxes: map[string]int{anna: 1, alice: 2, taken: 1}}
			o.rate = l.bearable / 2
			o.messages = int(o.rate * 10)
			return o
		},
		show: []figure{acceptedPerSecond, middle, tail99, cpuPerMessage}}), nil
}

func certified(to string) []part {
	return []part{{alice, to, func(n int64) []byte { return letter(n, alice, to, 4<<10) }}}
}

// four are the messages of one certified exchange as they lie in the mailboxes, to
// be sent as ordinary mail through servers without pecd: each from a user of the
// server on which it began.
func (h *hall) four(ctx context.Context, to string) ([]part, error) {
	l := h.pecd[0]
	o := load{sessions: 1, messages: 1, parts: certified(to), boxes: map[string]int{to: 1, alice: 2, taken: 1}}
	mails := map[string][][]byte{}
	o.look = func() error {
		for address := range o.boxes {
			list, err := l.stage.Mailbox(ctx, address)
			if err != nil {
				return err
			}
			mails[address] = list
		}
		return nil
	}
	if _, err := l.carry(ctx, o); err != nil {
		return nil, err
	}
	there := to
	if to == anna {
		there = alice // the submission of one and the same server
	}
	same := func(raw []byte) func(int64) []byte { return func(int64) []byte { return raw } }
	return []part{
		{alice, to, same(mails[to][0])},
		{alice, alice, same(mails[alice][0])},
		{there, taken, same(mails[taken][0])},
		{there, alice, same(mails[alice][1])},
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
