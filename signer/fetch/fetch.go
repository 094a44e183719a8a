// Package fetch gets what others publish: revocation lists, OCSP answers, the
// directory of the providers (RFC 6109, 4.5). It keeps the last good copy on
// disk. It trusts nothing that it gets: size, time and redirects are limited, a
// redirect never leaves TLS nor takes a client certificate to another host, no
// compression is asked for, and the environment names no proxy. Whether what
// came is genuine is for the caller to check before he saves it.
package fetch

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Why nothing was got. Get and Post wrap one of them, or the error of the
// network.
var (
	ErrURL      = errors.New("fetch: not a URL that is fetched")
	ErrTooLarge = errors.New("fetch: larger than allowed")
	ErrStatus   = errors.New("fetch: the server did not answer with the file")
	ErrRedirect = errors.New("fetch: a redirect that is not followed")
)

// Defaults of Options.
const (
	DefaultMaxSize   = 64 << 20
	DefaultTimeout   = 30 * time.Second
	DefaultRedirects = 3
)

// Options say how a Client fetches. The zero value fetches by HTTP and HTTPS
// with the authorities of the system.
type Options struct {
	Roots     *x509.CertPool // authorities of HTTPS servers; nil: those of the system
	OnlyHTTPS bool           // refuse http, for what is not public

	// Certificate returns the client certificate; nil: none. It is asked at
	// each connection, so that a renewed one is used from then on.
	Certificate func() (*tls.Certificate, error)

	Proxy     *url.URL         // nil: none, whatever the environment says
	MaxSize   int64            // of an answer, in octets; 0: DefaultMaxSize
	Timeout   time.Duration    // for a whole fetch; 0: DefaultTimeout
	Redirects int              // that are followed; 0: DefaultRedirects, negative: none
	Now       func() time.Time // judges certificates of servers; nil: the system's clock
}

// A Client fetches. It may be used concurrently.
type Client struct {
	http      http.Client
	onlyHTTPS bool
	oneHost   bool
	maxSize   int64
	timeout   time.Duration
	redirects int
}

// New returns a client. It keeps no connection open after a fetch.
func New(o Options) *Client {
	c := &Client{
		onlyHTTPS: o.OnlyHTTPS,
		oneHost:   o.Certificate != nil,
		maxSize:   o.MaxSize,
		timeout:   o.Timeout,
		redirects: o.Redirects,
	}
	if c.maxSize == 0 {
		c.maxSize = DefaultMaxSize
	}
	if c.timeout == 0 {
		c.timeout = DefaultTimeout
	}
	if c.redirects == 0 {
		c.redirects = DefaultRedirects
	}
	c.http.Transport = transport(o)
	c.http.CheckRedirect = c.redirect
	return c
}

func transport(o Options) *http.Transport {
	t := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots, Time: o.Now},
		MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives:      true, // fetches are hours apart
		DisableCompression:     true, // a small answer must not become a large one
	}
	if o.Proxy != nil {
		t.Proxy = http.ProxyURL(o.Proxy)
	}
	if o.Certificate != nil {
		t.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return o.Certificate()
		}
	}
	return t
}

// redirect follows a few redirects. They do not lead from HTTPS to HTTP, nor,
// with a client certificate, to another host.
func (c *Client) redirect(r *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case len(via) > c.redirects:
		return fmt.Errorf("%w: more than %d", ErrRedirect, max(c.redirects, 0))
	case first.Scheme == "https" && r.URL.Scheme != "https":
		return fmt.Errorf("%w: from https to %.10s", ErrRedirect, r.URL.Scheme)
	case c.oneHost && r.URL.Host != first.Host:
		return fmt.Errorf("%w: to the host %.100s", ErrRedirect, r.URL.Host)
	}
	if _, err := c.check(r.URL.String()); err != nil {
		return fmt.Errorf("%w: %w", ErrRedirect, err)
	}
	return nil
}

// Validators tell one version of a file from another; RFC 9110, 8.8. They are
// what the server gave, and are given back to it as they are.
type Validators struct {
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"last_modified,omitempty"`
}

// An Answer is what a server sent. NotModified says that the version of the
// validators is still the current one; Body is nil then.
type Answer struct {
	Body        []byte
	NotModified bool
	Validators
}

// Get fetches address, unless the server says that the version have is the
// current one. Waiting ends with ctx or the client's timeout.
func (c *Client) Get(ctx context.Context, address string, have Validators) (*Answer, error) {
	header := make(http.Header)
	if have.ETag != "" {
		header.Set("If-None-Match", have.ETag)
	}
	if have.LastModified != "" {
		header.Set("If-Modified-Since", have.LastModified)
	}
	return c.do(ctx, http.MethodGet, address, header, nil)
}

// Post sends body, of the media type kind, and returns what is answered.
func (c *Client) Post(ctx context.Context, address, kind string, body []byte) (*Answer, error) {
	return c.do(ctx, http.MethodPost, address, http.Header{"Content-Type": {kind}}, body)
}

func (c *Client) do(ctx context.Context, method, address string, header http.Header, body []byte) (*Answer, error) {
	u, err := c.check(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrURL, err)
	}
	r.Header = header
	r.Header.Set("User-Agent", "pecd")
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	defer answer.Body.Close()
	return c.read(answer, header)
}

// Check reports whether address is one that c would fetch: http or https with
// a host and without a password. The error wraps ErrURL.
func (c *Client) Check(address string) error {
	_, err := c.check(address)
	return err
}

func (c *Client) check(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || len(address) > 2048:
		// The reason of url.Parse quotes the whole address.
		return nil, fmt.Errorf("%w: %.100q", ErrURL, address)
	case u.Scheme != "https" && (c.onlyHTTPS || u.Scheme != "http"):
		return nil, fmt.Errorf("%w: scheme %.20q", ErrURL, u.Scheme)
	case u.Hostname() == "" || u.User != nil || u.Opaque != "":
		return nil, fmt.Errorf("%w: it needs a host and no user", ErrURL)
	}
	return u, nil
}

func (c *Client) read(r *http.Response, sent http.Header) (*Answer, error) {
	conditional := sent.Get("If-None-Match") != "" || sent.Get("If-Modified-Since") != ""
	switch {
	case r.StatusCode == http.StatusNotModified && conditional:
		return &Answer{NotModified: true, Validators: validators(r.Header)}, nil
	case r.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%w: status %d", ErrStatus, r.StatusCode)
	case r.ContentLength > c.maxSize:
		return nil, fmt.Errorf("%w: %d octets, limit %d", ErrTooLarge, r.ContentLength, c.maxSize)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, c.maxSize+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("fetch: %w", err)
	case int64(len(body)) > c.maxSize:
		return nil, fmt.Errorf("%w: limit %d octets", ErrTooLarge, c.maxSize)
	case len(body) == 0:
		return nil, fmt.Errorf("%w: it is empty", ErrStatus)
	}
	return &Answer{Body: body, Validators: validators(r.Header)}, nil
}

// maxValidator bounds what is kept of a server's words, in octets.
const maxValidator = 1024

func validators(h http.Header) Validators {
	v := Validators{ETag: h.Get("ETag"), LastModified: h.Get("Last-Modified")}
	if len(v.ETag) > maxValidator {
		v.ETag = ""
	}
	if len(v.LastModified) > maxValidator {
		v.LastModified = ""
	}
	return v
}
