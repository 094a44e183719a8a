package setup

import (
	"slices"
	"strings"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/pec/directory"
)

// Wants are what pecd's configuration and the directory ask of the MTA.
type Wants struct {
	Access, Gate, LMTP, Reinject string   // addresses; Gate may be empty
	MaxSize                      int64    // of an original, octets
	Size                         int64    // message_size_limit, octets
	MTAChecksSender              bool     // access.sender_login is "mta"
	Domains                      []string // ours, certified
	Peers                        []string // certified domains of other providers
	// Partial says that the directory cannot be had, or has no record of ours: Domains is
	// the provider's own alone, and Peers is empty.
	Partial bool
}

// What the MTA must be set to, beside sizes; docs/postfix.md.
const (
	MinHeaders = 1 << 20 // header_size_limit, octets
	// QueueLife is how long the MTA tries; RFC 6109, 2.2.2.
	QueueLife = 24 * time.Hour
	// MaxPause is the longest pause between two tries: the last word after 22 hours
	// must be pecd's.
	MaxPause      = 50 * time.Minute
	MinRecipients = 1000
)

// MinSize is the message_size_limit without which the envelope of the largest
// original does not fit.
func (w Wants) MinSize() int64 { return w.MaxSize + w.MaxSize/20 + 1<<20 }

// WantsOf reads them. d may be nil: then they are partial.
func WantsOf(cfg *config.Config, d *directory.Directory) Wants {
	w := Wants{Access: cfg.Access.Milter, Gate: cfg.Gate.Milter, LMTP: cfg.Reception.LMTP, Reinject: cfg.Courier.MTA,
		MaxSize: cfg.Access.MaxSize, Size: 3 * cfg.Access.MaxSize, MTAChecksSender: cfg.Access.SenderLogin == "mta"}
	own := strings.ToLower(cfg.Provider.Domain)
	if !knows(d, cfg.Provider.Name, own) {
		w.Domains, w.Partial = []string{own}, true
		return w
	}
	for _, p := range d.Providers() {
		if strings.EqualFold(p.Name, cfg.Provider.Name) {
			w.Domains = append(w.Domains, p.Domains...)
		} else {
			w.Peers = append(w.Peers, p.Domains...)
		}
	}
	slices.Sort(w.Domains)
	slices.Sort(w.Peers)
	w.Domains, w.Peers = slices.Compact(w.Domains), slices.Compact(w.Peers)
	return w
}

// knows reports whether the directory has a provider by its name and domain. Under another
// name our further records would be taken for those of others.
func knows(d *directory.Directory, name, domain string) bool {
	if d == nil {
		return false
	}
	p, ok := d.ProviderOf(domain)
	return ok && p.Name == name
}
