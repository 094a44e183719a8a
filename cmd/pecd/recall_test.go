package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	mathrand "math/rand/v2"
	"strings"
	"testing"
	"time"

	"pecd/lmtp"
	"pecd/logstore"
	"pecd/milter"
	"pecd/pec"
	"pecd/pec/directory"
	"pecd/pec/message"
	"pecd/points"
	"pecd/points/act"
	"pecd/points/pointstest"
	"pecd/points/reception"
	"pecd/signer"
	"pecd/signer/signertest"
)

// directoryOf is a directory with these records.
func directoryOf(t *testing.T, records ...directory.Provider) *directory.Directory {
	t.Helper()
	var ldif bytes.Buffer
	if err := directory.Marshal(&ldif, records); err != nil {
		t.Fatal(err)
	}
	d, err := directory.Parse(ldif.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// listed is p in the directory under another name, with other domains, or with another
// certificate.
func listed(p *pointstest.Provider, name, domain string, certificate []byte) directory.Provider {
	return directory.Provider{Name: name, Domains: []string{domain}, Certificates: [][]byte{certificate}, ServiceMailbox: p.Record.ServiceMailbox}
}

// newCertificate is a further one of Alfa.
func (w *crashWorld) newCertificate() []byte {
	w.t.Helper()
	return w.CA.Identity(w.t, w.Alfa.Issuer.Name, string(w.Alfa.Issuer.Address)).Certificate().Raw
}

// withoutOld is the directory in which Alfa has a new certificate only.
func (w *crashWorld) withoutOld() *directory.Directory {
	w.t.Helper()
	return directoryOf(w.t, listed(w.Alfa, w.Alfa.Issuer.Name, "alfa.example", w.newCertificate()), *w.Beta.Record)
}

// saysOf is a list of an authority that says one thing of all certificates.
type saysOf struct{ err error }

func (s saysOf) Revoked(context.Context, *x509.Certificate, *x509.Certificate, time.Time) error {
	return s.err
}

// refuseOrdinary has a mailbox take certified mail only.
func (w *crashWorld) refuseOrdinary(mailbox string) {
	w.t.Helper()
	if err := w.clerk().SetPolicy(w.t.Context(), logstore.Policy{Subject: mailbox, Ordinary: policyRefuse}); err != nil {
		w.t.Fatal(err)
	}
}

// take brings raw while the mailbox store is away: it is taken in charge, and waits.
func (w *crashWorld) take(raw []byte, to ...string) {
	w.t.Helper()
	w.fault.arm(stepStore, 1, false, true)
	for _, s := range w.bring(w.t.Context(), raw, to...) {
		if !s.Deferred() {
			w.t.Fatalf("with the mailbox store away the MTA hears %v", s)
		}
	}
	w.wantIssued(1, 0, 0)
}

// wantIssued counts take-charge receipts, delivery receipts and anomalies.
func (w *crashWorld) wantIssued(taken, delivered, anomalies int) {
	w.t.Helper()
	for kind, want := range map[pec.Kind]int{pec.KindTakeCharge: taken, pec.KindDelivery: delivered, pec.KindAnomaly: anomalies, pec.KindNonDelivery: 0} {
		if n := w.entries(logstore.EntryType(kind)); n != want {
			w.t.Errorf("%d of %s, want %d", n, kind, want)
		}
	}
}

func (w *crashWorld) wantOK(status []lmtp.Status) {
	w.t.Helper()
	for i, s := range status {
		if !s.OK() {
			w.t.Errorf("of recipient %d the MTA hears %v", i, s)
		}
	}
}

// TestTakenIsConcluded: between two attempts of the MTA what an envelope was judged by
// changes. It was taken in charge, so it is delivered and that is certified, once.
func TestTakenIsConcluded(t *testing.T) {
	const alfa = "Alfa PEC S.p.A."
	for name, change := range map[string]func(*crashWorld, *office){
		"a new certificate in the directory": func(w *crashWorld, o *office) { o.directory = w.withoutOld() },
		"the domain is another provider's": func(w *crashWorld, o *office) {
			o.directory = directoryOf(w.t, listed(w.Alfa, alfa, "former.example", w.Alfa.Record.Certificates[0]),
				listed(w.Alfa, "Gamma PEC S.p.A.", "alfa.example", w.newCertificate()), *w.Beta.Record)
		},
		"the provider has another name": func(w *crashWorld, o *office) {
			o.directory = directoryOf(w.t, listed(w.Alfa, "Gamma PEC S.p.A.", "alfa.example", w.Alfa.Record.Certificates[0]), *w.Beta.Record)
		},
		"the provider is gone": func(w *crashWorld, o *office) { o.directory = directoryOf(w.t, *w.Beta.Record) },
		"the certificate has ended": func(w *crashWorld, _ *office) {
			w.ahead = 2 * time.Hour // see shortAlfa
		},
		"the certificate was revoked": func(w *crashWorld, o *office) {
			o.trust = &trust{verifier: w.Verifier.WithRevoker(saysOf{signer.ErrRevoked})}
		},
		"nobody knows whether it was revoked": func(w *crashWorld, o *office) {
			o.trust = &trust{verifier: w.Verifier.WithRevoker(saysOf{errors.New("away")})}
		},
		"the authority does not count any more": func(w *crashWorld, o *office) {
			o.trust = &trust{verifier: signer.NewVerifier(signertest.NewCA(w.t).Pool())}
		},
	} {
		for _, refuses := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", no ordinary mail"}[refuses], func(t *testing.T) {
				w := newBeta(t)
				w.shortAlfa()
				raw, to := w.envelopeTo(2)
				w.take(raw, to...)
				if refuses {
					w.refuseOrdinary("beta.example")
				}
				change(w, w.doors.office.Load())
				// The second time the MTA lost our answer, and the letters are its own.
				w.wantOK(w.bring(t.Context(), raw, "U0@beta.example", to[1]))
				w.wantOK(w.bring(t.Context(), raw, to...))
				w.wantIssued(1, 2, 0)
				if n := w.all(&w.stored); len(n) != 2 || n[0] != "U0@beta.example" {
					t.Errorf("delivered to %q", n)
				}
				w.sound()
			})
		}
	}
}

// shortAlfa gives Alfa a certificate that ends in an hour.
func (w *crashWorld) shortAlfa() {
	w.t.Helper()
	a := w.Alfa
	tmpl := w.CA.Template(a.Issuer.Name, string(a.Issuer.Address))
	tmpl.NotAfter = pointstest.At.Add(time.Hour)
	a.Identity = w.CA.IdentityOf(w.t, signertest.Key(w.t, string(a.Issuer.Address)), tmpl)
	a.Signer = signer.NewSigner(a.Identity.Identity)
	d := directoryOf(w.t, listed(a, a.Issuer.Name, "alfa.example", a.Identity.Certificate().Raw), *w.Beta.Record)
	a.Record, _ = d.ProviderOf("alfa.example")
	w.doors.office.Load().directory = d
}

// TestTakenForOne: what was taken in charge for one recipient is for another what it is
// now, in the same transaction.
func TestTakenForOne(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		w := newBeta(t)
		raw, to := w.envelopeTo(2)
		w.take(raw, to[0])
		w.doors.office.Load().directory = w.withoutOld()
		anomalies := 1
		if refuses {
			anomalies = 0
			w.refuseOrdinary(to[1])
		}
		status := w.bring(t.Context(), raw, to[1], to[0])
		if !status[1].OK() || status[0].OK() == refuses || status[0].Deferred() {
			t.Errorf("the MTA hears %v", status)
		}
		w.wantIssued(1, 1, anomalies)
	}
}

// pointOf is a reception point of others that says one way of all messages.
type pointOf reception.Way

func (p pointOf) Decide(_ context.Context, a reception.Arrival) (d reception.Decision, err error) {
	for range a.Recipients {
		d.Fates = append(d.Fates, reception.Fate{Way: reception.Way(p), Why: signer.ErrUntrusted,
			Reason: points.Reason{Cause: points.Policy, Italian: "no", English: "no"}})
	}
	return d, nil
}

// TestPointOverTaken: a reception point of others is bound by what was taken in charge as
// by any envelope.
func TestPointOverTaken(t *testing.T) {
	for _, way := range []reception.Way{reception.Wrapped, reception.Rejected, reception.Ended} {
		w := newBeta(t)
		raw, to := w.envelopeTo(1)
		w.take(raw, to...)
		o := w.doors.office.Load()
		o.directory = w.withoutOld()
		o.points.reception = reception.Guard(pointOf(way))
		if s := w.bring(t.Context(), raw, to...)[0]; !s.Deferred() {
			t.Errorf("%s: the MTA hears %v", way, s)
		}
		w.wantIssued(1, 0, 0)
		o.points.reception = reception.Guard(pointOf(reception.Certified))
		w.wantOK(w.bring(t.Context(), raw, to...))
		w.wantIssued(1, 1, 0)
	}
}

// TestReplayOfTaken: an envelope waits for its mailbox, and its provider's certificate
// counts no more. Who has its octets and makes another message of them gets no further
// than with any other, and takes nothing from the envelope.
func TestReplayOfTaken(t *testing.T) {
	for name, tt := range map[string]struct {
		replay func(w *crashWorld, raw []byte) []byte
		to     string
	}{
		"signed by another": {func(w *crashWorld, _ []byte) []byte {
			a := w.Alfa
			evil := *a
			evil.Identity = signertest.NewCA(w.t).Identity(w.t, a.Issuer.Name, string(a.Issuer.Address))
			evil.Signer = signer.NewSigner(evil.Identity.Identity)
			return w.alike(&evil)
		}, "u0@beta.example"},
		"in another name": {func(_ *crashWorld, raw []byte) []byte {
			return bytes.Replace(raw, []byte("<posta-certificata@alfa.example>"), []byte("<posta-certificata@evil.example>"), 1)
		}, "u0@beta.example"},
		"with another identifier": {func(_ *crashWorld, raw []byte) []byte {
			return bytes.Replace(raw, []byte("<20261122x@alfa.example>"), []byte("<20261122y@alfa.example>"), 1)
		}, "u0@beta.example"},
		"not as an envelope": {func(_ *crashWorld, raw []byte) []byte {
			return bytes.Replace(raw, []byte("X-Trasporto: posta-certificata"), []byte("X-Trasporto: errore"), 1)
		}, "u0@beta.example"},
		"altered": {func(_ *crashWorld, raw []byte) []byte {
			return bytes.Replace(raw, []byte("Subject: Offerta\r\n"), []byte("Subject: offerta\r\n"), 2)
		}, "u0@beta.example"},
		"to another": {func(_ *crashWorld, raw []byte) []byte { return raw }, "u1@beta.example"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newBeta(t)
			raw := w.alike(w.Alfa)
			w.take(raw, "u0@beta.example")
			w.doors.office.Load().directory = w.withoutOld()
			replayed := tt.replay(w, raw)
			if tt.to == "u0@beta.example" && bytes.Equal(replayed, raw) {
				t.Fatal("it is the same message")
			}
			w.bring(t.Context(), replayed, tt.to)
			w.wantIssued(1, 0, 1)
			w.wantOK(w.bring(t.Context(), raw, "u0@beta.example"))
			w.wantOK(w.bring(t.Context(), replayed, tt.to))
			w.wantOK(w.bring(t.Context(), raw, "u0@beta.example"))
			w.wantIssued(1, 1, 1)
			if n := w.count(&w.mailbox); n != 2 {
				t.Errorf("%d copies in the mailboxes", n)
			}
		})
	}
}

// alike is an envelope to two whose signed part is the same octets whoever signs it.
func (w *crashWorld) alike(p *pointstest.Provider) []byte {
	w.t.Helper()
	ev := w.event("u0@beta.example")
	ev.Recipients = append(ev.Recipients, pec.Recipient{Address: "u1@beta.example", Type: pec.Certified})
	m, err := message.Read(message.Bytes(strings.Replace(matrixMessage, "%s", "u0@beta.example", 1)))
	if err != nil {
		w.t.Fatal(err)
	}
	d, err := p.Issuer.Transport(ev, m, message.Facts{}, mathrand.NewChaCha8([32]byte{}))
	return signed(w.t, p, d, err)
}

// TestGateKnowsTaken: the sender's server lost our answer and comes to port 25 again. A
// refusal there would be told its user beside the delivery of the first copy.
func TestGateKnowsTaken(t *testing.T) {
	w := newBeta(t)
	raw, to := w.envelopeTo(2)
	w.take(raw, to[0])
	w.refuseOrdinary("beta.example")
	w.doors.office.Load().directory = w.withoutOld()
	for _, tt := range []struct {
		to   []string
		want milter.Action
	}{{to[:1], milter.Continue}, {to, milter.Continue}, {to[1:], milter.Reject}} {
		env := milter.Envelope{Sender: "alice@alfa.example", Recipients: tt.to}
		m, err := gateDoor{w.doors}.Begin(t.Context(), env)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Write(raw); err != nil {
			t.Fatal(err)
		}
		if v := m.End(t.Context(), env); v.Action != tt.want {
			t.Errorf("to %q the server hears %v", tt.to, v)
		}
	}
}

// TestVirusNobodyCanBeTold: a virus is found in what was taken in charge from a provider
// that has left the directory. The envelope is neither delivered nor refused, and kept
// apart: its sender hears from us, once.
func TestVirusNobodyCanBeTold(t *testing.T) {
	w := newBeta(t)
	raw, to := w.envelopeTo(1)
	w.take(raw, to...)
	o := w.doors.office.Load()
	o.directory = directoryOf(t, *w.Beta.Record)
	for _, tt := range []struct {
		ahead   time.Duration
		notices int
	}{{time.Hour, 1}, {act.PatienceOfStore + time.Hour, 1}} {
		w.ahead = tt.ahead
		m, err := arrivalDoor{w.doors}.Begin(t.Context(), lmtp.Envelope{})
		if err != nil {
			t.Fatal(err)
		}
		a := m.(*arrival)
		if _, err := a.Write(raw); err != nil {
			t.Fatal(err)
		}
		if a.m, err = message.Read(a.body); err != nil {
			t.Fatal(err)
		}
		a.env, a.status, a.log = lmtp.Envelope{Recipients: to}, []lmtp.Status{statusLater}, w.doors.log
		rep, err := w.Verifier.Verify(a.m, w.now())
		if err != nil {
			t.Fatal(err)
		}
		claim, err := reception.Claim(a.m, rep, a.office.location)
		if err != nil {
			t.Fatal(err)
		}
		parts, err := a.parts(t.Context(), claim, rep)
		if err != nil || len(parts) != 1 || parts[0].from == "" {
			t.Fatal(parts, err)
		}
		p := parts[0]
		why := points.Reason{Cause: points.Virus, Italian: "Eicar", English: "Eicar"}
		if err := p.infected(t.Context(), choice{[]int{0}, []pec.Address{pec.Address(to[0])}}, why); err != nil {
			t.Error(err)
		}
		if s := p.status[0]; s.OK() != (tt.notices > 0) || !s.OK() && !s.Deferred() {
			t.Errorf("after %v the MTA hears %v", tt.ahead, s)
		}
		if n, v := w.entries(logstore.EntryType(pec.KindNonDelivery)), w.entries(logstore.EntryType(pec.KindVirus)); n != tt.notices || v != 0 || w.count(&w.mailbox) != 0 {
			t.Errorf("after %v: %d notices to the sender, %d of a virus, %d copies", tt.ahead, n, v, w.count(&w.mailbox))
		}
		if kept, err := w.doors.store.Infected(t.Context(), logstore.InfectedQuery{}); err != nil || len(kept) != 1 || kept[0].Virus != "Eicar" || kept[0].Source != logstore.KeptReception {
			t.Errorf("after %v the virus store has %+v, %v", tt.ahead, kept, err)
		}
		a.body.Close()
	}
}
