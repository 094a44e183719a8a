package signer_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/signer"
)

// The messages of testdata/vectors, with OpenSSL's verdict beside ours. They are
// made by
//
//	go test ./signer -run TestVectors -generate
//
// with the keys there, which are for tests and no secret. The table of
// testdata/vectors/README.md is written from this one.
var generate = flag.Bool("generate", false, "make the messages of testdata/vectors anew")

const vectorDir = "testdata/vectors"

// vectorTime is when the messages are signed and, unless a vector says otherwise,
// judged.
var vectorTime = time.Date(2026, 9, 19, 12, 0, 0, 0, time.UTC)

type vector struct {
	name    string
	what    string
	make    func(*vectorMaker) []byte // the message
	crl     bool                      // judged with crl.pem
	live    bool                      // too large to be kept: made at each test
	openssl string                    // "ok", or what it says
	want    error                     // ours
	why     string                    // of a difference
}

const (
	whyOneSigner = "a message of a provider has one signer: of two nobody could say which is the provider"
	whyStrict    = "what does not belong there is refused"
)

var vectors = []vector{
	{name: "rsa-sha256", what: "RSA, SHA-256, DER, detached", make: byOpenSSL("alfa", "-md", "sha256"), openssl: "ok"},
	{name: "rsa-sha1", what: "SHA-1", make: byOpenSSL("alfa", "-md", "sha1"), openssl: "ok"},
	{name: "rsa-sha384", what: "SHA-384", make: byOpenSSL("alfa", "-md", "sha384"), openssl: "ok"},
	{name: "rsa-sha512", what: "SHA-512", make: byOpenSSL("alfa", "-md", "sha512"), openssl: "ok"},
	{name: "rsa-md5", what: "MD5", make: byOpenSSL("alfa", "-md", "md5"), openssl: "ok", want: signer.ErrWeak,
		why: "collisions of MD5 can be made at will"},
	{name: "rsa-sha224", what: "SHA-224", make: byOpenSSL("alfa", "-md", "sha224"), openssl: "ok", want: signer.ErrMalformedSignature,
		why: "an algorithm that no provider uses is not supported"},
	{name: "rsa-1024", what: "RSA key of 1024 bits", make: byOpenSSL("short"), openssl: "ok", want: signer.ErrWeak,
		why: "keys of less than 2048 bits can be broken"},
	{name: "rsa-4096", what: "RSA key of 4096 bits", make: byOpenSSL("long"), openssl: "ok"},
	{name: "pss-sha256", what: "RSASSA-PSS", make: byOpenSSL("alfa", "-keyopt", "rsa_padding_mode:pss"), openssl: "ok"},
	{name: "pss-sha1", what: "RSASSA-PSS, parameters left out: SHA-1", make: byOpenSSL("alfa", "-md", "sha1", "-keyopt", "rsa_padding_mode:pss"), openssl: "ok"},
	{name: "pss-sha512", what: "RSASSA-PSS, SHA-512", make: byOpenSSL("alfa", "-md", "sha512", "-keyopt", "rsa_padding_mode:pss"), openssl: "ok"},
	{name: "pss-salt", what: "RSASSA-PSS, salt of 8 octets", make: byOpenSSL("alfa", "-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:8"), openssl: "ok"},
	{name: "pss-mixed", what: "RSASSA-PSS, mask by another digest", make: byOpenSSL("alfa", "-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_mgf1_md:sha1"),
		openssl: "ok", want: signer.ErrMalformedSignature, why: "nobody mixes digests; crypto/rsa does not take it"},
	{name: "ecdsa-sha256", what: "ECDSA on P-256", make: byOpenSSL("curve"), openssl: "ok"},
	{name: "ecdsa-sha1", what: "ECDSA, SHA-1", make: byOpenSSL("curve", "-md", "sha1"), openssl: "ok"},
	{name: "ecdsa-sha512", what: "ECDSA, SHA-512", make: byOpenSSL("curve", "-md", "sha512"), openssl: "ok"},
	{name: "ecdsa-p384", what: "ECDSA on P-384", make: byOpenSSL("p384"), openssl: "ok"},
	{name: "own", what: "made by pecd", make: byPecd, openssl: "ok"},
	{name: "own-ecdsa", what: "made by pecd with a P-256 key", make: byPecdECDSA, openssl: "ok"},
	{name: "ber", what: "indefinite lengths around certificates and signers", make: inBER(false), openssl: "ok"},
	{name: "ber-everywhere", what: "indefinite lengths and OCTET STRINGs in chunks, in certificates and attributes too", make: inBER(true), openssl: "certificate signature failure",
		why: "certificates and attributes are signed in DER, and in DER they hold"},
	{name: "ber-chunked-opaque", what: "content inside, in chunks", make: opaque("-stream", "-indef"), openssl: "ok", want: signer.ErrNoSignature,
		why: "a message of a provider is multipart/signed (RFC 6109, 2.1)"},
	{name: "opaque", what: "content inside: application/pkcs7-mime", make: opaque(), openssl: "ok", want: signer.ErrNoSignature,
		why: "a message of a provider is multipart/signed (RFC 6109, 2.1)"},
	{name: "two-contents", what: "multipart/signed with a content inside the signature too", make: byOpenSSL("alfa", "-nodetach"),
		openssl: "ok", want: signer.ErrMalformedSignature, why: "which of the two would be shown is anybody's guess"},
	{name: "issuer-too", what: "the issuer's certificate comes along", make: byOpenSSL("alfa", "-certfile", "root"), openssl: "ok"},
	{name: "extra-certificates", what: "certificates that have nothing to do with it come along", make: byOpenSSL("alfa", "-certfile", "strangers"), openssl: "ok"},
	{name: "key-identifier", what: "the signer is named by its key identifier", make: byOpenSSL("alfa", "-keyid"), openssl: "ok"},
	{name: "no-certificate", what: "the signer's certificate does not come along", make: byOpenSSL("alfa", "-nocerts"),
		openssl: "signer certificate not found", want: signer.ErrMalformedSignature},
	{name: "two-signers", what: "two signers, both genuine", make: twoSigners, openssl: "ok", want: signer.ErrMalformedSignature, why: whyOneSigner},
	{name: "two-signers-one-bad", what: "two signers, the signature of one is not genuine", make: damaged(twoSigners, 40),
		openssl: "verification failure", want: signer.ErrMalformedSignature},
	{name: "no-signer", what: "certificates only", make: noSigner, openssl: "no signers", want: signer.ErrMalformedSignature},
	{name: "no-attributes", what: "signature over the content itself", make: byOpenSSL("alfa", "-noattr"), openssl: "ok"},
	{name: "no-attributes-ecdsa", what: "the same by ECDSA", make: byOpenSSL("curve", "-noattr"), openssl: "ok"},
	{name: "no-attributes-altered", what: "the same, one octet of the content changed", make: altered(byOpenSSL("alfa", "-noattr")),
		openssl: "verification failure", want: signer.ErrAltered},
	{name: "no-capabilities", what: "without S/MIME capabilities", make: byOpenSSL("alfa", "-nosmimecap"), openssl: "ok"},
	{name: "no-content-type", what: "attributes without content type", make: crafted("digest"),
		openssl: "attribute error", want: signer.ErrMalformedSignature},
	{name: "no-message-digest", what: "attributes without message digest", make: crafted("type"),
		openssl: "attribute error", want: signer.ErrMalformedSignature},
	{name: "two-digests", what: "message digest stands twice", make: crafted("type", "digest", "digest"),
		openssl: "attribute error", want: signer.ErrMalformedSignature},
	{name: "unsorted", what: "attributes signed as they stand, not in DER order", make: crafted("digest", "type"), openssl: "ok"},
	{name: "unknown-attribute", what: "an attribute that nobody knows", make: crafted("type", "digest", "other"), openssl: "ok"},
	{name: "other-content-type", what: "what is signed is said to be a time stamp", make: byOpenSSL("alfa", "-econtent_type", "id-smime-ct-TSTInfo"),
		openssl: "ok", want: signer.ErrMalformedSignature, why: "S/MIME signs data (RFC 8551, 2.4.1)"},
	{name: "wrong-digest", what: "one octet of the content changed", make: altered(byOpenSSL("alfa")), openssl: "verification failure", want: signer.ErrAltered},
	{name: "wrong-signature", what: "one bit of the signature changed", make: damaged(byOpenSSL("alfa", "-nosmimecap"), 10),
		openssl: "verification failure", want: signer.ErrSignature},
	{name: "saved-with-lf", what: "saved by a tool that writes LF", make: withLF(byOpenSSL("alfa")), openssl: "ok"},
	{name: "micalg-lies", what: "micalg names another algorithm", make: lying, openssl: "ok"},
	{name: "truncated", what: "half of the signature is missing", make: cut(0.5), openssl: "not enough data", want: signer.ErrMalformedSignature},
	{name: "trailing-octets", what: "octets after the CMS structure", make: trailing, openssl: "ok", want: signer.ErrMalformedSignature, why: whyStrict},
	{name: "not-cms", what: "the second part is text", make: notCMS, openssl: "asn1 sig parse error", want: signer.ErrMalformedSignature},
	{name: "enveloped", what: "encrypted, not signed", make: enveloping, openssl: "content type not signed data", want: signer.ErrNoSignature},
	{name: "plain", what: "not signed at all", make: func(*vectorMaker) []byte { return []byte("From: x@alfa.example\r\n" + entityText) },
		openssl: "invalid mime type", want: signer.ErrNoSignature},
	{name: "expired", what: "the certificate had expired", make: byOpenSSL("expired"), openssl: "certificate has expired", want: signer.ErrExpired},
	{name: "early", what: "the certificate was not valid yet", make: byOpenSSL("early"), openssl: "certificate is not yet valid", want: signer.ErrExpired},
	{name: "revoked", what: "the certificate had been revoked", make: byOpenSSL("revoked"), crl: true, openssl: "certificate revoked", want: signer.ErrRevoked},
	{name: "not-revoked", what: "the list has another certificate", make: byOpenSSL("alfa"), crl: true, openssl: "ok"},
	{name: "revoked-later", what: "revoked, but only afterwards", make: byOpenSSL("later"), crl: true, openssl: "certificate revoked",
		why: "what was signed before the revocation stays good; OpenSSL does not look at its date"},
	{name: "web-server", what: "extended key usage serverAuth", make: byOpenSSL("web"), openssl: "unsuitable certificate purpose", want: signer.ErrUntrusted},
	{name: "key-encipherment", what: "key usage without signatures", make: byOpenSSL("cipher"), openssl: "unsuitable certificate purpose", want: signer.ErrUntrusted},
	{name: "non-repudiation", what: "key usage nonRepudiation only", make: byOpenSSL("content"), openssl: "ok", want: signer.ErrUntrusted,
		why: "RFC 6109, 5.5.2 wants digitalSignature"},
	{name: "foreign", what: "an authority that is not trusted", make: byOpenSSL("foreign", "-certfile", "foreign-root"),
		openssl: "self-signed certificate in certificate chain", want: signer.ErrUntrusted},
	{name: "intermediate", what: "an authority between comes along", make: byOpenSSL("sub", "-certfile", "sub-ca"), openssl: "ok"},
	{name: "intermediate-missing", what: "it does not come along", make: byOpenSSL("sub"), openssl: "unable to get local issuer certificate", want: signer.ErrUntrusted},
	{name: "intermediate-usage", what: "the authority may not sign certificates", make: byOpenSSL("mute", "-certfile", "mute-ca"),
		openssl: "certificate", want: signer.ErrUntrusted},
	{name: "intermediate-web", what: "the authority is for web servers only", make: byOpenSSL("webbed", "-certfile", "web-ca"),
		openssl: "unsuitable certificate purpose", want: signer.ErrUntrusted},
	{name: "issuer-no-ca", what: "issued by a provider's certificate", make: byOpenSSL("self-made", "-certfile", "alfa"),
		openssl: "invalid CA certificate", want: signer.ErrUntrusted},
	{name: "mail-constraint", what: "the authority is for addresses at beta.example", make: byOpenSSL("mail-violates", "-certfile", "mail-ca"),
		openssl: "permitted subtree violation", want: signer.ErrUntrusted},
	{name: "mail-constraint-kept", what: "the authority is for addresses at alfa.example", make: byOpenSSL("mail-keeps", "-certfile", "mail-ok-ca"), openssl: "ok"},
	{name: "mail-excluded", what: "the authority is for all addresses but those at alfa.example", make: byOpenSSL("mail-excluded", "-certfile", "mail-not-ca"),
		openssl: "excluded subtree violation", want: signer.ErrUntrusted},
	{name: "name-constraint", what: "the authority is for another organization", make: byOpenSSL("name-violates", "-certfile", "name-ca"),
		openssl: "permitted subtree violation", want: signer.ErrUntrusted},
	{name: "name-constraint-kept", what: "the authority is for this organization; critical", make: byOpenSSL("name-keeps", "-certfile", "name-ok-ca"), openssl: "ok"},
	{name: "critical-extension", what: "the certificate has a critical extension that nobody knows", make: byOpenSSL("critical"),
		openssl: "unhandled critical extension", want: signer.ErrUntrusted},
	{name: "sha1-certificate", what: "the certificate itself is signed by SHA-1", make: byOpenSSL("sha1-cert"), openssl: "ok", want: signer.ErrUntrusted,
		why: "certificates by SHA-1 can be forged; providers' have had SHA-256 for ten years"},
	{name: "nested-60000", what: "60,000 values inside each other", make: nested, live: true, openssl: "", want: signer.ErrMalformedSignature},
	{name: "signature-5mb", what: "a signature of 5 MB", make: bigSignature, live: true, openssl: "ok", want: signer.ErrMalformedSignature,
		why: "a signature has 2 to 8 KB; above 256 KB nothing is read"},
}

// TestVectors holds each message against OpenSSL, now, and against the verdicts
// recorded.
func TestVectors(t *testing.T) {
	if *generate {
		generateVectors(t)
	}
	maker := &vectorMaker{TB: t}
	root, _, err := signer.LoadAnchors(filepath.Join(vectorDir, "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	crl, err := signer.LoadCRL(filepath.Join(vectorDir, "crl.pem"))
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			verifier := signer.NewVerifier(root)
			if v.crl {
				verifier = verifier.WithCRLs([]*x509.RevocationList{crl})
			}
			mail := v.message(t, maker)
			_, err := verifier.Verify(read(t, mail), vectorTime)
			if !errors.Is(err, v.want) {
				t.Errorf("pecd: %v, want %v", err, v.want)
			}
			if got := v.askOpenSSL(t, mail); v.openssl == "ok" && got != "ok" || got == "ok" && v.openssl != "ok" || !strings.Contains(got, v.openssl) {
				t.Errorf("OpenSSL: %s, want %s", got, v.openssl)
			}
			if differ := (v.openssl == "ok") != (v.want == nil); differ != (v.why != "") {
				t.Errorf("the verdicts differ: %t; explained: %q", differ, v.why)
			}
		})
		if !v.live {
			kept++
		}
	}
	if kept < 40 {
		t.Errorf("%d messages are kept", kept)
	}
	readme, err := os.ReadFile(filepath.Join(vectorDir, "README.md"))
	if err != nil || string(readme) != vectorTable() {
		t.Errorf("README.md is not this table (%v); make it anew with -generate", err)
	}
	files, err := filepath.Glob(filepath.Join(vectorDir, "*.eml"))
	if err != nil || len(files) != kept {
		t.Errorf("%d files, %d vectors: %v", len(files), kept, err)
	}
}

func (v vector) file() string { return filepath.Join(vectorDir, v.name+".eml") }

func (v vector) message(t testing.TB, maker *vectorMaker) []byte {
	t.Helper()
	if v.live {
		return v.make(maker)
	}
	mail, err := os.ReadFile(v.file())
	if err != nil {
		t.Fatal(err)
	}
	return mail
}

// askOpenSSL returns "ok" or what it says on stderr.
func (v vector) askOpenSSL(t testing.TB, mail []byte) string {
	t.Helper()
	anchors := filepath.Join(vectorDir, "root.pem")
	if v.crl {
		anchors = filepath.Join(vectorDir, "root-crl.pem")
	}
	args := []string{"cms", "-verify", "-CAfile", anchors, "-attime", fmt.Sprint(vectorTime.Unix()), "-out", os.DevNull}
	if v.crl {
		args = append(args, "-crl_check")
	}
	if _, err := tryOpenSSL(mail, args...); err != nil {
		return err.Error()
	}
	return "ok"
}

// vectorTable returns README.md.
func vectorTable() string {
	var b strings.Builder
	b.WriteString("# Verification vectors\n\nSigned messages, good and bad, with OpenSSL's verdict and pecd's. `TestVectors` asks both each time.\n" +
		"Made by `go test ./signer -run TestVectors -generate` with the keys here, which are for tests and no secret.\n" +
		"The last " + "column says why the verdicts differ. All are judged as of " + vectorTime.Format(time.RFC3339) + ".\n\n" +
		"| message | what it is | OpenSSL | pecd | why they differ |\n|---|---|---|---|---|\n")
	for _, v := range vectors {
		ours := "ok"
		if v.want != nil {
			ours = strings.TrimPrefix(v.want.Error(), "signer: ")
		}
		openssl := v.openssl
		if openssl == "" {
			openssl = "refused"
		}
		name := v.name + ".eml"
		if v.live {
			name = v.name + " (made by the test)"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, v.what, openssl, ours, v.why)
	}
	return b.String()
}

func pemCertificates(t testing.TB, file string) []*x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, c)
	}
	return certs
}

func replaceOnce(t testing.TB, b []byte, old, new string) []byte {
	t.Helper()
	if bytes.Count(b, []byte(old)) != 1 {
		t.Fatalf("%q stands %d times", old, bytes.Count(b, []byte(old)))
	}
	return bytes.Replace(b, []byte(old), []byte(new), 1)
}
