package signer

import (
	"errors"
	"math/big"
)

// Limits on what a PKCS #12 file may ask for. OpenSSL writes 2048 rounds, other
// programs up to a million.
const (
	maxRounds   = 2_000_000
	maxNested   = 4 // values inside OCTET STRINGs inside OCTET STRINGs
	maxKeyBytes = 128
)

var errRounds = errors.New("it asks for more rounds of key derivation than are ever needed; make it again with openssl pkcs12 -export")

// checkRounds looks for counts of rounds that would keep the process busy for
// hours. They follow the salt: an INTEGER behind an OCTET STRING (RFC 7292, 4;
// RFC 8018, A). One behind such a count is the length of a key.
func checkRounds(der []byte, nested int) error {
	elements, err := scanBER(der)
	if err != nil {
		return nil //nolint:nilerr // an OCTET STRING that holds something else
	}
	last := make(map[int32]*element)
	counts := make(map[*element]bool)
	for i := range elements {
		e := &elements[i]
		before := last[e.parent]
		last[e.parent] = e
		switch {
		case e.tag[0] == tagOctetString && nested < maxNested:
			if err := checkRounds(e.content, nested+1); err != nil {
				return err
			}
		case e.tag[0] != tagInteger || before == nil:
		case before.tag[0] == tagOctetString:
			counts[e] = true
			if new(big.Int).SetBytes(e.content).Cmp(big.NewInt(maxRounds)) > 0 {
				return errRounds
			}
		case counts[before] && new(big.Int).SetBytes(e.content).Cmp(big.NewInt(maxKeyBytes)) > 0:
			return errRounds
		}
	}
	return nil
}
