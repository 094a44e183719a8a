package seal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"pecd/logstore"
	"pecd/signer"
	"pecd/signer/timestamp"
)

// A Verifier verifies exported days from their files alone. It does not change
// and may be used concurrently.
type Verifier struct {
	provider *signer.Verifier
	stamps   *timestamp.Verifier
	expect   func(*x509.Certificate, Manifest) error
}

// NewVerifier returns a verifier for signatures that provider takes and time
// stamps that stamps takes.
func NewVerifier(provider *signer.Verifier, stamps *timestamp.Verifier) *Verifier {
	return &Verifier{provider: provider, stamps: stamps, expect: func(*x509.Certificate, Manifest) error { return nil }}
}

// WithSigner returns a verifier that also asks expect whether the certificate is
// that of the provider in the manifest. Without it any certificate will do that the
// anchors vouch for; it is in the result.
func (v *Verifier) WithSigner(expect func(*x509.Certificate, Manifest) error) *Verifier {
	w := *v
	w.expect = expect
	return &w
}

// A Seal is what the small files of a day say, when signature and token hold.
type Seal struct {
	Manifest  Manifest        `json:"manifest"`
	Digest    logstore.Digest `json:"seal_sha256"` // of the signed manifest
	Signer    string          `json:"signer"`      // subject of the provider's certificate
	Stamped   time.Time       `json:"stamped"`     // when the signature existed, by the token
	Authority string          `json:"authority"`   // subject of the time-stamping authority's certificate
}

// Delay is how long after the day's end it was sealed. A seal that was made anew,
// later, shows here: nobody can have a token of an earlier time.
func (s Seal) Delay() time.Duration { return s.Stamped.Sub(s.Manifest.Until) }

// A Problem says what does not hold, and where.
type Problem struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"` // 1 is the first; 0: no particular one
	Seq  int64  `json:"seq,omitempty"`  // the first entry that is concerned; 0: no particular one
	Text string `json:"text"`
}

// Error implements error.
func (p *Problem) Error() string {
	where := p.File
	if p.Line > 0 {
		where += fmt.Sprintf(" line %d", p.Line)
	}
	if p.Seq > 0 {
		where += fmt.Sprintf(" (entry %d)", p.Seq)
	}
	if where == "" {
		return p.Text
	}
	return where + ": " + p.Text
}

// A DayResult says whether a day is sound: its entries are those that were sealed.
type DayResult struct {
	Day     Day      `json:"day"`
	Sound   bool     `json:"sound"`
	Problem *Problem `json:"problem,omitempty"` // the first thing that does not hold
	Seal    *Seal    `json:"seal,omitempty"`    // nil if it does not hold
}

// VerifyDay verifies the files of a day in the folder of that name: token,
// signature, manifest, the chain from each entry to the next, the text line by
// line, and both digests. It streams; its memory does not grow with the day.
func (v *Verifier) VerifyDay(ctx context.Context, files fs.FS, day Day) DayResult {
	r := DayResult{Day: day}
	seal, problem := v.readSeal(ctx, files, day)
	if problem == nil {
		r.Seal = &seal
		problem = verifyEntries(ctx, files, seal.Manifest)
	}
	r.Problem, r.Sound = problem, problem == nil
	return r
}

// name is that of a file of the day, in fs.FS's form.
func (d Day) name(suffix string) string { return d.String() + "/" + d.String() + suffix }

// readSmall reads a file of at most limit octets.
func readSmall(files fs.FS, name string, limit int64) ([]byte, *Problem) {
	f, err := files.Open(name)
	if err != nil {
		return nil, unreadable(name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, unreadable(name, err)
	}
	if int64(len(data)) > limit {
		return nil, &Problem{File: name, Text: fmt.Sprintf("it has more than %d octets", limit)}
	}
	return data, nil
}

func unreadable(name string, err error) *Problem {
	if errors.Is(err, fs.ErrNotExist) {
		return &Problem{File: name, Text: "it is missing"}
	}
	return &Problem{File: name, Text: fmt.Sprintf("it cannot be read: %v", err)}
}

// readSeal verifies the token, the signature at the token's time, and that the
// manifest is what was signed.
func (v *Verifier) readSeal(ctx context.Context, files fs.FS, day Day) (s Seal, problem *Problem) {
	p7m, problem := readSmall(files, day.name(nameSeal), maxSeal)
	if problem != nil {
		return s, problem
	}
	token, problem := readSmall(files, day.name(nameToken), timestamp.MaxToken)
	if problem != nil {
		return s, problem
	}
	s.Digest = sha256.Sum256(p7m)
	stamp, err := v.stamps.Verify(ctx, token, s.Digest)
	if err != nil {
		return s, &Problem{File: day.name(nameToken), Text: err.Error()}
	}
	s.Stamped, s.Authority = stamp.Time, stamp.Authority.Subject.String()
	signed, report, err := v.provider.OpenData(ctx, p7m, stamp.Time)
	if err != nil {
		return s, &Problem{File: day.name(nameSeal), Text: err.Error()}
	}
	s.Signer = report.Signer.Subject.String()
	manifest, problem := readSmall(files, day.name(nameManifest), maxManifest)
	if problem != nil {
		return s, problem
	}
	if !bytes.Equal(manifest, signed) {
		return s, &Problem{File: day.name(nameManifest), Text: "it is not what was signed"}
	}
	if s.Manifest, err = readManifest(signed); err != nil {
		return s, &Problem{File: day.name(nameManifest), Text: err.Error()}
	}
	return s, v.checkSeal(day, s, report.Signer)
}

func (v *Verifier) checkSeal(day Day, s Seal, cert *x509.Certificate) *Problem {
	m := s.Manifest
	if m.Day.Compare(day) != 0 {
		return &Problem{File: day.name(nameManifest), Text: "it is that of " + m.Day.String()}
	}
	if s.Stamped.Before(m.Until) {
		return &Problem{File: day.name(nameToken), Text: "it is from before the day's end"}
	}
	if err := v.expect(cert, m); err != nil {
		return &Problem{File: day.name(nameSeal), Text: err.Error()}
	}
	return nil
}
