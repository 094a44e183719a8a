package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"pecd/packaging/demo/stage"
)

// dkimSocket is the name of opendkim's socket in the provider's folder of sockets.
const dkimSocket = "dkim.sock"

// startDKIM starts an opendkim that signs with RSA-2048 what the provider's users
// submit, and returns when it answers.
func startDKIM(ctx context.Context, p *stage.Provider, name string) (*exec.Cmd, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	keyFile, conf, socket := filepath.Join(p.Dir, "dkim.pem"), filepath.Join(p.Dir, "opendkim.conf"), filepath.Join(p.Dir, "sock", name)
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(keyFile, text, 0o600); err != nil {
		return nil, err
	}
	err = os.WriteFile(conf, fmt.Appendf(nil, "Domain %s\nSelector bench\nKeyFile %s\nSocket local:%s\nMode s\nCanonicalization relaxed/simple\n"+
		"SignatureAlgorithm rsa-sha256\nSyslog no\nUMask 000\nRequireSafeKeys no\nBackground no\n", p.Domain, keyFile, socket), 0o644)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("opendkim", "-f", "-x", conf)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w; packaging/prerequisites bench installs it", err)
	}
	for range 500 {
		c, err := net.Dial("unix", socket)
		if err == nil {
			return cmd, c.Close()
		}
		if !pause(ctx, 20*time.Millisecond) {
			break
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return nil, fmt.Errorf("opendkim does not answer on %s", socket)
}
