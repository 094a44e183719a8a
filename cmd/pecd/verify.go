package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"pecd/cmd/pecd/verify"
)

// verifyCmd is pecd verify. It needs no installation: anchors and directory are
// files that the user names.
type verifyCmd struct {
	Files         []string `arg:"" name:"file" help:"Messages as saved by a mail client (.eml), mailboxes (mbox files, maildirs) or folders of them; - is standard input."`
	CA            string   `name:"ca" help:"PEM file with the CAs of providers' certificates." placeholder:"FILE"`
	Directory     string   `help:"Signed directory of providers (igpec.ldif.p7m)." placeholder:"FILE"`
	CRL           []string `name:"crl" help:"Revocation list, PEM or DER; may be given more than once. Whether a certificate was revoked must then be known." placeholder:"FILE" sep:"none"`
	At            string   `help:"Judge certificates as of this instant, not as of the one that each message certifies." placeholder:"INSTANT"`
	JSON          bool     `name:"json" help:"One JSON object a line for each message."`
	Cases         bool     `help:"With --json: then one for each identifier, with what its messages prove together."`
	CertifiedOnly bool     `help:"Pass over ordinary mail."`
}

// Run verifies all that is named; the answer is no if one message does not hold.
func (c *verifyCmd) Run(ctx context.Context, std streams) error {
	held, err := verify.Run(ctx, verify.Options{CA: c.CA, Directory: c.Directory, CRLs: c.CRL, At: c.At,
		JSON: c.JSON, Cases: c.Cases, CertifiedOnly: c.CertifiedOnly}, c.Files,
		verify.Streams{In: os.Stdin, Out: std.out, Err: std.err, Progress: terminal(std.err), Clock: time.Now})
	switch {
	case errors.Is(err, verify.ErrUsage):
		return fmt.Errorf("%w: %w", errUsage, err)
	case err != nil:
		return err
	case !held:
		return errNo
	}
	return nil
}

// terminal returns w if it is one, else nil.
func terminal(w io.Writer) io.Writer {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	return f
}
