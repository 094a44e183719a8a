// Package timestamp gets time stamps from time-stamping authorities (TSA) and
// verifies them: RFC 3161 over HTTP, SHA-256 only. It trusts no answer: size and
// time are limited, and a token counts only if it is about what was asked for,
// its time is plausible, and its signature leads to an anchor at that time. It
// refuses SHA-1 and MD5, keys that are too short, and certificates that are for
// anything else besides time stamps. Time stamps on the register: DPR 68/2005,
// art. 10 (docs/rules.md, L2).
package timestamp

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Why there is no token, or why one does not count. Errors wrap one of them.
var (
	// ErrUnavailable says that no authority gave a token that counts: try again
	// later.
	ErrUnavailable = errors.New("timestamp: no time stamp can be had now")
	ErrMalformed   = errors.New("timestamp: malformed")
	ErrRejected    = errors.New("timestamp: the authority refused")
	ErrImprint     = errors.New("timestamp: the token is about something else")
	ErrNonce       = errors.New("timestamp: the token answers another request")
	ErrPolicy      = errors.New("timestamp: the token was made under another policy")
	ErrTime        = errors.New("timestamp: the token's time is not plausible")
	ErrSignature   = errors.New("timestamp: the signature is not genuine")
	ErrUntrusted   = errors.New("timestamp: the authority's certificate is not trusted")
	ErrExpired     = errors.New("timestamp: the authority's certificate is not valid at the token's time")
	ErrWeak        = errors.New("timestamp: algorithm or key too weak")
)

// MaxToken bounds a token or an answer, in octets; real ones have 3 to 8 KB.
const MaxToken = 256 << 10

// A Token is a time stamp that holds: what has this digest existed at Time.
type Token struct {
	Raw       []byte        // the TimeStampToken: a ContentInfo in DER
	Time      time.Time     // genTime, in UTC
	Accuracy  time.Duration // how far Time may be off; 0 if the token does not say
	Serial    *big.Int
	Policy    string // object identifier, dotted
	Authority *x509.Certificate
	From      string // URL it came from; empty if it was only verified
}

// Object identifiers of RFC 3161, RFC 5652 and RFC 5035.
var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidTSTInfo       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningCert   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 12}
	oidSigningCertV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidExtKeyUsage   = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidTimeStamping  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
)

type imprint struct {
	Algorithm pkix.AlgorithmIdentifier
	Digest    []byte
}

// A request is a TimeStampReq; RFC 3161, 2.4.1.
type request struct {
	Version int
	Imprint imprint
	Policy  asn1.ObjectIdentifier `asn1:"optional"`
	Nonce   *big.Int
	CertReq bool
}

// newRequest encodes the request for a time stamp on digest. The authority is to
// send its certificate along: the token must be good in ten years, too.
func newRequest(digest [sha256.Size]byte, nonce *big.Int, policy asn1.ObjectIdentifier) ([]byte, error) {
	return asn1.Marshal(request{
		Version: 1,
		Imprint: imprint{pkix.AlgorithmIdentifier{Algorithm: oidSHA256, Parameters: asn1.NullRawValue}, digest[:]},
		Policy:  policy,
		Nonce:   nonce,
		CertReq: true,
	})
}

// A response is a TimeStampResp; RFC 3161, 2.4.2.
type response struct {
	Status struct {
		Status int
		Text   []asn1.RawValue `asn1:"optional"`
		Fail   asn1.BitString  `asn1:"optional"`
	}
	Token asn1.RawValue `asn1:"optional"`
}

// readResponse returns the token in an answer of an authority.
func readResponse(der []byte) ([]byte, error) {
	if len(der) > MaxToken {
		return nil, fmt.Errorf("%w: an answer of more than %d octets", ErrMalformed, MaxToken)
	}
	var r response
	if err := unmarshal(der, &r); err != nil {
		return nil, fmt.Errorf("%w: the answer: %w", ErrMalformed, err)
	}
	// 0 granted, 1 granted with modifications; RFC 3161, 2.4.2.
	if s := r.Status; s.Status != 0 && s.Status != 1 {
		text := ""
		if len(s.Text) > 0 {
			text = fmt.Sprintf(": %.200q", s.Text[0].Bytes)
		}
		return nil, fmt.Errorf("%w: status %d, failure %x%s", ErrRejected, s.Status, s.Fail.Bytes, text)
	}
	if len(r.Token.FullBytes) == 0 {
		return nil, fmt.Errorf("%w: an answer without a token", ErrMalformed)
	}
	return r.Token.FullBytes, nil
}

// unmarshal reads one DER value that fills der. encoding/asn1 does not recurse
// into what it is not told of, so that nesting is no danger.
func unmarshal(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err == nil && len(rest) > 0 {
		err = errors.New("octets after the end")
	}
	return err
}
