// Command countersign is an access point that asks more of some senders than
// the rules do: what they submit must bear an S/MIME signature (RFC 8551) of
// somebody whose certificate leads to an authority of the provider's choice, for
// example an office's own. For everybody else, and in everything else, it decides
// as the built-in access point does. It looks at no revocation list.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"pecd/pec"
	"pecd/plugins/sdk"
	"pecd/plugins/sdk/point"
	"pecd/points"
	"pecd/points/access"
	"pecd/signer"
)

func main() {
	sdk.Main(sdk.Plugin{
		Name:    "countersign",
		Version: "1.0.0",
		About:   "an access point that takes messages of some senders only with an S/MIME signature",
		Keys: []sdk.Key{
			{Name: "senders", Type: "list of strings", Default: "[]", About: "Who has to sign: addresses, and domains as @example.com."},
			{Name: "ca", Type: "string", About: "A file of PEM certificates: the authorities that the signer's certificate may lead to."},
		},
		Open: open,
	})
}

// settings are the plugin's table.
type settings struct {
	Senders []string
	CA      string
}

func open(_ context.Context, c sdk.Config) (sdk.Service, error) {
	p, err := newPoint(c)
	if err != nil {
		return nil, err
	}
	return point.Access(p), nil
}

func newPoint(c sdk.Config) (*countersigned, error) {
	var t settings
	if err := c.Decode(&t); err != nil {
		return nil, err
	}
	p := &countersigned{Point: access.Builtin{}, senders: make(map[string]bool), now: time.Now}
	for _, s := range t.Senders {
		local, domain := pec.Address(s).Split()
		if domain == "" || strings.ContainsAny(s, " <>") {
			return nil, c.Problem("senders", fmt.Sprintf("%q is no address", s), "write anna@example.com, or @example.com for all of a domain")
		}
		p.senders[pec.Address(local+"@"+domain).Key()] = true
	}
	if len(t.Senders) == 0 {
		return p, nil
	}
	pool, err := authorities(t.CA)
	if err != nil {
		return nil, c.Problem("ca", err.Error(), "name a file of PEM certificates that the plugin may read")
	}
	p.verifier = signer.NewVerifier(pool)
	return p, nil
}

// authorities reads the certificates of a file, at least one.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, errors.New("it is needed where senders have to sign")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return pool, nil
}

// countersigned is the access point around another.
type countersigned struct {
	access.Point
	senders  map[string]bool // by pec.Address.Key; "@domain" is all of a domain
	verifier *signer.Verifier
	now      func() time.Time
}

var unsigned = points.Reason{Cause: points.Policy,
	Italian: "per questo mittente il messaggio deve essere firmato S/MIME con un certificato ammesso dal gestore",
	English: "from this sender a message needs an S/MIME signature by a certificate that the provider admits"}

// Decide implements access.Point: only what the point inside accepts can still
// be refused. A message that could not be read is put off.
func (p *countersigned) Decide(ctx context.Context, s access.Submission) (access.Decision, error) {
	d, err := p.Point.Decide(ctx, s)
	if err != nil || d.Verdict != points.Accept || !p.mustSign(s.Sender) {
		return d, err
	}
	_, err = p.verifier.VerifyContext(ctx, s.Message, p.now())
	switch {
	case err == nil:
		return d, nil
	case invalid(err):
		return access.Decision{Verdict: points.Refuse, Reasons: []points.Reason{unsigned}}, nil
	}
	return access.Decision{}, err
}

func (p *countersigned) mustSign(a pec.Address) bool {
	return p.senders[a.Key()] || p.senders[pec.Address("@"+a.Domain()).Key()]
}

// invalid reports whether err says something of the message, and not that it
// could not be read.
func invalid(err error) bool {
	for _, e := range []error{signer.ErrNoSignature, signer.ErrMalformedSignature, signer.ErrAltered, signer.ErrSignature,
		signer.ErrUntrusted, signer.ErrExpired, signer.ErrWeak} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
