package config

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// ErrConfig wraps every problem of a configuration.
var ErrConfig = errors.New("configuration")

// Problems are all that is wrong with a configuration, a line each.
type Problems []string

func (p *Problems) add(file string, line int, key, why, fix string) {
	at := file
	if line > 0 {
		at += ":" + strconv.Itoa(line)
	}
	s := fmt.Sprintf("%s: %s: %s", at, key, why)
	if fix != "" {
		s += "\n  fix: " + fix
	}
	*p = append(*p, s)
}

func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrConfig, strings.Join(p, "\n"))
}

// Problem is one thing that is wrong with the value of key, found after loading:
// the error names where the key was set.
func (c *Config) Problem(key string, err error, fix string) error {
	var p Problems
	o := c.origins[key]
	if o.File == "" {
		o.File = c.file
	}
	if errors.Is(err, fs.ErrPermission) && !strings.Contains(fix, "member") { // of a group, which says more
		fix = "run this as root, or as the user that runs the daemon (pecd), who must be able to read it"
	}
	p.add(o.File, o.Line, key, strings.ReplaceAll(err.Error(), "signer: ", ""), fix)
	return p.err()
}

// typeError is how the TOML library words a value of the wrong type.
var typeError = regexp.MustCompile(`^toml: line (\d+) \(last key "([^"]+)"\): (.*)$`)

func syntax(file string, err error) error {
	var p Problems
	var pe toml.ParseError
	if errors.As(err, &pe) {
		key := pe.LastKey
		if key == "" {
			key = "syntax"
		}
		fix := "correct the line, or the one before; text values stand in double quotes"
		if strings.Contains(pe.Message, "already been defined") {
			fix = "each table and key stands once: put what belongs together under one, and remove the other"
		}
		p.add(file, pe.Position.Line, key, strings.TrimPrefix(pe.Message, "toml: "), fix)
	} else if m := typeError.FindStringSubmatch(err.Error()); m != nil {
		line, _ := strconv.Atoi(m[1]) // the expression takes digits only
		fix := "correct the type of the value; text stands in double quotes, numbers do not"
		if m[2] == "plugin" {
			fix = "write [[plugin]]: there may be several"
		}
		p.add(file, line, m[2], m[3], fix)
	} else {
		p.add(file, 0, "value", strings.TrimPrefix(err.Error(), "toml: "), "correct the type of the value")
	}
	return p.err()
}

// keyLines finds the line on which each key of a TOML file stands. It reads
// tables and keys as this configuration uses them; a key that it does not find
// is reported without a line.
func keyLines(data []byte) map[string]int {
	lines := map[string]int{}
	table := ""
	s := bufio.NewScanner(bytes.NewReader(data))
	s.Buffer(nil, len(data)+1)
	for n := 1; s.Scan(); n++ {
		l := strings.TrimSpace(s.Text())
		if strings.HasPrefix(l, "[") {
			if end := strings.IndexByte(l, ']'); end > 0 {
				table = strings.Trim(l[1:end], "[ ]")
				if _, ok := lines[table]; !ok {
					lines[table] = n
				}
			}
			continue
		}
		if i := strings.IndexByte(l, '='); i > 0 && l[0] != '#' {
			k := strings.Trim(strings.TrimSpace(l[:i]), `"'`)
			if table != "" {
				k = table + "." + k
			}
			if _, ok := lines[k]; !ok {
				lines[k] = n
			}
		}
	}
	return lines
}

// Keys returns all keys of the configuration, table.key.
func Keys() []string { return keysOf("", reflect.TypeOf(Config{})) }

func keysOf(table string, t reflect.Type) (keys []string) {
	for i := 0; i < t.NumField(); i++ {
		f := t.Field(i)
		key := f.Tag.Get("toml")
		if !f.IsExported() || key == "-" {
			continue
		}
		inner := f.Type
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		switch {
		case f.Anonymous:
			keys = append(keys, keysOf(table, inner)...)
		case inner.Kind() == reflect.Struct && inner != reflect.TypeOf(time.Time{}):
			keys = append(keys, keysOf(table+key+".", inner)...)
		default:
			keys = append(keys, table+key)
		}
	}
	return keys
}

// nearest suggests the key that was meant.
func nearest(key string) string {
	best, bestDist := "", len(key)/2+1
	for _, k := range Keys() {
		if table, _, ok := strings.Cut(k, "."); ok && !strings.Contains(key, ".") {
			k = table // a table that nobody knows is like a table
		}
		if d := distance(key, k); d < bestDist {
			best, bestDist = k, d
		}
	}
	if best == "" {
		return "remove it; packaging/pecd.toml shows all keys"
	}
	return "did you mean " + best + "?"
}

// distance is the Levenshtein distance of a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		prev := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := prev
			if a[i-1] != b[j-1] {
				cost++
			}
			prev = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

// check finds what cannot work. Files named in the configuration are opened by
// whoever uses them; here only their absence is noticed.
func (c *Config) check(file string) error {
	var p Problems
	bad := func(key, why, fix string) {
		o := c.origins[key]
		if o.File == "" {
			o.File = file
		}
		p.add(o.File, o.Line, key, why, fix)
	}
	c.checkRequired(bad)
	c.checkValues(bad)
	c.checkSockets(bad)
	c.checkTrust(bad)
	c.checkEvidence(bad)
	c.checkCanary(bad)
	c.checkPlugins(&p)
	return p.err()
}

func (c *Config) checkSockets(bad func(key, why, fix string)) {
	taken := map[string]string{}
	for _, s := range []struct{ key, addr string }{
		{"access.milter", c.Access.Milter}, {"gate.milter", c.Gate.Milter}, {"reception.lmtp", c.Reception.LMTP},
		{"delivery.store", c.Delivery.Store}, {"courier.mta", c.Courier.MTA},
	} {
		if why := badSocket(s.addr); s.addr != "" && why != "" {
			bad(s.key, why, `write "unix:/path/of.sock" or "inet:127.0.0.1:10031"`)
		}
		if other := taken[s.addr]; s.addr != "" && other != "" {
			bad(s.key, s.addr+" is "+other+" already", "give each its own; delivery.store and courier.mta are those of other servers")
		}
		taken[s.addr] = s.key
	}
	for _, s := range []struct{ key, mode string }{
		{"access.socket_mode", c.Access.SocketMode}, {"gate.socket_mode", c.Gate.SocketMode}, {"reception.socket_mode", c.Reception.SocketMode},
	} {
		if m, err := strconv.ParseUint(s.mode, 8, 32); err != nil || m > 0o777 {
			bad(s.key, strconv.Quote(s.mode)+" is not an octal mode", `write for example "0660"`)
		}
	}
}

func (c *Config) checkRequired(bad func(key, why, fix string)) {
	for _, r := range []struct{ key, value, fix string }{
		{"provider.name", c.Provider.Name, "write the providerName of your record in the directory"},
		{"provider.domain", c.Provider.Domain, "write the domain of posta-certificata@…"},
		{"access.milter", c.Access.Milter, `write for example "unix:/run/pecd/access.sock"`},
		{"reception.lmtp", c.Reception.LMTP, `write for example "unix:/run/pecd/lmtp.sock"`},
		{"delivery.store", c.Delivery.Store, `write for example "unix:/run/dovecot/lmtp"`},
		{"courier.mta", c.Courier.MTA, `write for example "inet:127.0.0.1:10033"`},
	} {
		if r.value == "" {
			bad(r.key, "missing", r.fix)
		}
	}
	c.checkFile(bad, "trust.anchors", c.Trust.Anchors, true)
	c.checkKey(bad, "signer", c.Signer.Key)
	if c.Signer.Next != (Next{}) {
		c.checkKey(bad, "signer.next", c.Signer.Next.Key)
		if c.Signer.Next.From.IsZero() {
			bad("signer.next.from", "missing", "write the instant of the change, for example 2026-12-01T00:00:00+01:00")
		}
	}
	c.checkDirectory(bad)
}

// checkFile wants an absolute path of a file that exists.
func (c *Config) checkFile(bad func(key, why, fix string), key, value string, required bool) {
	switch {
	case value == "" && required:
		bad(key, "missing", "write the path of the file")
	case value == "":
	case !filepath.IsAbs(value):
		bad(key, strconv.Quote(value)+" is not an absolute path", "write the path from /")
	default:
		if _, err := os.Stat(value); err != nil {
			bad(key, value+": "+pathless(err).Error(), "create the file, or correct the path")
		}
	}
}

// checkKey wants a key in just one place, with all that belongs to it.
func (c *Config) checkKey(bad func(key, why, fix string), table string, k Key) {
	file := func(key, value string, required bool) { c.checkFile(bad, table+"."+key, value, required) }
	switch {
	case k.PKCS12 != "":
		if k.Key != "" || k.Module != "" {
			bad(table+".pkcs12", "set beside "+table+".key or "+table+".module", "keep one of them")
		}
		file("pkcs12", k.PKCS12, true)
		file("password_file", k.PasswordFile, false)
		return
	case k.Module != "":
		if k.Key != "" {
			bad(table+".module", "set beside "+table+".key", "keep one of them")
		}
		file("module", k.Module, true)
		file("pin_file", k.PINFile, false)
		for _, r := range []struct{ key, value, other, fix string }{
			{"token", k.Token, k.Serial, "write the token's label, or its serial number as serial"},
			{"key_label", k.KeyLabel, k.KeyID, "write the key's label, or its id as key_id"},
			{"pin_file", k.PINFile, k.PINCredential, "write the file with the PIN, or a systemd credential as pin_credential"},
		} {
			if r.value == "" && r.other == "" {
				bad(table+"."+r.key, "missing", r.fix)
			}
		}
	default:
		file("key", k.Key, true)
	}
	file("certificate", k.Certificate, true)
}

func (c *Config) checkDirectory(bad func(key, why, fix string)) {
	d := c.Directory
	switch {
	case d.URL == "":
		c.checkFile(bad, "directory.file", d.File, true)
	case d.File != "":
		bad("directory.url", "set beside directory.file", "keep one of them")
	case !strings.HasPrefix(d.URL, "https://"):
		bad("directory.url", strconv.Quote(d.URL)+" does not begin with https://", "write the address by HTTPS")
	}
	if (d.ClientCertificate == "") != (d.ClientKey == "") {
		bad("directory.client_certificate", "certificate and key belong together", "set directory.client_certificate and directory.client_key")
	}
	c.checkFile(bad, "directory.client_certificate", d.ClientCertificate, false)
	c.checkFile(bad, "directory.client_key", d.ClientKey, false)
	c.checkFile(bad, "directory.tls_anchors", d.TLSAnchors, false)
	if t := duration(d.Interval); t < time.Minute || t > 48*time.Hour {
		bad("directory.interval", strconv.Quote(d.Interval)+" is not between 1m and 48h", `write "24h": every provider looks daily (RFC 6109, 4.5)`)
	}
	if d.MaxLoss < 0 || d.MaxLoss > 1 {
		bad("directory.max_loss", fmt.Sprintf("%v is not between 0 and 1", d.MaxLoss), "remove the key")
	}
}

// checkTrust looks at the words of trust.
func (c *Config) checkTrust(bad func(key, why, fix string)) {
	if s := c.Trust.OCSP; s != "off" && s != "fallback" && s != "first" {
		bad("trust.ocsp", strconv.Quote(s)+" is not known", `write "off", "fallback" or "first"`)
	}
	if s := c.Trust.Unknown; s != "defer" && s != "accept" {
		bad("trust.unknown", strconv.Quote(s)+" is not known", `write "defer" or "accept"`)
	}
	if d, err := time.ParseDuration(c.Trust.Grace); err != nil || d < 0 || d > 7*24*time.Hour {
		bad("trust.grace", strconv.Quote(c.Trust.Grace)+" is not between 0s and 168h", `write for example "6h"`)
	}
	for _, u := range append(slices.Clone(c.Trust.CRLURLs), c.Trust.Proxy) {
		if u != "" && !strings.HasPrefix(u, "http://") && !strings.HasPrefix(u, "https://") {
			key := "trust.crl_urls"
			if u == c.Trust.Proxy {
				key = "trust.proxy"
			}
			bad(key, strconv.Quote(u)+" is neither http:// nor https://", "write the whole address")
		}
	}
}

func (c *Config) checkValues(bad func(key, why, fix string)) {
	if _, err := time.LoadLocation(c.Provider.Timezone); err != nil || c.Provider.Timezone == "Local" {
		bad("provider.timezone", "unknown time zone "+strconv.Quote(c.Provider.Timezone), `write for example "Europe/Rome"`)
	}
	if strings.ContainsAny(c.Provider.Domain, "@ ") {
		bad("provider.domain", strconv.Quote(c.Provider.Domain)+" is not a domain", "write only what follows the @")
	}
	// 30 MB and 50 recipients are what a provider must grant; docs/rules.md, S1.
	if c.Access.MaxSize < 30_000_000 {
		bad("access.max_size", fmt.Sprintf("%d octets; at least 30000000 must be granted", c.Access.MaxSize), "write a larger limit, or remove the key")
	}
	if c.Access.MaxRecipients < 50 {
		bad("access.max_recipients", fmt.Sprintf("%d; at least 50 must be granted", c.Access.MaxRecipients), "write a larger limit, or remove the key")
	}
	if c.Access.MaxTotal < 30_000_000 {
		bad("access.max_total", fmt.Sprintf("%d octets; at least 30000000 must be granted", c.Access.MaxTotal), "write a larger limit, or remove the key")
	}
	if c.Access.NoticeSize < c.Access.MaxSize {
		bad("access.notice_size", "smaller than access.max_size", "remove the key")
	}
	if s := c.Gate.TLS; s != "off" && s != "warn" && s != "require" {
		bad("gate.tls", strconv.Quote(s)+" is not known", `write "off", "warn" or "require"`)
	}
	if s := c.Delivery.BriefHash; s != "sha1" && s != "sha256" {
		bad("delivery.brief_hash", strconv.Quote(s)+" is not known", `write "sha1" or "sha256"`)
	}
	if s := c.Access.SenderLogin; s != "match" && s != "mta" {
		bad("access.sender_login", strconv.Quote(s)+" is not known", `write "match" or "mta"`)
	}
	if s := c.Access.EightBit; s != "keep" && s != "convert" {
		bad("access.eight_bit", strconv.Quote(s)+" is not known", `write "keep" or "convert"`)
	}
	if c.Reception.MaxSize < c.Access.MaxSize {
		bad("reception.max_size", "smaller than access.max_size: our own envelopes would not come back", "remove the key")
	}
	if c.Courier.Connections < 1 || c.Courier.Connections > 64 {
		bad("courier.connections", fmt.Sprintf("%d is not between 1 and 64", c.Courier.Connections), "remove the key")
	}
	if !filepath.IsAbs(c.Store.Path) {
		bad("store.path", strconv.Quote(c.Store.Path)+" is not an absolute path", "write the path from /")
	}
	if c.Metrics.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Metrics.Listen); err != nil {
			bad("metrics.listen", strconv.Quote(c.Metrics.Listen)+" is not host:port", `write for example "127.0.0.1:9325"`)
		}
	}
	if s := c.Log.Format; s != "text" && s != "json" {
		bad("log.format", strconv.Quote(s)+" is not known", `write "text" or "json"`)
	}
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.Log.Level)); err != nil {
		bad("log.level", strconv.Quote(c.Log.Level)+" is not known", `write "debug", "info", "warn" or "error"`)
	}
}

// badSocket says what is wrong with a socket address; empty if nothing.
func badSocket(addr string) string {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		switch {
		case !filepath.IsAbs(path):
			return strconv.Quote(addr) + ": the path is not absolute"
		case len(path) > 107:
			return strconv.Quote(addr) + ": a socket's path may have at most 107 octets"
		}
		return ""
	}
	if hp, ok := strings.CutPrefix(addr, "inet:"); ok {
		if _, _, err := net.SplitHostPort(hp); err != nil {
			return strconv.Quote(addr) + ": not inet:host:port"
		}
		return ""
	}
	return strconv.Quote(addr) + " is neither unix:… nor inet:…"
}

// pathless is err without the path that the caller names already.
func pathless(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
