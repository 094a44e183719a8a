package main

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"pecd/pec"
	"pecd/pec/directory"
	"pecd/pec/message"
	"pecd/points/reception"
	"pecd/signer"
)

// verifyCmd is pecd verify. It needs no installation: anchors and directory are
// files that the user names.
type verifyCmd struct {
	Files     []string `arg:"" name:"file" help:"Messages as saved by a mail client (.eml); - is standard input."`
	CA        string   `name:"ca" help:"PEM file with the CAs of providers' certificates." placeholder:"FILE"`
	Directory string   `help:"Signed directory of providers (igpec.ldif.p7m)." placeholder:"FILE"`
	JSON      bool     `name:"json" help:"One JSON object a line."`
}

// A verdict on one message. The JSON names are a stable interface.
type verdict struct {
	File string `json:"file"`
	// Valid says that all holds: signature, content, chain, and, where a
	// directory was given, the provider.
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
	Signature  *signature      `json:"signature,omitempty"`
	Problems   []string        `json:"problems"`
}

// signature is what is known of the signature and its signer.
type signature struct {
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
}

// Run verifies each file; the answer is no if one does not hold.
func (c *verifyCmd) Run(ctx context.Context, std streams) error {
	v, err := c.newVerifier(time.Now())
	if err != nil {
		return err
	}
	out := bufio.NewWriter(std.out)
	no := false
	for _, name := range c.Files {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r, err := v.file(name)
		if err != nil {
			return err
		}
		no = no || !r.Valid
		if c.JSON {
			err = json.NewEncoder(out).Encode(r)
		} else {
			_, err = io.WriteString(out, r.String())
		}
		if err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if no {
		return errNo
	}
	return nil
}

// verifier holds what all files are checked against.
type verifier struct {
	signatures *signer.Verifier
	directory  *directory.Directory
	anchors    bool
	location   *time.Location
	now        time.Time
}

func (c *verifyCmd) newVerifier(now time.Time) (*verifier, error) {
	v := &verifier{now: now}
	var err error
	if v.location, err = time.LoadLocation("Europe/Rome"); err != nil {
		return nil, err
	}
	var anchors *x509.CertPool
	if c.CA != "" {
		if anchors, _, err = signer.LoadAnchors(c.CA); err != nil {
			return nil, err
		}
		v.anchors = true
	}
	v.signatures = signer.NewVerifier(anchors)
	if c.Directory != "" {
		if v.directory, err = loadDirectory(c.Directory, anchors, now); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// maxFile bounds a message given to verify, in octets.
const maxFile = 1 << 30

func (v *verifier) file(name string) (*verdict, error) {
	var src message.Source
	if name == "-" {
		b, err := io.ReadAll(io.LimitReader(os.Stdin, maxFile))
		if err != nil {
			return nil, err
		}
		src = message.Bytes(b)
	} else {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if !st.Mode().IsRegular() {
			return nil, fmt.Errorf("%s: not a file; name saved messages (.eml)", name)
		}
		src = fileSource{f, st.Size()}
	}
	r := &verdict{File: name, Problems: []string{}}
	m, err := message.Read(src)
	if err != nil {
		r.Kind = kindOrdinary
		r.problem("not a message: %v", err)
		return r, nil
	}
	v.message(m, r)
	r.Valid = len(r.Problems) == 0
	return r, nil
}

type fileSource struct {
	io.ReaderAt
	size int64
}

func (f fileSource) Size() int64 { return f.size }

// Kinds of messages that carry no certification data.
const (
	kindOrdinary = "posta-ordinaria"
	kindAnomaly  = string(pec.KindAnomaly)
)

// message fills r with what can be said of m. The chain is judged as of the
// signing time: certificates expire, what they signed in time stands.
func (v *verifier) message(m *message.Message, r *verdict) {
	rep, err := v.signatures.Verify(m, time.Time{})
	if rep == nil {
		r.problem("%v", err)
	} else {
		v.signature(rep, err, r)
	}
	ev, original, derr := v.certified(m, rep)
	switch {
	case derr == nil:
		r.event(ev)
		v.consistent(m, ev, original != nil, r)
	default:
		r.Kind = claimed(&m.Header)
		if r.Kind != kindAnomaly {
			r.problem("%v", derr)
		}
	}
	if rep != nil && rep.Signer != nil {
		v.provider(m, rep, err, r)
	}
}

// certified reads the certification data: from what is signed, or, of a message
// without a readable signature, from where the signed part would be.
func (v *verifier) certified(m *message.Message, rep *signer.Report) (pec.Event, *message.Message, error) {
	var entity *message.Part
	if rep != nil {
		entity = rep.Entity
	} else if root, err := m.Structure(); err == nil && len(root.Children) > 0 {
		entity = root.Children[0]
	}
	data, original, err := reception.Parts(entity)
	if err != nil {
		return pec.Event{}, nil, err
	}
	ev, err := reception.Data(data, v.location)
	return ev, original, err
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
func (v *verifier) signature(rep *signer.Report, err error, r *verdict) {
	s := &signature{Genuine: rep.SignatureHolds, Intact: rep.ContentIntact, Digest: rep.Digest}
	r.Signature = s
	if !rep.SigningTime.IsZero() {
		t := rep.SigningTime.In(v.location)
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
		r.problem("the signature is not genuine: it was not made with the key of the signer's certificate")
	}
	if rep.SignatureHolds && !rep.ContentIntact {
		r.problem("the content was altered after it was signed")
	}
	switch {
	case !v.anchors:
		r.problem("the signer's certificate was not checked: name its CAs with --ca")
	case rep.ChainChecked:
		trusted := rep.ChainErr == nil
		s.Trusted = &trusted
		if !trusted {
			r.problem("the signer's certificate is not trusted: %v", rep.ChainErr)
		}
	}
	if err != nil && len(r.Problems) == 0 {
		r.problem("%v", err)
	}
}

func (r *verdict) event(ev pec.Event) {
	r.Kind, r.Identifier, r.MsgID = string(ev.Kind), ev.Identifier, ev.MsgID
	r.Instant, r.Provider, r.Sender, r.Subject = &ev.At, ev.Provider, ev.Sender, ev.Subject
	r.Receipt, r.Recipient, r.Taken, r.Error, r.Detail = ev.Receipt, ev.Recipient, ev.Taken, ev.Error, ev.Detail
	r.Recipients = ev.Recipients
}

// consistent compares the header, which is not signed, with what is.
func (v *verifier) consistent(m *message.Message, ev pec.Event, original bool, r *verdict) {
	kind, transport := m.Header.Get(pec.HeaderReceipt), m.Header.Get(pec.HeaderTransport)
	switch {
	case ev.Kind == pec.KindTransport && !strings.EqualFold(transport, pec.TransportCertified):
		r.problem("the header does not say that it is a transport envelope, the signed data do")
	case ev.Kind != pec.KindTransport && !strings.EqualFold(kind, string(ev.Kind)):
		r.problem("the header says %q, the signed data %q", kind, ev.Kind)
	}
	if ev.Kind == pec.KindTransport && !original {
		r.problem("the envelope does not carry the original message")
	}
}

// provider looks the signer up in the directory, if one was given, and applies
// the rules of the reception point.
func (v *verifier) provider(m *message.Message, rep *signer.Report, verr error, r *verdict) {
	if v.directory == nil {
		return
	}
	_, listed := v.directory.ByCertificate(rep.Signer.Raw)
	r.Signature.Listed = &listed
	if verr != nil && listed {
		return // said already
	}
	f := reception.Examine(m, rep, nil, v.directory, v.location)
	if f.Class == reception.Other && !errors.Is(f.Why, reception.ErrNoData) {
		r.problem("%v", f.Why)
	}
}

func (r *verdict) problem(format string, args ...any) {
	r.Problems = append(r.Problems, strings.ReplaceAll(fmt.Sprintf(format, args...), "signer: ", ""))
}

// kindNames are the English names of the kinds, for people.
var kindNames = map[string]string{
	string(pec.KindTransport):     "transport envelope (busta di trasporto)",
	string(pec.KindAcceptance):    "acceptance receipt (ricevuta di accettazione)",
	string(pec.KindNonAcceptance): "non-acceptance notice (avviso di non accettazione)",
	string(pec.KindTakeCharge):    "take-charge receipt (ricevuta di presa in carico)",
	string(pec.KindDelivery):      "delivery receipt (ricevuta di avvenuta consegna)",
	string(pec.KindNonDelivery):   "non-delivery notice (avviso di mancata consegna)",
	string(pec.KindTimeout):       "timeout notice (avviso di mancata consegna per superamento dei tempi massimi)",
	string(pec.KindVirus):         "virus notice (avviso di rilevazione virus)",
	kindAnomaly:                   "anomaly envelope (busta di anomalia)",
	kindOrdinary:                  "ordinary mail, or no longer recognisable as certified mail",
}

// String is the verdict for people.
func (r *verdict) String() string {
	var b strings.Builder
	word := "VALID"
	if !r.Valid {
		word = "NOT VALID"
	}
	fmt.Fprintf(&b, "%s: %s\n", printable(r.File), word)
	field := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s %s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	field("what", "%s", kindNames[r.Kind])
	if r.Identifier != "" {
		field("identifier", "%s", r.Identifier)
		field("instant", "%s", r.Instant.Format("2006-01-02 15:04:05 -0700"))
		field("provider", "%s", r.Provider)
		field("from", "%s", r.Sender)
		for _, a := range r.Recipients {
			field("to", "%s (%s)", a.Address, a.Type)
		}
		field("subject", "%s", r.Subject)
	}
	if r.Recipient != "" {
		field("about", "%s", r.Recipient)
	}
	for _, a := range r.Taken {
		field("taken", "%s", a)
	}
	if r.Detail != "" {
		field("detail", "%s", r.Detail)
	}
	if s := r.Signature; s != nil {
		s.print(field)
	}
	for _, p := range r.Problems {
		field("problem", "%s", p)
	}
	return b.String()
}

func (s *signature) print(field func(name, format string, args ...any)) {
	say := func(ok bool, yes, no string) string {
		if ok {
			return yes
		}
		return no
	}
	field("signature", "%s, %s", say(s.Genuine, "genuine", "NOT genuine"), say(s.Intact, "content intact", "content ALTERED"))
	field("signed by", "%s <%s>", s.Signer, s.Email)
	field("issued by", "%s, serial %s", s.Issuer, s.Serial)
	if s.SigningTime != nil {
		field("signed at", "%s, digest %s", s.SigningTime.Format("2006-01-02 15:04:05 -0700"), s.Digest)
	}
	if s.Trusted != nil {
		field("trusted", "%s", say(*s.Trusted, "yes, chains to the given CAs", "NO"))
	}
	if s.Listed != nil {
		field("directory", "%s", say(*s.Listed, "the certificate is a provider's", "the certificate is NOT in the directory"))
	}
}
