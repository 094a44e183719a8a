package seal_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.mozilla.org/pkcs7"

	"pecd/logstore"
	"pecd/logstore/seal"
	"pecd/pec"
	"pecd/signer"
	"pecd/signer/signertest"
	"pecd/signer/timestamp/timestamptest"
)

var rome = location("Europe/Rome")

func location(name string) *time.Location {
	zone, err := time.LoadLocation(name)
	if err != nil {
		panic(err) // the tests need the database of time zones
	}
	return zone
}

func romeTime(s string) time.Time {
	t, err := time.ParseInLocation("2006-01-02 15:04:05", s, rome)
	if err != nil {
		panic(err) // a mistake in the test
	}
	return t
}

// A memory is a register in memory.
type memory struct {
	mu    sync.Mutex
	links []logstore.Link
}

func (m *memory) add(t testing.TB, at time.Time, e logstore.Entry) logstore.Link {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	e.Seq, e.At = int64(len(m.links)+1), at.UTC()
	record, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var before logstore.Digest
	if len(m.links) > 0 {
		before = m.links[len(m.links)-1].Chain
	}
	m.links = append(m.links, logstore.Link{Seq: e.Seq, At: e.At, Chain: before.Next(record), Record: record})
	return m.links[len(m.links)-1]
}

// event adds an acceptance at the given time of Rome.
func (m *memory) event(t testing.TB, at string) logstore.Link {
	t.Helper()
	return m.add(t, romeTime(at), entry(fmt.Sprintf("opec%d@alfa.example", len(m.links)+1)))
}

func entry(id string) logstore.Entry {
	return logstore.Entry{
		Type: "accettazione", Identifier: pec.Identifier(id), MsgID: "<1@client.example>", Sender: "alice@alfa.example",
		Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}, {Address: "mario@ordinary.example", Type: pec.External}},
		Subject:    "Offerta: <prezzo & sconto> perché no",
		Messages:   []string{"m1@alfa.example"}, SendingProvider: "Alfa PEC S.p.A.",
		Digest: "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
	}
}

func (m *memory) Head(context.Context) (logstore.Link, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.links) == 0 {
		return logstore.Link{}, nil
	}
	return m.links[len(m.links)-1], nil
}

func (m *memory) Chain(_ context.Context, from int64, f func(logstore.Link) error) error {
	m.mu.Lock()
	links := m.links
	m.mu.Unlock()
	for i, l := range links {
		if l.Seq != int64(i+1) && l.Seq >= from {
			return fmt.Errorf("%w: %d", logstore.ErrNoEntry, i+1)
		}
		if l.Seq >= from {
			if err := f(l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memory) Span(_ context.Context, since, until time.Time) (s logstore.Span, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.links {
		if l.At.Before(since) || !l.At.Before(until) {
			continue
		}
		if s.Entries++; s.First == 0 {
			s.First = l.Seq
		}
		s.Last = l.Seq
	}
	return s, nil
}

// A key signs seals with the identity of a provider.
type key struct {
	cert   *x509.Certificate
	issuer *x509.Certificate
	key    *rsa.PrivateKey
}

func (k key) SignSeal(_ context.Context, manifest []byte, _ time.Time) ([]byte, error) {
	sd, err := pkcs7.NewSignedData(manifest)
	if err != nil {
		return nil, err
	}
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := sd.AddSignerChain(k.cert, k.key, []*x509.Certificate{k.issuer}, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, err
	}
	return sd.Finish()
}

// A scene is a provider with a register, a time-stamping authority and a clock.
type scene struct {
	t        testing.TB
	register *memory
	ca       *signertest.CA
	key      key
	tsa      *timestamptest.Authority
	verifier *seal.Verifier
	dir      string

	mu  sync.Mutex
	now time.Time
}

func newScene(t testing.TB) *scene {
	t.Helper()
	s := &scene{t: t, register: new(memory), ca: signertest.NewCA(t), tsa: timestamptest.New(t, nil), dir: filepath.Join(t.TempDir(), "seals")}
	const address = "posta-certificata@alfa.example"
	id := s.ca.Identity(t, "Alfa PEC S.p.A.", address)
	s.key = key{id.Certificate(), s.ca.Certificate, signertest.Key(t, address)}
	s.verifier = seal.NewVerifier(signer.NewVerifier(s.ca.Pool()), s.tsa.Verifier())
	s.tsa.Now = s.clock
	return s
}

func (s *scene) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *scene) set(now string) { s.setTime(romeTime(now)) }

func (s *scene) setTime(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

func (s *scene) options() seal.Options {
	return seal.Options{Dir: s.dir, Provider: "Alfa PEC S.p.A.", Zone: rome, Register: s.register, Signer: s.key, Stamper: s.tsa, Verifier: s.verifier, Now: s.clock}
}

func (s *scene) sealer(change func(*seal.Options)) *seal.Sealer {
	s.t.Helper()
	o := s.options()
	if change != nil {
		change(&o)
	}
	sealer, err := seal.New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return sealer
}

// seal seals what is due at the given time, and expects these days.
func (s *scene) seal(now string, days ...string) []seal.Manifest {
	s.t.Helper()
	s.set(now)
	sealed, err := s.sealer(nil).Seal(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	var got []string
	for _, m := range sealed {
		got = append(got, m.Day.String())
	}
	if fmt.Sprint(got) != fmt.Sprint(days) {
		s.t.Fatalf("sealed %v, want %v", got, days)
	}
	return sealed
}

func (s *scene) verify() seal.Result {
	s.t.Helper()
	r, err := s.verifier.VerifyDays(s.t.Context(), os.DirFS(s.dir), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// sound expects that all is sound, n days.
func (s *scene) sound(n int) {
	s.t.Helper()
	if r := s.verify(); !r.OK() || r.Sound != n || len(r.Days) != n {
		var b bytes.Buffer
		r.WriteText(&b)
		s.t.Errorf("%s", b.String())
	}
}

func day(s string) seal.Day {
	d, err := seal.ParseDay(s)
	if err != nil {
		panic(err) // a mistake in the test
	}
	return d
}

// list returns what stands in a folder, hidden files too.
func list(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
