package signer

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// ErrRevoked says that the signer's certificate, or one that vouches for it, was
// revoked.
var ErrRevoked = errors.New("signer: the signer's certificate was revoked")

// maxCRL bounds a revocation list, in octets.
const maxCRL = 32 << 20

// LoadCRL reads a certificate revocation list (RFC 5280, 5), PEM or DER.
func LoadCRL(file string) (*x509.RevocationList, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxCRL {
		return nil, fmt.Errorf("%s: %d octets, more than the %d that a revocation list may have", file, st.Size(), maxCRL)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
	}
	list, err := x509.ParseRevocationList(data)
	if err != nil {
		return nil, fmt.Errorf("%s: not a revocation list: %w", file, err)
	}
	return list, nil
}

// WithCRLs returns a verifier that also refuses certificates that one of lists
// revokes. A list counts for certificates of the authority that signed it.
func (v *Verifier) WithCRLs(lists []*x509.RevocationList) *Verifier {
	w := *v
	w.crls = lists
	return &w
}

// checkRevoked looks at each certificate of chain but the anchor.
func (v *Verifier) checkRevoked(chain []*x509.Certificate, at time.Time) error {
	for i := 0; i+1 < len(chain); i++ {
		for _, list := range v.crls {
			if !bytes.Equal(list.RawIssuer, chain[i].RawIssuer) || list.CheckSignatureFrom(chain[i+1]) != nil {
				continue
			}
			for _, e := range list.RevokedCertificateEntries {
				if e.SerialNumber.Cmp(chain[i].SerialNumber) == 0 && !e.RevocationTime.After(at) {
					return fmt.Errorf("%w on %s", ErrRevoked, e.RevocationTime.UTC().Format(time.RFC3339))
				}
			}
		}
	}
	return nil
}
