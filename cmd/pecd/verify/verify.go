// Package verify is the work of pecd verify: it judges certified mail that
// somebody saved, one message or a mailbox of many gigabytes, with nothing but
// files: no installation and no network. It says of each message what it is, who
// signed it and whether that holds, and of all messages with one identifier what
// they prove together and what is missing.
//
// It refuses to call valid what it could not check: without anchors no message
// is. What is damaged or hostile is a verdict, never a crash, and the next
// message is judged all the same. The rules are those of the reception point
// (RFC 6109, 2.2.2); the instant of judgement is the one that a message
// certifies (RFC 6109, 4.1) unless the user names another.
package verify

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"pecd/pec/directory"
	"pecd/signer"
)

// Options are what messages are judged by.
type Options struct {
	CA        string   // PEM file of the authorities; "" leaves the chain unchecked, and then nothing is valid
	Directory string   // signed LDIF of the providers; "" leaves them unchecked
	CRLs      []string // files of revocation lists, PEM or DER
	At        string   // instant of judgement; "": the one that each message certifies
	JSON      bool     // an object a line in place of text
	Cases     bool     // with JSON: also an object for each identifier, after the messages
	// CertifiedOnly passes over ordinary mail: what has neither a header of
	// certified mail nor certification data.
	CertifiedOnly bool
}

// Streams are what a run reads and writes. Progress, if not nil, is a terminal.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Progress io.Writer
	Clock    func() time.Time
}

// ErrUsage is wrapped by errors about options that make no sense.
var ErrUsage = errors.New("verify: wrong use")

// errVisit ends a walk: the verdict could not be written.
var errVisit = errors.New("verify: output")

// Run judges all messages of paths, and reports whether every one holds and none
// contradicts another. What is named and cannot be read goes to Err, and the
// rest is judged. An error says that the work could not be done.
func Run(ctx context.Context, o Options, paths []string, s Streams) (held bool, err error) {
	j, err := newJudge(o, s.Clock())
	if err != nil {
		return false, err
	}
	r := &run{o: o, judge: j, cases: newCases(), held: true, text: new(spool), progress: newProgress(s.Progress, s.Clock, paths)}
	defer r.text.Close()
	r.out = bufio.NewWriter(s.Out)
	w := walker{in: s.In, visit: func(it item) error { return r.visit(ctx, it) }}
	for _, path := range paths {
		err := w.walk(ctx, path)
		if errors.Is(err, errNamed) {
			r.held = false
			r.progress.clear()
			if _, err = fmt.Fprintln(s.Err, "pecd:", plain(err.Error())); err == nil {
				continue
			}
		}
		if err != nil {
			r.progress.clear()
			return false, err
		}
	}
	r.progress.clear()
	r.skipped = w.skipped
	if err := r.finish(); err != nil {
		return false, err
	}
	return r.held, r.out.Flush()
}

// A run is the work in hand.
type run struct {
	o        Options
	judge    *judge
	cases    *cases
	progress *progress
	out      *bufio.Writer
	text     *spool // the verdicts for people, which come after the summary

	held    bool
	good    int // messages that hold
	bad     int
	passed  int // ordinary messages that were passed over
	skipped int
}

func (r *run) visit(ctx context.Context, it item) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v, p := r.judge.item(ctx, it)
	r.progress.message(it)
	if r.o.CertifiedOnly && v.ordinary {
		r.passed++
		return nil
	}
	if v.Valid {
		r.good++
	} else {
		r.bad++
		r.held = false
	}
	r.cases.add(p)
	var err error
	if r.o.JSON {
		err = json.NewEncoder(r.out).Encode(v)
	} else {
		_, err = io.WriteString(r.text, v.String())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errVisit, err)
	}
	return nil
}

// finish writes what is known only after the last message.
func (r *run) finish() error {
	all := r.cases.judge()
	for _, c := range all {
		r.held = r.held && len(c.Contradictions) == 0
	}
	if r.o.JSON {
		for _, c := range all {
			if !r.o.Cases {
				break
			}
			if err := json.NewEncoder(r.out).Encode(map[string]*Case{"case": c}); err != nil {
				return err
			}
		}
		return nil
	}
	if r.good+r.bad+r.passed != 1 || r.skipped > 0 {
		if _, err := r.out.WriteString(r.summary(all)); err != nil {
			return err
		}
	}
	_, err := io.Copy(r.out, io.NewSectionReader(r.text, 0, r.text.Size()))
	return err
}

// newJudge reads the files of o.
func newJudge(o Options, now time.Time) (*judge, error) {
	j := &judge{}
	var err error
	if j.location, err = time.LoadLocation("Europe/Rome"); err != nil {
		return nil, err
	}
	if o.At != "" {
		if j.at, err = instant(o.At, j.location); err != nil {
			return nil, err
		}
		now = j.at
	}
	var anchors *x509.CertPool
	if o.CA != "" {
		if anchors, _, err = signer.LoadAnchors(o.CA); err != nil {
			return nil, err
		}
		j.anchors = true
	}
	if j.lists, err = loadLists(o.CRLs); err != nil {
		return nil, err
	}
	if len(o.CRLs) > 0 && !j.anchors {
		return nil, fmt.Errorf("%w: a revocation list needs the CAs that vouch for it: name them with --ca", ErrUsage)
	}
	j.signatures = signer.NewVerifier(anchors).WithRevoker(j.lists)
	if o.Directory != "" {
		if j.directory, err = readDirectory(o.Directory, anchors, now); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// instant reads what --at says: with a zone, or in the legal time of Italy.
func instant(s string, loc *time.Location) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, loc); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: --at %q is no instant; write 2026-11-22T10:45:37+01:00 or, in Italian time, 2026-11-22 10:45:37", ErrUsage, s)
}

// maxDirectory bounds the signed directory, in octets.
const maxDirectory = directory.MaxSize

// readDirectory reads a signed directory, whose signature must hold at the
// instant at.
func readDirectory(file string, anchors *x509.CertPool, at time.Time) (*directory.Directory, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var data bytes.Buffer
	if n, err := data.ReadFrom(io.LimitReader(f, maxDirectory+1)); err != nil {
		return nil, err
	} else if n > maxDirectory {
		return nil, fmt.Errorf("%s: more than the %d octets that a directory may have", file, maxDirectory)
	}
	ldif, _, err := signer.OpenSignedData(data.Bytes(), anchors, at)
	if err != nil {
		return nil, fmt.Errorf("%s: the signature of the directory does not hold: %w", file, err)
	}
	d, err := directory.Parse(ldif)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return d, nil
}
