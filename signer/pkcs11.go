package signer

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"pecd/signer/hsm"
)

// ErrKeyUnavailable says that the key cannot sign now, because the module that
// holds it is away or does not answer: the message is to wait. It works again by
// itself when the module is back.
var ErrKeyUnavailable = hsm.ErrUnavailable

// PKCS11 says where a key in a hardware module is. Of Token and Serial, of Key
// and KeyID, and of PINFile and PINCredential, one is enough.
type PKCS11 struct {
	Module        string        // file of the PKCS #11 library
	Token         string        // label of the token
	Serial        string        // serial number of the token
	Key           string        // label of the private key
	KeyID         string        // CKA_ID of the private key in hexadecimal, with or without colons
	PINFile       string        // file with the PIN, readable by its owner only
	PINCredential string        // systemd credential with the PIN
	Sessions      int           // at most so many signatures at a time; 8 if 0
	Wait          time.Duration // the longest wait for a signature; 10 s if 0
}

// LoadPKCS11 returns the identity whose key is in a hardware module and whose
// certificate, with its issuers, is in a PEM file. Errors wrap ErrIdentity, and
// ErrKeyUnavailable beside it if the module is away. The identity holds sessions
// of the module until Close.
func LoadPKCS11(ctx context.Context, options PKCS11, certFile string, now time.Time) (*Identity, error) {
	certs, err := loadCertificates(certFile)
	if err != nil {
		return nil, err
	}
	key, err := options.open(ctx, certs)
	if err != nil {
		return nil, fmt.Errorf("%w: PKCS #11 key: %w", ErrIdentity, err)
	}
	id, err := identityOf(key, certs, now)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrIdentity, certFile, errors.Join(err, key.Close()))
	}
	return id, nil
}

func (p PKCS11) open(ctx context.Context, certs []*x509.Certificate) (*hsm.Key, error) {
	switch {
	case p.Module == "":
		return nil, errors.New("no module is named")
	case p.Token == "" && p.Serial == "":
		return nil, errors.New("neither label nor serial number of the token is given")
	case p.Key == "" && p.KeyID == "":
		return nil, errors.New("neither label nor id of the key is given")
	}
	id, err := hex.DecodeString(strings.ReplaceAll(p.KeyID, ":", ""))
	if err != nil {
		return nil, fmt.Errorf("the key's id %q is not hexadecimal", p.KeyID)
	}
	pin, err := p.pin()
	if err != nil {
		return nil, err
	}
	defer clear(pin)
	candidates := make([]crypto.PublicKey, 0, len(certs))
	for _, c := range certs {
		candidates = append(candidates, c.PublicKey)
	}
	return hsm.Open(ctx, hsm.Options{Module: p.Module, Token: p.Token, Serial: p.Serial, Label: p.Key, ID: id,
		PIN: pin, Sessions: p.Sessions, Wait: p.Wait}, candidates)
}

func (p PKCS11) pin() (pin []byte, err error) {
	switch {
	case p.PINFile != "" && p.PINCredential != "":
		return nil, errors.New("the PIN is to come from a file and from a credential; name one")
	case p.PINFile != "":
		pin, err = ReadSecret(p.PINFile, "PIN")
	case p.PINCredential != "":
		pin, err = readCredential(p.PINCredential, "PIN")
	default:
		return nil, errors.New("no file or credential with the PIN is named")
	}
	if err == nil && len(pin) == 0 {
		err = errEmptyPIN
	}
	return pin, err
}
