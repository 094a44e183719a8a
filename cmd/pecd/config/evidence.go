package config

import (
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Seal says how the days of the register are sealed: signed by the provider and
// time-stamped (DPR 68/2005, art. 10). Without an authority they are not sealed.
type Seal struct {
	// TSA are addresses of time-stamping authorities (RFC 3161 by HTTP), in the
	// order in which they are asked; empty: days are not sealed.
	TSA []string `toml:"tsa"`
	// TSAAnchors is a PEM file with the CAs of those authorities.
	TSAAnchors string `toml:"tsa_anchors"`
	// TSAUser is who we are to the first authority, which must be https then.
	TSAUser string `toml:"tsa_user"`
	// TSAPasswordFile holds the password, readable by its owner only.
	TSAPasswordFile string `toml:"tsa_password_file"`
	// TSAPolicy is the policy to ask for, dotted. Default: the authority's choice.
	TSAPolicy string `toml:"tsa_policy"`
	// Path is the directory of the sealed days. Default: seals in store.path.
	Path string `toml:"path"`
	// After is how long after a day's end it is sealed. Default: "10m".
	After string `toml:"after"`
	// Late is how long after a day's end a missing seal is an alarm. Default: "6h".
	Late string `toml:"late"`
}

// Witness says who hears during the day how far the register is, so that what
// is not sealed yet cannot be written anew unnoticed.
type Witness struct {
	// Interval is how often. Default: "15m".
	Interval string `toml:"interval"`
	// Timestamp says whether the authorities of seal.tsa stamp each head.
	Timestamp bool `toml:"timestamp"`
	// Syslog is a remote log: udp:host:port, tcp:host:port or tls:host:port.
	Syslog string `toml:"syslog"`
	// HTTP is an address that is told by POST.
	HTTP string `toml:"http"`
	// Receipts says whether our receipts bear how far the register was, in the header
	// of what is signed: who keeps them is a witness then.
	Receipts bool `toml:"receipts"`
}

// Time says how the clock of this machine is watched: it may be off by one second
// (DM 2/11/2005, art. 9).
type Time struct {
	// NTP are servers, host or host:port, that are asked how far it is off; empty:
	// the kernel is asked, which knows what chrony or ntpd told it.
	NTP []string `toml:"ntp"`
	// OnOffset says what happens when it is off by more than a second, or has jumped:
	// "alarm" tells the operator, "refuse" also lets all messages wait. Default:
	// "alarm".
	OnOffset string `toml:"on_offset"`
	// Interval is how often it is asked. Default: "5m".
	Interval string `toml:"interval"`
}

// Every is Interval as a duration; the configuration has checked it.
func (t Time) Every() time.Duration { return duration(t.Interval) }

// AfterTime and LateTime are After and Late as durations; the configuration has
// checked them.
func (s Seal) AfterTime() time.Duration { return duration(s.After) }
func (s Seal) LateTime() time.Duration  { return duration(s.Late) }

// Every is Interval as a duration; the configuration has checked it.
func (w Witness) Every() time.Duration { return duration(w.Interval) }

// Any reports whether anybody is to hear.
func (w Witness) Any() bool { return w.Timestamp || w.Syslog != "" || w.HTTP != "" }

// SyslogAt splits Syslog into network and address.
func (w Witness) SyslogAt() (network, address string) {
	network, address, _ = strings.Cut(w.Syslog, ":")
	return network, address
}

func (c *Config) evidenceDefaults() {
	for _, d := range []struct {
		value    *string
		fallback string
	}{
		{&c.Seal.Path, filepath.Join(c.Store.Path, "seals")}, {&c.Seal.After, "10m"}, {&c.Seal.Late, "6h"}, {&c.Witness.Interval, "15m"},
		{&c.Time.OnOffset, "alarm"}, {&c.Time.Interval, "5m"},
	} {
		if *d.value == "" {
			*d.value = d.fallback
		}
	}
	for i, s := range c.Time.NTP {
		if _, _, err := net.SplitHostPort(s); err != nil && s != "" {
			c.Time.NTP[i] = net.JoinHostPort(s, "123")
		}
	}
}

// checkEvidence looks at seals and witnesses.
func (c *Config) checkEvidence(bad func(key, why, fix string)) {
	s := c.Seal
	for _, u := range s.TSA {
		if why := badURL(u); why != "" {
			bad("seal.tsa", why, `write the whole address, for example ["http://tsa.example/tsr"]`)
		}
	}
	c.checkFile(bad, "seal.tsa_anchors", s.TSAAnchors, len(s.TSA) > 0)
	c.checkFile(bad, "seal.tsa_password_file", s.TSAPasswordFile, s.TSAUser != "")
	if s.TSAUser != "" && (len(s.TSA) == 0 || !strings.HasPrefix(s.TSA[0], "https://")) {
		bad("seal.tsa_user", "the first address of seal.tsa is not https://, so the password would be sent in clear", "name an https address first")
	}
	if !filepath.IsAbs(s.Path) && filepath.IsAbs(c.Store.Path) { // otherwise it is store.path that is wrong
		bad("seal.path", strconv.Quote(s.Path)+" is not an absolute path", "write the path from /")
	}
	c.checkSpan(bad, "seal.after", s.After, 0, 12*time.Hour, `write "10m"`)
	c.checkSpan(bad, "seal.late", s.Late, time.Minute, 48*time.Hour, `write "6h"`)
	c.checkWitness(bad)
	for _, s := range c.Time.NTP {
		if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
			bad("time.ntp", strconv.Quote(s)+" is neither host nor host:port", `write for example ["ntp1.inrim.it"]`)
		}
	}
	if s := c.Time.OnOffset; s != "alarm" && s != "refuse" {
		bad("time.on_offset", strconv.Quote(s)+" is not known", `write "alarm" or "refuse"`)
	}
	c.checkSpan(bad, "time.interval", c.Time.Interval, time.Second, 24*time.Hour, `write "5m"`)
}

func (c *Config) checkWitness(bad func(key, why, fix string)) {
	w := c.Witness
	c.checkSpan(bad, "witness.interval", w.Interval, time.Minute, 24*time.Hour, `write "15m"`)
	if w.Timestamp && len(c.Seal.TSA) == 0 {
		bad("witness.timestamp", "no authority is named that could stamp", "name one in seal.tsa")
	}
	if w.Syslog != "" {
		network, address := w.SyslogAt()
		host, port, err := net.SplitHostPort(address)
		if network != "udp" && network != "tcp" && network != "tls" || err != nil || host == "" || port == "" {
			bad("witness.syslog", strconv.Quote(w.Syslog)+" is not udp:host:port, tcp:host:port or tls:host:port", `write for example "tls:log.example:6514"`)
		}
	}
	if w.HTTP != "" {
		if why := badURL(w.HTTP); why != "" {
			bad("witness.http", why, `write the whole address, for example "https://witness.example/pecd"`)
		}
	}
}

func (c *Config) checkSpan(bad func(key, why, fix string), key, value string, least, most time.Duration, fix string) {
	if d, err := time.ParseDuration(value); err != nil || d < least || d > most {
		bad(key, strconv.Quote(value)+" is not between "+least.String()+" and "+most.String(), fix)
	}
}

// badURL says what is wrong with an address of a web server; empty if nothing.
func badURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return strconv.Quote(s) + " is not an address by http:// or https://"
	}
	return ""
}
