// Package config reads pecd's configuration: one TOML file and the files of
// conf.d beside it. An unknown key, a value of the wrong type and a value that
// cannot work are errors that name file, line and key.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// DefaultFile is read when no other is named.
const DefaultFile = "/etc/pecd/pecd.toml"

// Config is the whole configuration. The comment of a field is its manual.
type Config struct {
	Provider  Provider  `toml:"provider"`
	Signer    Signer    `toml:"signer"`
	Trust     Trust     `toml:"trust"`
	Directory Directory `toml:"directory"`
	Access    Access    `toml:"access"`
	Gate      Gate      `toml:"gate"`
	Reception Reception `toml:"reception"`
	Delivery  Delivery  `toml:"delivery"`
	Courier   Courier   `toml:"courier"`
	Store     Store     `toml:"store"`
	Seal      Seal      `toml:"seal"`
	Witness   Witness   `toml:"witness"`
	Time      Time      `toml:"time"`
	Metrics   Metrics   `toml:"metrics"`
	Canary    Canary    `toml:"canary"`
	Log       Log       `toml:"log"`
	// Plugins are programs of others, in the order in which checks are asked.
	Plugins []Plugin `toml:"plugin"`

	origins map[string]Origin
	file    string // that was loaded
}

// Provider says who we are.
type Provider struct {
	// Name of the provider, exactly as providerName in the directory.
	Name string `toml:"name"`
	// Domain of the system messages: they come from posta-certificata@domain,
	// which must be the certificate's e-mail address.
	Domain string `toml:"domain"`
	// English says whether an English text follows the Italian one. Default: true.
	English *bool `toml:"english"`
	// Timezone whose legal time stands in receipts. Default: Europe/Rome.
	Timezone string `toml:"timezone"`
}

// Signer is the provider's key and certificate.
type Signer struct {
	Key
	// Next is the renewed certificate with its key, beside the one in force.
	Next Next `toml:"next"`
}

// A Key is a key with its certificate: in PEM files, in a PKCS #12 file, or the
// key in a hardware module.
type Key struct {
	// Key is a PEM file with the private key, readable by its owner only (0600), who is
	// the user that the daemon runs as; so are the other files with secrets.
	Key string `toml:"key"`
	// Certificate is a PEM file: the provider's certificate, then its issuers.
	Certificate string `toml:"certificate"`
	// PKCS12 is a file with key and certificates, readable by its owner only, in
	// place of key and certificate.
	PKCS12 string `toml:"pkcs12"`
	// PasswordFile holds the password of the PKCS #12 file, readable by its owner
	// only.
	PasswordFile string `toml:"password_file"`
	// Module is the PKCS #11 library of a hardware module, in place of key.
	Module string `toml:"module"`
	// Token is the label of the module's token, or Serial its serial number.
	Token  string `toml:"token"`
	Serial string `toml:"serial"`
	// KeyLabel is the label of the key in the module, or KeyID its CKA_ID in
	// hexadecimal.
	KeyLabel string `toml:"key_label"`
	KeyID    string `toml:"key_id"`
	// PINFile holds the module's PIN, readable by its owner only; or PINCredential
	// names the systemd credential that does.
	PINFile       string `toml:"pin_file"`
	PINCredential string `toml:"pin_credential"`
}

// Next is a key with its certificate and when it takes over.
type Next struct {
	Key
	// From is the instant from which it signs, such as 2026-12-01T00:00:00+01:00.
	From time.Time `toml:"from"`
}

// Trust says whose certificates are believed.
type Trust struct {
	// Anchors is a PEM file with the CAs of providers' certificates.
	Anchors string `toml:"anchors"`
	// CRLs are files with certificate revocation lists, PEM or DER, of CAs whose
	// certificates they revoke. They are read at start and at a reload.
	CRLs []string `toml:"crls"`
	// CRLURLs are addresses of such lists, beside those that the certificates
	// themselves name. They are fetched before they run out.
	CRLURLs []string `toml:"crl_urls"`
	// OCSP says whether a CA is asked about each certificate: "off", "fallback"
	// where no list can be had, or "first". Default: "off".
	OCSP string `toml:"ocsp"`
	// Unknown says what happens when it cannot be told whether a certificate was
	// revoked: "defer" lets the message wait, "accept" takes it. Default: "defer".
	Unknown string `toml:"unknown"`
	// Grace is how long a list counts past its end: "6h". Default: "0s".
	Grace string `toml:"grace"`
	// Proxy is the HTTP proxy for lists and directory, http://host:port; empty:
	// none, whatever the environment says.
	Proxy string `toml:"proxy"`
}

// Directory is the index of all providers (indice dei gestori).
type Directory struct {
	// File is the signed LDIF (igpec.ldif.p7m, DER), if somebody else fetches it. It is
	// as current as its modification time says.
	File string `toml:"file"`
	// URL is where pecd fetches it itself, by HTTPS, daily.
	URL string `toml:"url"`
	// ClientCertificate and ClientKey are PEM files: who we are to that server.
	ClientCertificate string `toml:"client_certificate"`
	ClientKey         string `toml:"client_key"`
	// TLSAnchors is a PEM file with the CAs of that server. Default: the system's.
	TLSAnchors string `toml:"tls_anchors"`
	// Anchors is a PEM file with the CAs of whoever signs the directory.
	// Default: trust.anchors.
	Anchors string `toml:"anchors"`
	// Interval is how often it is looked for a new one. Default: "24h".
	Interval string `toml:"interval"`
	// MaxLoss is the part of the domains that a new directory may lack, between 0
	// and 1; more needs pecd directory update --force. Default: 0.5.
	MaxLoss float64 `toml:"max_loss"`
}

// Access is the access point: what our users submit.
type Access struct {
	// Milter is the socket at which the MTA's submission service calls:
	// unix:/path or inet:host:port.
	Milter string `toml:"milter"`
	// SocketGroup is the group that may connect to a unix socket. Default: the
	// daemon's own group.
	SocketGroup string `toml:"socket_group"`
	// SocketMode is the mode of a unix socket, octal. Default: "0660".
	SocketMode string `toml:"socket_mode"`
	// MaxSize is the largest message in octets. Default: 104857600.
	MaxSize int64 `toml:"max_size"`
	// NoticeSize is the largest message in octets that is answered by a notice
	// of non-acceptance when it exceeds a limit; larger ones are refused by SMTP.
	// Default: twice max_size.
	NoticeSize int64 `toml:"notice_size"`
	// MaxTotal bounds size times recipients, in octets; at least 30000000 must be
	// granted. Default: 2147483648.
	MaxTotal int64 `toml:"max_total"`
	// MaxRecipients is the most recipients of a message; at least 50 must be
	// granted. Default: 500.
	MaxRecipients int `toml:"max_recipients"`
	// EightBit says what becomes of originals with octets over 127: "keep" leaves
	// them as they are and declares them 8bit; "convert" brings them to 7 bits
	// before they are certified, for peers that cannot take 8bit. Default: "keep".
	EightBit string `toml:"eight_bit"`
	// SenderLogin says who checks that a login may use a sender's address:
	// "match" wants the login to be the address; "mta" leaves it to the MTA
	// (Postfix: reject_sender_login_mismatch). Default: "match".
	SenderLogin string `toml:"sender_login"`
}

// Gate is the reception point's word on port 25, before the MTA takes a message.
type Gate struct {
	// Milter is the socket at which the MTA's port 25 calls: unix:/path or
	// inet:host:port; empty: no gate, and what it would refuse is refused at LMTP.
	Milter string `toml:"milter"`
	// SocketGroup is the group that may connect to a unix socket. Default: the
	// daemon's own group.
	SocketGroup string `toml:"socket_group"`
	// SocketMode is the mode of a unix socket, octal. Default: "0660".
	SocketMode string `toml:"socket_mode"`
	// TLS says what happens when a provider of the directory sends without TLS:
	// "off", "warn" or "require". Default: "warn".
	TLS string `toml:"tls"`
}

// Reception is the reception point: what arrives for our users.
type Reception struct {
	// LMTP is the socket to which the MTA delivers mail for our domains:
	// unix:/path or inet:host:port.
	LMTP string `toml:"lmtp"`
	// SocketGroup is the group that may connect to a unix socket. Default: the
	// daemon's own group.
	SocketGroup string `toml:"socket_group"`
	// SocketMode is the mode of a unix socket, octal. Default: "0660".
	SocketMode string `toml:"socket_mode"`
	// MaxSize is the largest message in octets. Default: twice access.max_size
	// and 1 MiB more.
	MaxSize int64 `toml:"max_size"`
}

// Delivery is the delivery point: the mailbox store behind us.
type Delivery struct {
	// BriefHash is the hash of attachments in brief receipts: "sha1", as RFC 6109
	// has it, or "sha256". Default: "sha1".
	BriefHash string `toml:"brief_hash"`
	// Store is the LMTP socket of the mailbox store: unix:/path or
	// inet:host:port.
	Store string `toml:"store"`
	// Direct says whether messages for our own users go to the reception point
	// straight from the outbox, instead of through the MTA, which gets those that
	// the mailbox store does not take. The MTA's own maps (aliases, copies) and
	// filters do not see what goes that way. Default: true.
	Direct *bool `toml:"direct"`
}

// Courier hands signed messages to the MTA.
type Courier struct {
	// MTA is the MTA's re-injection listener, without milters: inet:host:port or
	// unix:/path.
	MTA string `toml:"mta"`
	// Connections is the most connections at a time. Default: 4.
	Connections int `toml:"connections"`
}

// Store is where register, outbox and ledger are.
type Store struct {
	// Path is a directory on a disk that keeps what it has synced. Default:
	// /var/lib/pecd.
	Path string `toml:"path"`
}

// Metrics are figures for Prometheus.
type Metrics struct {
	// Listen is the host:port that serves /metrics, /healthz and /readyz; empty:
	// none.
	Listen string `toml:"listen"`
}

// Log says what the daemon writes to standard error.
type Log struct {
	// Level is debug, info, warn or error. Default: info.
	Level string `toml:"level"`
	// Format is text, or json for an object on each line. Default: text. A change
	// needs a restart.
	Format string `toml:"format"`
}

// An Origin is where a key was set.
type Origin struct {
	File string
	Line int
}

// Load reads file and, beside it, conf.d/*.toml in the order of their names. A
// key may be set once only. The error joins all problems found, a line each.
func Load(file string) (*Config, error) {
	c := &Config{origins: map[string]Origin{}, file: file}
	files := []string{file}
	more, err := filepath.Glob(filepath.Join(filepath.Dir(file), "conf.d", "*.toml"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	sort.Strings(more)
	for _, f := range append(files, more...) {
		if err := c.read(f); err != nil {
			return nil, err
		}
	}
	c.defaults()
	if err := c.check(file); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) read(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		fix := "name another file with --config, or create this one after the example pecd.toml"
		if errors.Is(err, fs.ErrPermission) {
			fix = "run this as root, or as the user that runs the daemon (pecd)"
		}
		return fmt.Errorf("%w: %s: cannot be read: %w\n  fix: %s", ErrConfig, file, pathless(err), fix)
	}
	plugins := c.Plugins
	c.Plugins = nil
	meta, err := toml.Decode(string(data), c)
	if err != nil {
		return syntax(file, err)
	}
	lines := keyLines(data)
	c.takePlugins(plugins, file, data, lines["plugin"])
	var p Problems
	for _, k := range meta.Undecoded() {
		p.add(file, lines[k.String()], k.String(), "unknown key", nearest(k.String()))
	}
	for _, k := range meta.Keys() {
		name := k.String()
		if len(k) < 2 || k[0] == "plugin" {
			continue // plugins have a table each
		}
		if o, ok := c.origins[name]; ok {
			p.add(file, lines[name], name, fmt.Sprintf("set already in %s, line %d", o.File, o.Line), "remove one of them")
		}
		c.origins[name] = Origin{File: file, Line: lines[name]}
	}
	return p.err()
}

func (c *Config) defaults() {
	str := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	str(&c.Provider.Timezone, "Europe/Rome")
	str(&c.Directory.Anchors, c.Trust.Anchors)
	str(&c.Directory.Interval, "24h")
	if c.Directory.MaxLoss == 0 {
		c.Directory.MaxLoss = 0.5
	}
	str(&c.Trust.OCSP, "off")
	str(&c.Trust.Unknown, "defer")
	str(&c.Trust.Grace, "0s")
	str(&c.Access.SocketMode, "0660")
	str(&c.Access.SenderLogin, "match")
	str(&c.Access.EightBit, "keep")
	str(&c.Gate.SocketMode, "0660")
	str(&c.Gate.TLS, "warn")
	str(&c.Reception.SocketMode, "0660")
	str(&c.Delivery.BriefHash, "sha1")
	if c.Delivery.Direct == nil {
		c.Delivery.Direct = new(bool)
		*c.Delivery.Direct = true
	}
	if c.Provider.English == nil {
		c.Provider.English = new(bool)
		*c.Provider.English = true
	}
	str(&c.Store.Path, "/var/lib/pecd")
	c.evidenceDefaults()
	c.canaryDefaults()
	str(&c.Log.Level, "info")
	str(&c.Log.Format, "text")
	if c.Access.MaxSize == 0 {
		c.Access.MaxSize = 100 << 20
	}
	if c.Access.NoticeSize == 0 {
		c.Access.NoticeSize = 2 * c.Access.MaxSize
	}
	if c.Access.MaxTotal == 0 {
		c.Access.MaxTotal = 2 << 30
	}
	if c.Access.MaxRecipients == 0 {
		c.Access.MaxRecipients = 500
	}
	if c.Reception.MaxSize == 0 {
		c.Reception.MaxSize = 2*c.Access.MaxSize + 1<<20
	}
	if c.Courier.Connections == 0 {
		c.Courier.Connections = 4
	}
}

// Every is Interval as a duration; the configuration has checked it.
func (d Directory) Every() time.Duration { return duration(d.Interval) }

// GraceTime is Grace as a duration; the configuration has checked it.
func (t Trust) GraceTime() time.Duration { return duration(t.Grace) }

// duration is s where it is one.
func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0
	}
	return d
}

// Address is the address in whose name everything is issued.
func (p Provider) Address() string { return "posta-certificata@" + strings.ToLower(p.Domain) }
