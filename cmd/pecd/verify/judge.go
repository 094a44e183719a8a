package verify

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"pecd/pec"
	"pecd/pec/directory"
	"pecd/pec/message"
	"pecd/points/reception"
	"pecd/signer"
)

// A Verdict on one message. The JSON names are a stable interface.
type Verdict struct {
	File string `json:"file"`
	// Number is the place in a mailbox file, from 1; 0 in a file of its own.
	Number int `json:"number,omitempty"`
	// Valid says that all holds: signature, content, chain, and, where they were
	// given, provider and revocation.
	Valid bool `json:"valid"`
	// Kind is the type of the certification data, "posta-ordinaria" for a message
	// that is none of PEC's, "busta-anomalia" for an anomaly envelope.
	Kind       string          `json:"kind"`
	Identifier pec.Identifier  `json:"identifier,omitempty"`
	MsgID      string          `json:"msgid,omitempty"`
	Instant    *time.Time      `json:"instant,omitempty"`
	Provider   string          `json:"provider,omitempty"`
	Sender     pec.Address     `json:"sender,omitempty"`
	Recipients []pec.Recipient `json:"recipients,omitempty"`
	Subject    string          `json:"subject,omitempty"`
	Receipt    pec.ReceiptType `json:"receipt,omitempty"`
	Recipient  pec.Address     `json:"recipient,omitempty"`
	Taken      []pec.Address   `json:"taken,omitempty"`
	Error      pec.ErrorCode   `json:"error,omitempty"`
	Detail     string          `json:"detail,omitempty"`
	Original   *Original       `json:"original,omitempty"`
	// Duplicate marks a receipt that the provider rendered once more: when, and the
	// Message-ID of the first.
	Duplicate string `json:"duplicate,omitempty"`
	// JudgedAt is the instant as of which certificates and revocation were
	// judged, JudgedBy where it is from: "certified", "signing-time" or "option".
	JudgedAt  *time.Time `json:"judged_at,omitempty"`
	JudgedBy  string     `json:"judged_by,omitempty"`
	Signature *Signature `json:"signature,omitempty"`
	Problems  []string   `json:"problems"`
	// Notes are what a reader should know though it decides nothing.
	Notes []string `json:"notes,omitempty"`

	ordinary bool // no sign of certified mail
}

// Signature is what is known of the signature and its signer.
type Signature struct {
	Genuine bool `json:"genuine"` // made with the key of the signer's certificate
	Intact  bool `json:"intact"`  // the content is what was signed
	// Trusted is nil where no anchors were given.
	Trusted *bool `json:"trusted"`
	// Listed is nil where no directory was given.
	Listed      *bool      `json:"listed"`
	Digest      string     `json:"digest"`
	SigningTime *time.Time `json:"signing_time,omitempty"`
	Signer      string     `json:"signer"`
	Email       string     `json:"email,omitempty"`
	Issuer      string     `json:"issuer"`
	Serial      string     `json:"serial"`
	SHA1        string     `json:"sha1"`
	NotBefore   time.Time  `json:"not_before"`
	NotAfter    time.Time  `json:"not_after"`
	// Chain is the subjects from the signer to the anchor, empty unless all of
	// it holds.
	Chain      []string   `json:"chain,omitempty"`
	Revocation Revocation `json:"revocation"`
}

// Values of Verdict.JudgedBy.
const (
	byCertified   = "certified"    // the instant in the certification data
	bySigningTime = "signing-time" // there are none: the instant that the signer claims
	byOption      = "option"       // --at
)

// A judge holds what all messages are checked against. It belongs to one
// goroutine.
type judge struct {
	signatures *signer.Verifier
	directory  *directory.Directory
	lists      *lists
	anchors    bool
	location   *time.Location
	at         time.Time // zero: as each message says
}

// item judges one message; the proof is what it counts for in a case, nil if
// nothing. A message whose ">From " a mailbox may have made is read as it stands
// and as it was before, and the one that is what was signed counts.
func (j *judge) item(ctx context.Context, it item) (*Verdict, *proof) {
	if it.err != nil {
		v := newVerdict(it)
		v.problem("it cannot be read: %v", it.err)
		return v, nil
	}
	v, p := j.try(ctx, it, it.src)
	if !it.quoted || v.Signature != nil && v.Signature.Intact {
		return v, p
	}
	var s spool
	defer s.Close()
	if err := unquote(&s, io.NewSectionReader(it.src, 0, it.src.Size())); err != nil {
		v.problem("it cannot be read: %v", err)
		v.Valid = false
		return v, p
	}
	if w, q := j.try(ctx, it, &s); w.Signature != nil && w.Signature.Intact {
		w.note(`the mailbox had put ">" before lines that begin with "From "; that was undone`)
		return w, q
	}
	return v, p
}

func newVerdict(it item) *Verdict {
	return &Verdict{File: it.file, Number: it.number, Kind: kindOrdinary, Problems: []string{}}
}

func (j *judge) try(ctx context.Context, it item, src message.Source) (*Verdict, *proof) {
	v := newVerdict(it)
	m, err := message.Read(src)
	if err != nil {
		v.problem("not a message: %v", err)
		return v, nil
	}
	p := j.message(ctx, m, v)
	v.Valid = len(v.Problems) == 0
	if p != nil {
		p.valid = v.Valid
	}
	return v, p
}

// Kinds of messages that carry no certification data.
const (
	kindOrdinary = "posta-ordinaria"
	kindAnomaly  = string(pec.KindAnomaly)
)

// message fills v with what can be said of m.
func (j *judge) message(ctx context.Context, m *message.Message, v *Verdict) *proof {
	ev, original, derr := j.certified(m)
	v.Duplicate = duplicate(m)
	at := j.at
	switch {
	case !at.IsZero():
		v.JudgedBy = byOption
	case derr == nil && v.Duplicate == "":
		at, v.JudgedBy = ev.At, byCertified
	default:
		v.JudgedBy = bySigningTime
	}
	j.lists.begin(m)
	rep, err := j.signatures.VerifyContext(ctx, m, at)
	if rep == nil {
		v.problem("%v", err)
		v.JudgedBy = ""
	} else {
		if at.IsZero() {
			at = rep.SigningTime
		}
		if !at.IsZero() {
			t := at.In(j.location)
			v.JudgedAt = &t
		}
		j.signature(rep, err, v)
	}
	var p *proof
	if derr == nil {
		v.event(ev)
		j.consistent(m, ev, original != nil, v)
		p = newProof(v, ev)
		if rep != nil {
			p.digest = string(rep.ContentDigest)
		}
		if original != nil {
			if err := p.original(original, ev, v); err != nil {
				v.problem("the original message cannot be read: %v", err)
			}
		}
	} else {
		v.Kind = claimed(&m.Header)
		v.ordinary = v.Kind == kindOrdinary && !errors.Is(derr, errDamaged)
		if v.Kind != kindAnomaly {
			v.problem("%v", derr)
		}
	}
	if rep != nil && rep.Signer != nil {
		j.provider(m, rep, err, v)
		j.times(rep, v)
	}
	return p
}

// errDamaged says that there are certification data, but none that can be read.
var errDamaged = errors.New("the certification data cannot be read")

// certified reads the certification data from where the signed part of a signed
// message is. Whether a signature holds for it is another question.
func (j *judge) certified(m *message.Message) (pec.Event, *message.Message, error) {
	root, err := m.Structure()
	if err != nil {
		return pec.Event{}, nil, err
	}
	var entity *message.Part
	if len(root.Children) > 0 {
		entity = root.Children[0]
	}
	data, original, err := reception.Parts(entity)
	if err != nil {
		return pec.Event{}, nil, err
	}
	ev, err := reception.Data(data, j.location)
	if err != nil {
		return ev, nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return ev, original, nil
}

// duplicate returns the mark of a duplicate from what is signed (docs/rules.md,
// U1); empty if there is none. It is signed later than what it certifies.
func duplicate(m *message.Message) string {
	root, err := m.Structure()
	if err != nil || len(root.Children) == 0 {
		return ""
	}
	return root.Children[0].Header.Get(pec.HeaderDuplicate)
}

// claimed is what the header says a message is. Nothing vouches for it.
func claimed(h *message.Header) string {
	transport := strings.ToLower(h.Get(pec.HeaderTransport))
	switch kind := pec.Kind(strings.ToLower(h.Get(pec.HeaderReceipt))); {
	case kind.Valid():
		return string(kind)
	case transport == pec.TransportCertified:
		return string(pec.KindTransport)
	case transport == pec.TransportAnomaly:
		return kindAnomaly
	}
	return kindOrdinary
}

// signature tells what the signature shows, each flaw a problem.
func (j *judge) signature(rep *signer.Report, err error, v *Verdict) {
	s := &Signature{Genuine: rep.SignatureHolds, Intact: rep.ContentIntact, Digest: rep.Digest, Revocation: j.lists.state}
	v.Signature = s
	if !rep.SigningTime.IsZero() {
		t := rep.SigningTime.In(j.location)
		s.SigningTime = &t
	}
	if c := rep.Signer; c != nil {
		sum := sha1.Sum(c.Raw) // the directory's name of a certificate; RFC 6109, 4.5.1
		s.Signer, s.Issuer = c.Subject.String(), c.Issuer.String()
		s.Serial, s.SHA1 = c.SerialNumber.Text(16), hex.EncodeToString(sum[:])
		s.NotBefore, s.NotAfter = c.NotBefore, c.NotAfter
		if len(c.EmailAddresses) > 0 {
			s.Email = c.EmailAddresses[0]
		}
	}
	if !rep.SignatureHolds {
		v.problem("the signature is not genuine: it was not made with the key of the signer's certificate")
	}
	if rep.SignatureHolds && !rep.ContentIntact {
		v.problem("the content was altered after it was signed")
	}
	switch {
	case !j.anchors:
		v.problem("the signer's certificate was not checked: name its CAs with --ca")
	case rep.ChainChecked:
		j.chain(rep, v)
	}
	if err != nil && len(v.Problems) == 0 {
		v.problem("%v", err)
	}
}

// chain tells whether the certificate leads to an anchor and what is known of
// revocation.
func (j *judge) chain(rep *signer.Report, v *Verdict) {
	s := v.Signature
	unknown := errors.Is(rep.ChainErr, signer.ErrRevocationUnknown)
	trusted := rep.ChainErr == nil || unknown
	s.Trusted = &trusted
	switch {
	case unknown:
		v.problem("whether the signer's certificate was revoked is not known: %s", s.Revocation.Detail)
	case !trusted:
		v.problem("the signer's certificate is not trusted: %v", rep.ChainErr)
	}
	for _, c := range j.lists.chain {
		s.Chain = append(s.Chain, c.Subject.String())
	}
	for _, n := range j.lists.later {
		v.note("%s; what was signed before stands", n)
	}
}

// consistent compares the header, which is not signed, with what is.
func (j *judge) consistent(m *message.Message, ev pec.Event, original bool, v *Verdict) {
	kind, transport := m.Header.Get(pec.HeaderReceipt), m.Header.Get(pec.HeaderTransport)
	switch {
	case ev.Kind == pec.KindTransport && !strings.EqualFold(transport, pec.TransportCertified):
		v.problem("the header does not say that it is a transport envelope, the signed data do")
	case ev.Kind != pec.KindTransport && !strings.EqualFold(kind, string(ev.Kind)):
		v.problem("the header says %q, the signed data %q", kind, ev.Kind)
	}
	if ev.Kind == pec.KindTransport && !original {
		v.problem("the envelope does not carry the original message")
	}
}

// provider looks the signer up in the directory, if one was given, and applies
// the rules of the reception point.
func (j *judge) provider(m *message.Message, rep *signer.Report, verr error, v *Verdict) {
	if j.directory == nil {
		return
	}
	_, listed := j.directory.ByCertificate(rep.Signer.Raw)
	v.Signature.Listed = &listed
	if verr != nil && listed {
		return // said already
	}
	f := reception.Examine(m, rep, nil, j.directory, j.location)
	if f.Class == reception.Other && !errors.Is(f.Why, reception.ErrNoData) {
		v.problem("%v", f.Why)
	}
}

// apart is how far the claimed signing time and the certified instant may be
// from each other before that is worth a note.
const apart = time.Hour

// times notes what a reader should know about times and algorithms.
func (j *judge) times(rep *signer.Report, v *Verdict) {
	if v.Duplicate != "" {
		v.note("a duplicate, made from the provider's register: %s", v.Duplicate)
	} else if v.Instant != nil && !rep.SigningTime.IsZero() && v.Instant.Sub(rep.SigningTime).Abs() > apart {
		v.note("the signer says that it signed at %s, the certified instant is another", rep.SigningTime.In(j.location).Format(people))
	}
	if rep.Digest == "SHA-1" {
		v.note("signed with SHA-1, for which others can make two contents with one signature today")
	}
}

func (v *Verdict) event(ev pec.Event) {
	v.Kind, v.Identifier, v.MsgID = string(ev.Kind), ev.Identifier, ev.MsgID
	v.Instant, v.Provider, v.Sender, v.Subject = &ev.At, ev.Provider, ev.Sender, ev.Subject
	v.Receipt, v.Recipient, v.Taken, v.Error, v.Detail = ev.Receipt, ev.Recipient, ev.Taken, ev.Error, ev.Detail
	v.Recipients = ev.Recipients
}

func (v *Verdict) problem(format string, args ...any) {
	v.Problems = append(v.Problems, strings.ReplaceAll(fmt.Sprintf(format, args...), "signer: ", ""))
}

func (v *Verdict) note(format string, args ...any) {
	v.Notes = append(v.Notes, fmt.Sprintf(format, args...))
}

// place is where the message is, for people.
func (v *Verdict) place() string {
	if v.Number > 0 {
		return fmt.Sprintf("%s, message %d", v.File, v.Number)
	}
	return v.File
}
