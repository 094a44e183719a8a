package setup

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"pecd/pec"
	"pecd/pec/directory"
	"pecd/signer"
	"pecd/signer/index"
)

// A Quickstart is what the first configuration of an installation is made from.
type Quickstart struct {
	Domain    string
	Name      string // of the provider
	Dir       string // of pecd.toml, absolute
	Store     string // absolute
	Mailboxes string // socket of the mailbox store
	Sendmail  bool   // the MTA is Sendmail; else Postfix
	// Key, Certificate, Anchors and Directory are files of a real provider. All empty:
	// a test CA and a directory with nobody else are made, of no legal value.
	Key, Certificate, Anchors, Directory string
	Now                                  time.Time
	Rand                                 io.Reader
}

// A NewFile is a file that quickstart writes.
type NewFile struct {
	Path    string
	Mode    fs.FileMode
	Content []byte
}

// testMark stands in every name of a test CA.
const testMark = "TEST - NO LEGAL VALUE"

// testLife is how long test keys are good for.
const testLife = 365 * 24 * time.Hour

var domainForm = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ErrUsage says that what was asked for does not fit together.
var ErrUsage = errors.New("wrong use")

// Files makes all files in memory; nothing is written.
func (q Quickstart) Files(ctx context.Context) ([]NewFile, error) {
	q.Domain = strings.ToLower(q.Domain)
	if !domainForm.MatchString(q.Domain) || len(q.Domain) > 253 {
		return nil, fmt.Errorf("%w: %q is not a domain", ErrUsage, q.Domain)
	}
	if strings.ContainsAny(q.Name, "\"\\\r\n\t") || q.Name == "" {
		return nil, fmt.Errorf("%w: %q cannot be a provider's name", ErrUsage, q.Name)
	}
	real := 0
	for _, f := range []string{q.Key, q.Certificate, q.Anchors, q.Directory} {
		if f != "" {
			real++
		}
	}
	switch real {
	case 4:
		return []NewFile{q.toml()}, nil
	case 0:
		return q.testFiles(ctx)
	}
	return nil, fmt.Errorf("%w: a real provider needs all of --key, --certificate, --anchors and --directory", ErrUsage)
}

// testFiles are the configuration with a test CA.
func (q Quickstart) testFiles(ctx context.Context) ([]NewFile, error) {
	at := func(name string) string { return filepath.Join(q.Dir, name) }
	q.Key, q.Certificate, q.Anchors, q.Directory = at("test-key.pem"), at("test-certificate.pem"), at("test-anchors.pem"), at("test-igpec.ldif.p7m")
	ca, caKey, err := q.certificate(nil, nil, nil)
	if err != nil {
		return nil, err
	}
	leaf, key, err := q.certificate(ca, caKey, []string{"posta-certificata@" + q.Domain})
	if err != nil {
		return nil, err
	}
	id, err := signer.NewIdentity(key, leaf, []*x509.Certificate{ca}, q.Now)
	if err != nil {
		return nil, err
	}
	hash := sha1.Sum(leaf.Raw)
	p7m, err := index.Export(ctx, signer.NewSigner(id), q.Now, directory.Provider{Name: q.Name, Certificates: [][]byte{leaf.Raw},
		Hashes: []string{hex.EncodeToString(hash[:])}, ServiceMailbox: pec.Address("ricevute@" + q.Domain), Domains: []string{q.Domain},
		Description: testMark})
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	caPEM := block("CERTIFICATE", ca.Raw)
	return []NewFile{
		{q.Key, 0o600, block("PRIVATE KEY", der)},
		{q.Certificate, 0o644, append(block("CERTIFICATE", leaf.Raw), caPEM...)},
		{q.Anchors, 0o644, caPEM},
		{q.Directory, 0o644, p7m},
		q.toml(), // last: what names the others
	}, nil
}

// certificate makes a CA, or a provider's certificate by one after RFC 6109, 5.5.
func (q Quickstart) certificate(ca *x509.Certificate, by crypto.Signer, addresses []string) (*x509.Certificate, crypto.Signer, error) {
	key, err := rsa.GenerateKey(q.Rand, 2048)
	if err != nil {
		return nil, nil, err
	}
	serial := make([]byte, 16)
	if _, err := io.ReadFull(q.Rand, serial); err != nil {
		return nil, nil, err
	}
	serial[0] = serial[0]&0x7f | 0x40
	id := sha1.Sum(x509.MarshalPKCS1PublicKey(&key.PublicKey))
	t := &x509.Certificate{SerialNumber: new(big.Int).SetBytes(serial), NotBefore: q.Now.Add(-time.Hour), NotAfter: q.Now.Add(testLife), SubjectKeyId: id[:],
		Subject: pkix.Name{Country: []string{"IT"}, Organization: []string{q.Name}, OrganizationalUnit: []string{testMark}, CommonName: testMark + ": Posta Certificata"}}
	if ca == nil {
		t.Subject.CommonName = testMark + ": CA"
		t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		ca, by = t, key
	} else {
		t.EmailAddresses, t.KeyUsage, t.ExtKeyUsage = addresses, x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}
	}
	der, err := x509.CreateCertificate(q.Rand, t, ca, key.Public(), by)
	if err != nil {
		return nil, nil, err
	}
	c, err := x509.ParseCertificate(der)
	return c, key, err
}

// toml is the configuration file.
func (q Quickstart) toml() NewFile {
	group := "socket_group = \"postfix\"\n"
	if q.Sendmail {
		group = "" // its daemon is root, and there need not be a group of its own
	}
	text := fmt.Sprintf(`# Written by pecd quickstart. All keys: the example pecd.toml of the package.

[provider]
name = %[1]q
domain = %[2]q

[signer]
key = %[3]q
certificate = %[4]q

[trust]
anchors = %[5]q

[directory]
file = %[6]q

[access]
milter = "unix:/run/pecd/access.sock"
%[9]s
[gate]
milter = "unix:/run/pecd/gate.sock"
%[9]s
[reception]
lmtp = "unix:/run/pecd/lmtp.sock"
%[9]s
[delivery]
store = %[7]q

[courier]
mta = "inet:127.0.0.1:10033"

[store]
path = %[8]q
`, q.Name, q.Domain, q.Key, q.Certificate, q.Anchors, q.Directory, q.Mailboxes, q.Store, group)
	return NewFile{q.place(), 0o644, []byte(text)}
}

// place is where the configuration goes: into pecd.toml, or, where a package has put
// one that sets no key, into conf.d beside it. One that sets a key is somebody's
// work, in conf.d too: then it is that file, and WriteNew refuses to replace it.
func (q Quickstart) place() string {
	file := filepath.Join(q.Dir, "pecd.toml")
	sets := func(file string) bool {
		keys := map[string]any{}
		_, err := toml.DecodeFile(file, &keys)
		return err != nil || len(keys) > 0
	}
	parts, err := filepath.Glob(filepath.Join(q.Dir, "conf.d", "*.toml"))
	if err == nil {
		if i := slices.IndexFunc(parts, sets); i >= 0 {
			return parts[i]
		}
	}
	if sets(file) {
		return file
	}
	return filepath.Join(q.Dir, "conf.d", "50-quickstart.toml")
}

// CheckNew says whether one of the files is there already (ErrExists).
func CheckNew(files []NewFile) error {
	for i, f := range files {
		if _, err := os.Lstat(f.Path); err == nil {
			last := files[len(files)-1].Path // what names the others is written last
			if _, err := os.Lstat(last); i < len(files)-1 && errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s %w, and %s does not: if pecd quickstart was interrupted, remove the files test-* in %s", f.Path, ErrExists, last, filepath.Dir(f.Path))
			}
			return fmt.Errorf("%s %w", f.Path, ErrExists)
		}
	}
	return nil
}

// WriteNew writes all files or none: each is complete before any gets its name, and
// none replaces a file that is there (ErrExists). uid and gid are of who owns them;
// -1 leaves that.
func WriteNew(files []NewFile, uid, gid int) (err error) {
	var made []string
	defer func() {
		for _, f := range made {
			if err != nil {
				err = errors.Join(err, os.Remove(f))
			}
		}
	}()
	if err := CheckNew(files); err != nil {
		return err
	}
	for _, f := range files {
		if err := makeDirs(filepath.Dir(f.Path), &made); err != nil {
			return err
		}
	}
	var parts []string
	defer func() {
		for _, p := range parts {
			err = errors.Join(err, os.Remove(p))
		}
	}()
	for _, f := range files {
		part, err := writePart(f, uid, gid)
		if part != "" {
			parts = append(parts, part)
		}
		if err != nil {
			return err
		}
	}
	for i, f := range files {
		// Not Rename: that would replace what somebody has put there meanwhile.
		if err := os.Link(parts[i], f.Path); err != nil {
			return err
		}
		made = append([]string{f.Path}, made...)
	}
	return nil
}

// makeDirs makes a directory and those above it, and notes which it made, the lowest
// first.
func makeDirs(dir string, made *[]string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := makeDirs(filepath.Dir(dir), made); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	*made = append([]string{dir}, *made...)
	return nil
}

// writePart writes a file under another name beside its own.
func writePart(f NewFile, uid, gid int) (string, error) {
	t, err := os.CreateTemp(filepath.Dir(f.Path), ".pecd-*")
	if err != nil {
		return "", err
	}
	_, err = t.Write(f.Content)
	err = errors.Join(err, t.Chmod(f.Mode), t.Sync())
	if uid >= 0 {
		err = errors.Join(err, t.Chown(uid, gid))
	}
	return t.Name(), errors.Join(err, t.Close())
}

// mailboxSockets are where Dovecot's LMTP usually listens.
var mailboxSockets = []string{"/run/dovecot/lmtp", "/var/run/dovecot/lmtp", "/var/spool/postfix/private/dovecot-lmtp"}

// FindMailboxes finds the mailbox store's LMTP socket. found is false if there is
// none; then the address is the usual one.
func FindMailboxes(ctx context.Context) (addr string, found bool) {
	for _, path := range mailboxSockets {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
		if err == nil {
			_ = c.Close()
			return "unix:" + path, true
		}
	}
	return "unix:" + mailboxSockets[0], false
}
