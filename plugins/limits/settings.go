package main

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"pecd/pec"
	"pecd/plugins/sdk"
)

// settings are the plugin's table; keys is what they mean.
type settings struct {
	MessagesPerHour  int                 `json:"messages_per_hour"`
	MessagesPerDay   int                 `json:"messages_per_day"`
	RecipientsPerDay int                 `json:"recipients_per_day"`
	Exempt           []string            `json:"exempt"`
	Senders          map[string]override `json:"senders"`
	Timezone         string              `json:"timezone"`
}

// An override is what differs for one sender. What is not set is as for all.
type override struct {
	MessagesPerHour  *int `json:"messages_per_hour"`
	MessagesPerDay   *int `json:"messages_per_day"`
	RecipientsPerDay *int `json:"recipients_per_day"`
}

// quota is what one sender may; zero is without limit.
type quota struct{ hour, day, recipients int }

func defaults() settings {
	return settings{MessagesPerHour: 200, MessagesPerDay: 1000, RecipientsPerDay: 5000, Timezone: "Europe/Rome"}
}

var keys = []sdk.Key{
	{Name: "messages_per_hour", Type: "integer", Default: "200",
		About: "how many messages a sender may hand in from one full hour to the next; 0 is without limit"},
	{Name: "messages_per_day", Type: "integer", Default: "1000",
		About: "how many from midnight to midnight; 0 is without limit"},
	{Name: "recipients_per_day", Type: "integer", Default: "5000",
		About: "how many recipients the messages of a day may have together, each counted once for each message; 0 is without limit"},
	{Name: "exempt", Type: "list of strings", Default: "[]",
		About: `who is not limited: addresses with which users log in, and domains such as "alfa.example"`},
	{Name: "senders", Type: "table of tables", Default: "{}",
		About: `other limits for single addresses with which users log in, or for domains, for example "ufficio@alfa.example" = { messages_per_day = 20000 }; what is not in it is as for all; an address counts before its domain; each sender of a domain has the limits for himself`},
	{Name: "timezone", Type: "string", Default: `"Europe/Rome"`,
		About: "where it is midnight when a day ends"},
}

// check returns what is wrong with s, all of it.
func (s settings) check(c sdk.Config) error {
	var all []error
	wrong := func(is bool, key, why, fix string) {
		if is {
			all = append(all, c.Problem(key, why, fix))
		}
	}
	const below, whole = "it is below zero", "write a number from 0 on; 0 is without limit"
	wrong(s.MessagesPerHour < 0, "messages_per_hour", below, whole)
	wrong(s.MessagesPerDay < 0, "messages_per_day", below, whole)
	wrong(s.RecipientsPerDay < 0, "recipients_per_day", below, whole)
	for _, who := range s.Exempt {
		wrong(!named(who), "exempt", "there is something that is no address and no domain", `write for example "anna@alfa.example" or "alfa.example"`)
	}
	for who, o := range s.Senders {
		wrong(!named(who), "senders", "there is something that is no address and no domain", `write for example "anna@alfa.example" or "alfa.example"`)
		for _, n := range []*int{o.MessagesPerHour, o.MessagesPerDay, o.RecipientsPerDay} {
			wrong(n != nil && *n < 0, "senders", "a limit is below zero", whole)
		}
	}
	_, err := time.LoadLocation(s.Timezone)
	wrong(err != nil || s.Timezone == "" || s.Timezone == "Local", "timezone", "there is no such time zone", `write for example "Europe/Rome"`)
	return errors.Join(all...)
}

// named reports whether who is an address or a domain, as far as one can see.
func named(who string) bool {
	local, domain, address := strings.Cut(who, "@")
	if !address {
		local, domain = "x", who
	}
	return local != "" && strings.Contains(domain, ".") && !strings.ContainsAny(who, " ,;<>")
}

// names are those under which settings may have a sender: the address, then the
// domain. Users know no difference between upper and lower case.
func names(sender pec.Address) [2]string {
	return [2]string{strings.ToLower(string(sender)), sender.Domain()}
}

// exempt reports whether a sender has no limits.
func (s settings) exempt(sender pec.Address) bool {
	for _, name := range names(sender) {
		for _, who := range s.Exempt {
			if name != "" && strings.EqualFold(who, name) {
				return true
			}
		}
	}
	return false
}

// quota is what a sender may.
func (s settings) quota(sender pec.Address) quota {
	q := quota{s.MessagesPerHour, s.MessagesPerDay, s.RecipientsPerDay}
	for _, name := range names(sender) {
		for who, o := range s.Senders {
			if !strings.EqualFold(who, name) {
				continue
			}
			for to, n := range map[*int]*int{&q.hour: o.MessagesPerHour, &q.day: o.MessagesPerDay, &q.recipients: o.RecipientsPerDay} {
				if n != nil {
					*to = *n
				}
			}
			return q
		}
	}
	return q
}

// entry is the name that settings have for a sender, be it his domain's; empty if they
// have none.
func (s settings) entry(sender pec.Address) string {
	for _, name := range names(sender) {
		for _, who := range slices.Concat(s.Exempt, slices.Collect(maps.Keys(s.Senders))) {
			if name != "" && strings.EqualFold(who, name) {
				return who
			}
		}
	}
	return ""
}
