package reception

import (
	"errors"

	"pecd/signer"
)

// anomalies are the concise Italian descriptions that an anomaly envelope gives
// (RFC 6109, 3.2.2); docs/rules.md, AN1. The first that fits counts.
var anomalies = []struct {
	word string
	why  error
	text string
}{
	{"no-signature", signer.ErrNoSignature, "il messaggio è di posta ordinaria: manca la firma di un gestore di posta certificata"},
	{"malformed-signature", signer.ErrMalformedSignature, "la firma del messaggio non è leggibile"},
	{"altered", signer.ErrAltered, "il contenuto del messaggio è stato alterato dopo la firma"},
	{"bad-signature", signer.ErrSignature, "la firma del messaggio non è autentica"},
	{"weak", signer.ErrWeak, "la firma del messaggio usa un algoritmo o una chiave non più ammessi"},
	{"expired", signer.ErrExpired, "il certificato del firmatario non è valido alla data di ricezione"},
	{"revoked", signer.ErrRevoked, "il certificato del firmatario è stato revocato"},
	{"untrusted", signer.ErrUntrusted, "il certificato del firmatario non è stato emesso da un'autorità riconosciuta"},
	{"unknown-certificate", ErrUnknownCertificate, "il certificato del firmatario non appartiene a un gestore di posta certificata"},
	{"foreign-domain", ErrForeignDomain, "il gestore che ha firmato il messaggio non gestisce il dominio per cui lo ha firmato"},
	{"no-original", ErrNoOriginal, "la firma è valida, ma manca il messaggio originale"},
	{"no-data", ErrNoData, "la firma è valida, ma i dati di certificazione mancano o non sono conformi"},
	{"inconsistent", ErrInconsistent, "la firma è valida, ma l'intestazione non corrisponde ai dati di certificazione"},
	{"not-addressed", ErrNotAddressed, "la busta di trasporto non è indirizzata a questo destinatario"},
	{"bounce", ErrBounce, "avviso di mancato recapito da un sistema di posta ordinaria"},
}

// Word names why in one word, for those who decide outside this process; empty if
// it is nothing for which Anomaly has words.
func Word(why error) string {
	for _, a := range anomalies {
		if errors.Is(why, a.why) {
			return a.word
		}
	}
	return ""
}

// Named is the inverse of Word; nil for a word that is not known.
func Named(word string) error {
	for _, a := range anomalies {
		if a.word == word {
			return a.why
		}
	}
	return nil
}

// ErrNotAddressed and ErrBounce are why a message that verifies, or needs not,
// still reaches a user in an anomaly envelope only.
var (
	ErrNotAddressed = errors.New("the envelope does not name this recipient as certified")
	ErrBounce       = errors.New("a delivery status notification")
)

// Anomaly describes why a message is neither envelope nor receipt, in Italian;
// ok is false if it is not known what it is: then it must be put off, not
// wrapped.
func Anomaly(why error) (text string, ok bool) {
	if errors.Is(why, signer.ErrNotYet) {
		return "", false // perhaps our clock is behind: a doubt, and no anomaly
	}
	for _, a := range anomalies {
		if errors.Is(why, a.why) {
			return a.text, true
		}
	}
	return "", false
}

// known reports whether it is known what a message is that failed because of why.
func known(why error) bool {
	_, ok := Anomaly(why)
	return ok
}

// FromProvider reports whether a message that failed because of why was signed
// by a provider of the directory all the same: such a message must be handed on
// to its recipient (RFC 6109, 2.2.2).
func FromProvider(why error) bool {
	for _, e := range []error{ErrForeignDomain, ErrNoOriginal, ErrNoData, ErrInconsistent, ErrNotAddressed} {
		if errors.Is(why, e) {
			return true
		}
	}
	return false
}
