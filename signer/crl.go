package signer

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"sync"
	"time"
)

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

// A CRLIndex finds a serial number in a large list without walking it. It may be
// used concurrently.
type CRLIndex struct {
	list *x509.RevocationList
	on   map[string]int64 // serial number, as Bytes gives it: Unix time in seconds

	mu       sync.Mutex
	signedBy map[string]error // certificate in DER: whether the list is signed by it
}

// removeFromCRL is the reason of an entry that takes a revocation back; RFC
// 5280, 5.3.1.
const removeFromCRL = 8

// IndexCRL returns the index of list, which is not changed afterwards. Entries
// of an indirect list are taken as the issuer's own.
func IndexCRL(list *x509.RevocationList) *CRLIndex {
	x := &CRLIndex{list: list, signedBy: make(map[string]error),
		on: make(map[string]int64, len(list.RevokedCertificateEntries))}
	for i := range list.RevokedCertificateEntries {
		e := &list.RevokedCertificateEntries[i]
		if e.ReasonCode == removeFromCRL {
			continue
		}
		serial := string(e.SerialNumber.Bytes())
		on := e.RevocationTime.Unix()
		if earlier, known := x.on[serial]; !known || on < earlier {
			x.on[serial] = on
		}
	}
	return x
}

// List returns the list itself.
func (x *CRLIndex) List() *x509.RevocationList { return x.list }

// Find returns the instant of revocation, to the second, of the certificate with
// this serial number, and whether the list has it at all.
func (x *CRLIndex) Find(serial *big.Int) (on time.Time, revoked bool) {
	unix, revoked := x.on[string(serial.Bytes())]
	if !revoked {
		return time.Time{}, false
	}
	return time.Unix(unix, 0), true
}

// maxSignedBy bounds the issuers about whom an index remembers the answer.
const maxSignedBy = 16

// SignedBy returns nil if issuer signed the list and may sign lists. The answer
// is remembered: hashing a large list at each message would be slow.
func (x *CRLIndex) SignedBy(issuer *x509.Certificate) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	err, known := x.signedBy[string(issuer.Raw)]
	if known {
		return err
	}
	err = x.list.CheckSignatureFrom(issuer)
	if len(x.signedBy) < maxSignedBy {
		x.signedBy[string(issuer.Raw)] = err
	}
	return err
}
