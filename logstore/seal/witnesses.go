package seal

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// stampWitness lets a time-stamping authority attest heads.
type stampWitness struct {
	name    string
	stamper Stamper
}

// NewStampWitness returns a witness that gets time stamps over Head.Field.
func NewStampWitness(name string, s Stamper) Witness { return stampWitness{name, s} }

func (w stampWitness) Name() string { return w.name }

func (w stampWitness) Attest(ctx context.Context, h Head) (Proof, error) {
	t, err := w.stamper.Stamp(ctx, h.digest())
	if err != nil {
		return Proof{}, err
	}
	return Proof{KindTimestamp, t.Raw}, nil
}

// httpWitness tells heads to a web server.
type httpWitness struct {
	url      string
	provider string
	client   *http.Client
}

// NewHTTPWitness returns a witness that is told by POST, as a JSON object with
// provider, seq, chain, at and head, which is Head.Field. Any status from 200 to
// 299 means that it heard; what it answers is kept. Redirects are not followed.
func NewHTTPWitness(address, provider string, client *http.Client) (Witness, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil {
		return nil, errors.New("seal: the witness needs a URL with http or https, a host and no password")
	}
	c := *client
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return httpWitness{address, provider, &c}, nil
}

// Name returns the URL without its query, which may hold a secret.
func (w httpWitness) Name() string {
	name, _, _ := strings.Cut(w.url, "?")
	return name
}

func (w httpWitness) Attest(ctx context.Context, h Head) (Proof, error) {
	body, err := json.Marshal(struct {
		Provider string `json:"provider"`
		Head
		Field string `json:"head"`
	}{w.provider, h, h.Field()})
	if err != nil {
		return Proof{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return Proof{}, errors.New("not a URL")
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "pecd")
	answer, err := w.client.Do(r)
	if err != nil {
		var u *url.Error // its text has the whole URL
		if errors.As(err, &u) {
			err = u.Err
		}
		return Proof{}, err
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		return Proof{}, fmt.Errorf("the server answers with status %d", answer.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	return Proof{KindHTTP, data}, err
}

// A Syslog is a remote log that hears heads: RFC 5424, over UDP (RFC 5426), TCP
// (RFC 6587, octet counting) or TLS (RFC 5425). Nobody answers in syslog: that a
// message was sent is all that is known here, by UDP not even that.
type Syslog struct {
	Network  string // udp, tcp or tls
	Address  string // host:port
	Hostname string // ours, as the receiver is to see it
	Provider string // ours, in the text
	TLS      *tls.Config
	Now      func() time.Time
}

// NewSyslogWitness returns a witness, or says what is wrong with s.
func NewSyslogWitness(s Syslog) (Witness, error) {
	host, port, err := net.SplitHostPort(s.Address)
	switch {
	case s.Network != "udp" && s.Network != "tcp" && s.Network != "tls":
		return nil, fmt.Errorf("seal: syslog over %.20q: it must be udp, tcp or tls", s.Network)
	case err != nil || host == "" || port == "":
		return nil, errors.New("seal: the address of the syslog witness must be host:port")
	case s.Now == nil || s.Network == "tls" && s.TLS == nil:
		return nil, errors.New("seal: incomplete options of the syslog witness")
	}
	return s, nil
}

// Name implements Witness.
func (s Syslog) Name() string { return "syslog+" + s.Network + "://" + s.Address }

// priority is facility 13, log audit, with severity 5, notice; RFC 5424, 6.2.1.
const priority = 13*8 + 5

// message returns the syslog message; RFC 5424, 6.
func (s Syslog) message(h Head) []byte {
	word := func(v string, most int) string { // PRINTUSASCII
		v = strings.Map(func(r rune) rune {
			if r <= ' ' || r > '~' {
				return -1
			}
			return r
		}, v)
		if v == "" {
			return "-"
		}
		return v[:min(len(v), most)]
	}
	return fmt.Appendf(nil, "<%d>1 %s %s pecd - witness - register of %s: %s", priority,
		s.Now().UTC().Format("2006-01-02T15:04:05.000Z"), word(s.Hostname, 255), escape(s.Provider), h.Field())
}

// Attest implements Witness.
func (s Syslog) Attest(ctx context.Context, h Head) (Proof, error) {
	m := s.message(h)
	c, err := s.dial(ctx)
	if err != nil {
		return Proof{}, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	frame := m
	if s.Network != "udp" {
		frame = append(fmt.Appendf(nil, "%d ", len(m)), m...)
	}
	if _, err := c.Write(frame); err != nil {
		return Proof{}, err
	}
	if err := c.Close(); err != nil { // TLS says here that it could not send
		return Proof{}, err
	}
	return Proof{KindSyslog, m}, nil
}

func (s Syslog) dial(ctx context.Context) (net.Conn, error) {
	if s.Network == "tls" {
		return (&tls.Dialer{Config: s.TLS}).DialContext(ctx, "tcp", s.Address)
	}
	return new(net.Dialer).DialContext(ctx, s.Network, s.Address)
}
