package milter_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"
)

// sendmailRoot is where packaging/prerequisites unpacks Debian's Sendmail.
const sendmailRoot = "/var/cache/pecd-demo/sendmail"

// A sendmail is a private instance. One of its listeners calls us at a unix socket, the
// other at a port.
type sendmail struct {
	dir        string
	milter     string // the address at which the first calls us
	milterPort string // and the second: host:port
	submission string // host:port
	overPort   string // host:port
	process    *exec.Cmd
}

//go:embed testdata/sendmail.mc
var sendmailMC string

const saslConf = "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN\nsasldb_path: %s/sasldb2\n"

func startSendmail(t *testing.T) *sendmail {
	t.Helper()
	// Not t.TempDir: Sendmail refuses sockets below a folder that all may write to.
	dir, err := os.MkdirTemp("/run", "sm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	port := func(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
	s := &sendmail{dir: dir, milter: "unix:" + dir + "/milter", milterPort: freePort(t), submission: freePort(t), overPort: freePort(t)}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chmod(dir, 0o755))
	must(os.Mkdir(dir+"/queue", 0o700))
	must(os.WriteFile(dir+"/service.switch", []byte("hosts\tfiles\naliases\tfiles\n"), 0o644))
	must(os.WriteFile(dir+"/Sendmail.conf", fmt.Appendf(nil, saslConf, dir), 0o644))
	var mc bytes.Buffer
	must(template.Must(template.New("sendmail.mc").Parse(sendmailMC)).Execute(&mc, map[string]string{"CF": sendmailRoot + "/usr/share/sendmail/cf",
		"Dir": dir, "MilterPort": port(s.milterPort), "Submission": port(s.submission), "OverPort": port(s.overPort)}))
	must(os.WriteFile(dir+"/sendmail.mc", mc.Bytes(), 0o644))
	writeCertificate(t, dir)
	cf, err := run(dir, nil, "m4", dir+"/sendmail.mc")
	must(err)
	must(os.WriteFile(dir+"/sendmail.cf", cf, 0o644))
	_, err = run(dir, []byte("secret"), "saslpasswd2", "-f", dir+"/sasldb2", "-p", "-c", "-u", "alfa.example", "alice")
	must(err)
	// On a host of its own: it waits a minute for one whose name has a dot.
	s.process = exec.Command("unshare", "--uts", "sh", "-c", `hostname mx.alfa.example; exec "$@"`, "sh",
		sendmailRoot+"/usr/libexec/sendmail/sendmail", "-C", dir+"/sendmail.cf", "-bD")
	out, err := os.Create(dir + "/output")
	must(err)
	defer out.Close()
	s.process.Stdout, s.process.Stderr = out, out
	if err := s.process.Start(); err != nil {
		t.Fatalf("%v; packaging/prerequisites sendmail unpacks Sendmail", err)
	}
	t.Cleanup(func() { s.stop(t) })
	for _, addr := range []string{s.submission, s.overPort} {
		s.await(t, addr)
	}
	return s
}

// run runs a program that should succeed and returns what it wrote.
func run(dir string, input []byte, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(input)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", name, err, errs.Bytes())
	}
	return out, nil
}

// await waits until Sendmail listens.
func (s *sendmail) await(t *testing.T, addr string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) || s.process.ProcessState != nil {
			t.Fatalf("Sendmail does not listen: %v\n%s", err, s.output())
		}
	}
}

func (s *sendmail) stop(t *testing.T) {
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("Sendmail is to end: %v", err)
	}
	if err := s.process.Wait(); err != nil {
		t.Errorf("Sendmail ended with %v", err)
	}
	if t.Failed() {
		t.Logf("Sendmail said:\n%s", s.output())
	}
}

func (s *sendmail) output() string {
	b, err := os.ReadFile(s.dir + "/output")
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// writeCertificate writes cert.pem and key.pem, for STARTTLS.
func writeCertificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mx.alfa.example"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// auth logs in as Sendmail's users do.
func (s *smtpClient) auth(user string) {
	s.t.Helper()
	s.cmd("EHLO laptop", "250")
	s.cmd("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00secret")), "235")
}

// startTLS changes to TLS.
func (s *smtpClient) startTLS() {
	s.t.Helper()
	s.cmd("STARTTLS", "220")
	c := tls.Client(s.c, &tls.Config{InsecureSkipVerify: true}) // it is our own, of a minute ago
	if err := c.Handshake(); err != nil {
		s.t.Fatal(err)
	}
	s.c, s.r = c, bufio.NewReader(c)
}

const alice = "alice@alfa.example"
