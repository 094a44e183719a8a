// Package seal turns the register into evidence that others can check. Each day
// of legal time is exported as text and as records with their chain, and a
// manifest of both is signed by the provider and time-stamped: DPR 68/2005,
// art. 10 (docs/rules.md, L2). Between two seals the head of the chain goes out to
// witnesses. What was exported is verified from the files alone, offline, and a
// month of it is packed for a preservation system (docs/rules.md, L3).
//
// It seals nothing that does not follow from the seal before: a register whose
// chain does not compute, or that has lost entries, is not sealed. It publishes a
// day whole or not at all, and only after it has verified it as a stranger would.
// docs/evidence.md is about the files.
package seal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"pecd/logstore"
	"pecd/signer/timestamp"
)

// Why nothing was sealed or packed. Errors wrap one of them, or
// timestamp.ErrUnavailable, or that of the register.
var (
	// ErrBroken says that the register is not what was sealed, or does not follow
	// from it.
	ErrBroken = errors.New("seal: the register does not follow from the last seal")
	// ErrRecord says that an entry cannot be exported.
	ErrRecord = errors.New("seal: an entry that cannot be exported")
	// ErrBusy says that somebody else is sealing.
	ErrBusy = errors.New("seal: another process is sealing")
	// ErrUnsound says that what is there does not verify.
	ErrUnsound = errors.New("seal: what is sealed does not verify")
	// ErrIncomplete says that days of a month are missing.
	ErrIncomplete = errors.New("seal: not all days of the month are sealed")
)

// A Register is what is sealed. logstore.SQLite and logstore.Reader are
// registers.
type Register interface {
	Head(ctx context.Context) (logstore.Link, error)
	Chain(ctx context.Context, from int64, f func(logstore.Link) error) error
	Span(ctx context.Context, since, until time.Time) (logstore.Span, error)
}

// A Signer signs manifests with the provider's key.
type Signer interface {
	// SignSeal returns the SignedData in DER that holds manifest and the signature at
	// the instant at.
	SignSeal(ctx context.Context, manifest []byte, at time.Time) ([]byte, error)
}

// A Stamper gets time stamps; timestamp.Client is one.
type Stamper interface {
	Stamp(ctx context.Context, digest [sha256.Size]byte) (*timestamp.Token, error)
}

// Formats of the files. A change of one gets a new name.
const (
	FormatSeal    = "pecd-seal-1"
	FormatRecords = "pecd-records-1"
	FormatText    = "pecd-text-1"
)

// Names of the files of a day, after the day itself.
const (
	nameText     = ".log"
	nameRecords  = ".jsonl"
	nameManifest = ".json"
	nameSeal     = ".json.p7m"
	nameToken    = ".json.p7m.tst"
)

// Limits on files that are read, in octets.
const (
	maxManifest = 64 << 10
	maxSeal     = 1 << 20
	maxLine     = 16 << 20 // a line of records; an entry has some hundred octets per recipient
)

// A Manifest is what is signed: which entries the day has, where they stand in the
// chain, and the digests of the two files that hold them.
type Manifest struct {
	Format   string `json:"format"`      // FormatSeal
	Text     string `json:"text_format"` // FormatText
	Provider string `json:"provider"`
	Day      Day    `json:"day"`
	Zone     string `json:"zone"` // name of legal time, e.g. Europe/Rome
	// Since and Until are the instants at which the day begins and the next one does.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Sealed is the provider's clock at the signature, SealedUnix the same in seconds
	// since 1970, as OpenSSL wants it.
	Sealed     time.Time `json:"sealed"`
	SealedUnix int64     `json:"sealed_unix"`
	// First and Last are numbers of entries; of an empty day First is the next that
	// will be given, and Last the one before it.
	First   int64 `json:"first"`
	Last    int64 `json:"last"`
	Entries int64 `json:"entries"`
	// ChainBefore is the chain of the entry before First, ChainAfter that of Last.
	ChainBefore   logstore.Digest `json:"chain_before"`
	ChainAfter    logstore.Digest `json:"chain_after"`
	TextSHA256    logstore.Digest `json:"text_sha256"`
	RecordsSHA256 logstore.Digest `json:"records_sha256"`
	// PreviousSHA256 is the digest of the signed manifest of the day before; zero for
	// the first day.
	PreviousSHA256 logstore.Digest `json:"previous_sha256"`
}

func (m Manifest) marshal() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(m); err != nil {
		return nil, fmt.Errorf("seal: manifest: %w", err)
	}
	return b.Bytes(), nil
}

// readManifest reads what marshal wrote and nothing else, so that whoever reads
// it by other means, line by line, reads the same.
func readManifest(data []byte) (m Manifest, err error) {
	if len(data) > maxManifest {
		return m, fmt.Errorf("it has more than %d octets", maxManifest)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("it cannot be read: %w", err)
	}
	if m.Format != FormatSeal || m.Text != FormatText {
		return m, fmt.Errorf("its format is %.40q with %.40q, which this program does not know", m.Format, m.Text)
	}
	if again, err := m.marshal(); err != nil || !bytes.Equal(again, data) {
		return m, errors.New("it is not written as manifests are")
	}
	return m, m.check()
}

func (m Manifest) check() error {
	switch {
	case m.First < 1 || m.Entries < 0 || m.Last-m.First != m.Entries-1:
		return fmt.Errorf("it has %d entries from %d to %d", m.Entries, m.First, m.Last)
	case m.Entries == 0 && m.ChainBefore != m.ChainAfter:
		return errors.New("it has no entries and another chain after it than before")
	case m.SealedUnix != m.Sealed.Unix() || m.Sealed.Before(m.Until):
		return errors.New("it was sealed before the day was over")
	case !m.Since.Before(m.Until) || m.Until.Sub(m.Since) > 26*time.Hour:
		return errors.New("its day is no day")
	case m.Since.Format(time.DateOnly) != m.Day.String() || m.Until.Format(time.DateOnly) != m.Day.Next().String():
		return errors.New("its day is not that of its times")
	}
	return nil
}

// header returns the first line of the file of records.
func (m Manifest) header() ([]byte, error) {
	line, err := json.Marshal(struct {
		Format      string          `json:"format"`
		Provider    string          `json:"provider"`
		Day         Day             `json:"day"`
		Zone        string          `json:"zone"`
		First       int64           `json:"first"`
		Last        int64           `json:"last"`
		Entries     int64           `json:"entries"`
		ChainBefore logstore.Digest `json:"chain_before"`
	}{FormatRecords, m.Provider, m.Day, m.Zone, m.First, m.Last, m.Entries, m.ChainBefore})
	return append(line, '\n'), err
}
