package stage

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// LDIF returns the directory of both providers as it is before the signature;
// RFC 6109, 4.5. After New, for the stage that New returned.
func (s *Stage) LDIF() []byte {
	var b bytes.Buffer
	b.WriteString("version: 1\n\n")
	b.WriteString("dn: o=postacert\nobjectClass: top\nobjectClass: organization\nobjectClass: LDIFLocationURLObject\n")
	b.WriteString("o: postacert\nLDIFLocationURL: https://directory.example/igpec.ldif.p7m\ndescription: Directory of the demo's providers\n")
	for _, p := range s.Providers() {
		b.WriteString("\n")
		b.Write(record(p.Name, p.Domain, p.Service[0].Address, certificateDER(p.Certificate)))
	}
	return b.Bytes()
}

// record is one provider's record; RFC 6109, 4.5.9.
func record(name, domain, mailReceipt string, certificate []byte) []byte {
	var b bytes.Buffer
	hash := sha1.Sum(certificate)
	fold(&b, "dn: providerName="+name+",o=postacert")
	b.WriteString("objectClass: top\nobjectClass: provider\n")
	fold(&b, "providerName: "+name)
	fold(&b, "providerCertificateHash: "+hex.EncodeToString(hash[:]))
	fold(&b, "providerCertificate;binary:: "+base64.StdEncoding.EncodeToString(certificate))
	fold(&b, "mailReceipt: "+mailReceipt)
	fold(&b, "managedDomains: "+domain)
	return b.Bytes()
}

// fold writes one LDIF line, continued after 76 columns (RFC 2849, note 2).
func fold(b *bytes.Buffer, line string) {
	for len(line) > 76 {
		b.WriteString(line[:76] + "\n")
		line = " " + line[76:]
	}
	b.WriteString(line + "\n")
}

// certificateDER reads the first certificate of a PEM file; nil if there is none.
func certificateDER(file string) []byte {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil
	}
	return block.Bytes
}

// SignDirectory signs an LDIF with the directory's key and puts it in the place
// of the directory of all providers, at once. pecd reads it at its next start
// or SIGHUP.
func (s *Stage) SignDirectory(ctx context.Context, ldif []byte) error {
	ca := filepath.Join(s.Root, "ca")
	return SignLDIF(ctx, ldif, s.Directory, filepath.Join(ca, "directory.pem"), filepath.Join(ca, "directory-key.pem"))
}

// SignLDIF writes ldif to file as RFC 6109, 4.5 wants it: DER CMS SignedData
// that holds the content.
func SignLDIF(ctx context.Context, ldif []byte, file, certificate, key string) error {
	cmd := exec.CommandContext(ctx, "openssl", "cms", "-sign", "-binary", "-nodetach", "-md", "sha256",
		"-signer", certificate, "-inkey", key, "-outform", "DER", "-out", file+".new")
	cmd.Stdin = bytes.NewReader(ldif)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("openssl cms -sign: %w: %s", err, bytes.TrimSpace(out))
	}
	return os.Rename(file+".new", file)
}

// ErrNoKeys says that the stage was opened, not made, by this process.
var ErrNoKeys = errors.New("stage: the authorities' keys are only known to the process that made the stage")

// Authority returns the CA of the providers' certificates.
func (s *Stage) Authority() (Authority, error) {
	if s.keys == nil {
		return Authority{}, ErrNoKeys
	}
	return s.keys.pec, nil
}
