package timestamp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// An Authority is where time stamps are asked for.
type Authority struct {
	URL string // http or https; a time stamp is signed, so that http does no harm
	// User and Password are sent as HTTP Basic authentication; only over https, and
	// only if User is not empty.
	User, Password string
	Policy         string // object identifier to ask for, dotted; empty: the authority's choice
}

// Defaults of Options.
const (
	DefaultTimeout = 20 * time.Second
	DefaultSkew    = time.Minute
)

// Options say how a Client gets time stamps.
type Options struct {
	Authorities []Authority // in the order in which they are asked
	Verifier    *Verifier
	HTTP        *http.Client  // redirects are not followed
	Timeout     time.Duration // for each authority; 0: DefaultTimeout
	Skew        time.Duration // how far the authority's clock may differ from ours; 0: DefaultSkew
	Now         func() time.Time
	Random      io.Reader // for nonces
}

// A Client gets time stamps. It may be used concurrently.
type Client struct {
	o        Options
	http     http.Client
	policies []asn1.ObjectIdentifier // of each authority; nil: any
}

// New returns a client, or says what is wrong with o.
func New(o Options) (*Client, error) {
	if len(o.Authorities) == 0 {
		return nil, errors.New("timestamp: no authority is given")
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Skew == 0 {
		o.Skew = DefaultSkew
	}
	c := &Client{o: o, http: *o.HTTP}
	// A redirect could take the password elsewhere, and no authority needs one.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, a := range o.Authorities {
		policy, err := a.check()
		if err != nil {
			return nil, fmt.Errorf("timestamp: authority %.100q: %w", a.name(), err)
		}
		c.policies = append(c.policies, policy)
	}
	return c, nil
}

func (a Authority) check() (asn1.ObjectIdentifier, error) {
	u, err := url.Parse(a.URL)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("not a URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("the URL must begin with http or https")
	case u.User != nil:
		return nil, errors.New("user and password do not belong in the URL")
	case a.User != "" && u.Scheme != "https":
		return nil, errors.New("a password is sent over https only")
	}
	return readOID(a.Policy)
}

// name is the URL as errors may show it: without what may be a secret.
func (a Authority) name() string {
	u, err := url.Parse(a.URL)
	if err != nil {
		return "?"
	}
	return u.Scheme + "://" + u.Host + u.Path
}

func readOID(dotted string) (oid asn1.ObjectIdentifier, err error) {
	if dotted == "" {
		return nil, nil
	}
	for _, s := range strings.Split(dotted, ".") {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%.100q is not an object identifier", dotted)
		}
		oid = append(oid, int(n))
	}
	if _, err := asn1.Marshal(oid); err != nil {
		return nil, fmt.Errorf("%.100q is not an object identifier", dotted)
	}
	return oid, nil
}

// Stamp returns a time stamp on what has this digest, from the first authority
// that gives one that counts. If none does the error wraps ErrUnavailable and
// what was wrong with each.
func (c *Client) Stamp(ctx context.Context, digest [sha256.Size]byte) (*Token, error) {
	failure := ErrUnavailable
	for i, a := range c.o.Authorities {
		t, err := c.ask(ctx, i, digest)
		if err == nil {
			t.From = a.name()
			return t, nil
		}
		failure = fmt.Errorf("%w; %s: %w", failure, a.name(), err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failure
}

// ask gets a time stamp from authority i.
func (c *Client) ask(ctx context.Context, i int, digest [sha256.Size]byte) (*Token, error) {
	random := make([]byte, 16)
	if _, err := io.ReadFull(c.o.Random, random); err != nil {
		return nil, fmt.Errorf("timestamp: no randomness: %w", err)
	}
	nonce := new(big.Int).SetBytes(random)
	query, err := newRequest(digest, nonce, c.policies[i])
	if err != nil {
		return nil, fmt.Errorf("timestamp: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	asked := c.o.Now()
	answer, err := c.post(ctx, c.o.Authorities[i], query)
	if err != nil {
		return nil, err
	}
	der, err := readResponse(answer)
	if err != nil {
		return nil, err
	}
	p, err := parse(der)
	if err != nil {
		return nil, err
	}
	if p.info.Nonce == nil || p.info.Nonce.Cmp(nonce) != 0 {
		return nil, ErrNonce
	}
	if want := c.policies[i]; want != nil && !p.info.Policy.Equal(want) {
		return nil, fmt.Errorf("%w: %s, not %s", ErrPolicy, p.info.Policy, want)
	}
	t, err := c.o.Verifier.verify(ctx, der, p, digest)
	if err != nil {
		return nil, err
	}
	if now := c.o.Now(); t.Time.Before(asked.Add(-c.o.Skew)) || t.Time.After(now.Add(c.o.Skew)) {
		return nil, fmt.Errorf("%w: %s, while it is %s here", ErrTime, t.Time.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return t, nil
}

// post sends the query; RFC 3161, 3.4.
func (c *Client) post(ctx context.Context, a Authority, query []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.URL, bytes.NewReader(query))
	if err != nil {
		return nil, errors.New("timestamp: not a URL")
	}
	r.Header.Set("Content-Type", "application/timestamp-query")
	r.Header.Set("Accept", "application/timestamp-reply")
	r.Header.Set("User-Agent", "pecd")
	if a.User != "" {
		r.SetBasicAuth(a.User, a.Password)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		var u *url.Error // its text has the whole URL
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, fmt.Errorf("timestamp: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("timestamp: the server answers with status %d", answer.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, MaxToken+1))
	if err != nil {
		return nil, fmt.Errorf("timestamp: %w", err)
	}
	return body, nil
}
