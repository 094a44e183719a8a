package signer

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// LoadPKCS12 reads the key, the certificate and its issuers from a PKCS #12 file
// (RFC 7292), and its pass phrase from the first line of passwordFile. Both must
// be readable by their owner alone. Errors wrap ErrIdentity.
func LoadPKCS12(file, passwordFile string, now time.Time) (*Identity, error) {
	f, err := openPrivate(file, "private key")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	defer f.Close()
	password, err := ReadSecret(passwordFile, "pass phrase")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	defer clear(password)
	id, err := readPKCS12(f, string(password), now)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrIdentity, file, err)
	}
	return id, nil
}

func readPKCS12(r io.Reader, password string, now time.Time) (*Identity, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxPEM+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxPEM {
		return nil, fmt.Errorf("larger than %d octets; this is not a PKCS #12 file", maxPEM)
	}
	key, certs, err := decodePKCS12(data, password)
	if err != nil {
		return nil, err
	}
	return identityOf(key, certs, now)
}

// decodePKCS12 takes BER too, which the library does not: some programs write
// the outermost values so. A panic of the library becomes an error.
func decodePKCS12(data []byte, password string) (key crypto.Signer, certs []*x509.Certificate, err error) {
	defer func() {
		if recover() != nil {
			err = errPKCS12
		}
	}()
	der, err := toDER(data)
	if err != nil {
		return nil, nil, fmt.Errorf("this is not a PKCS #12 file: %w", err)
	}
	if err := checkRounds(der, 0); err != nil {
		return nil, nil, err
	}
	private, first, others, err := pkcs12.DecodeChain(der, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword), errors.Is(err, pkcs12.ErrDecryption):
		return nil, nil, errors.New("the pass phrase does not fit; put the right one into the pass phrase's file")
	case err != nil:
		return nil, nil, errPKCS12 // the library's reason may quote the key
	}
	key, ok := private.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("the key in it cannot sign")
	}
	return key, append([]*x509.Certificate{first}, others...), nil
}

var errPKCS12 = errors.New("it cannot be read: it must hold one private key and its certificate; make it again with openssl pkcs12 -export")
