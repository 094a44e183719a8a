package fetch

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxPEM limits key and certificate files, in octets.
const maxPEM = 1 << 20

// Files returns a function for Options.Certificate that reads the client
// certificate, with its issuers, and its key from PEM files whenever it is
// asked. Only the owner may be able to read the key. Call it once at start to
// hear of what is wrong with the files.
func Files(certFile, keyFile string) func() (*tls.Certificate, error) {
	return func() (*tls.Certificate, error) {
		certs, err := readPEM(certFile, 0)
		if err != nil {
			return nil, fmt.Errorf("fetch: client certificate: %w", err)
		}
		key, err := readPEM(keyFile, 0o077)
		if err != nil {
			return nil, fmt.Errorf("fetch: key of the client certificate: %w", err)
		}
		pair, err := tls.X509KeyPair(certs, key)
		if err != nil {
			return nil, fmt.Errorf("fetch: %s and %s: %w", certFile, keyFile, err)
		}
		return &pair, nil
	}
}

// readPEM reads a small file whose mode has none of the bits forbidden. The
// mode is that of the opened file, so that it cannot be exchanged in between.
func readPEM(file string, forbidden os.FileMode) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&forbidden != 0 {
		return nil, fmt.Errorf("%s: mode %04o lets others at the private key; run: chmod 600 %s", file, mode, file)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxPEM {
		return nil, errors.New(file + ": too large for a PEM file")
	}
	return data, nil
}
