package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/pec"
	"pecd/pec/message"
	"pecd/points/pointstest"
)

var updateMatrix = flag.Bool("update-matrix", false, "write the crash matrix into docs/reliability.md")

// A matrixWay is what one event of a message's life goes through, step by step.
type matrixWay struct {
	name string
	// doc says what the three words of a cell are.
	doc   string
	of    func(*pointstest.World) *pointstest.Provider // whose pecd it is
	setup func(*crashWorld)
	run   func(*crashWorld) string // once; what the caller heard
	after func(*crashWorld) string // what is certified after the restart, before anybody repeats
	// again is what those outside do who heard no success, and what pecd does by
	// itself, until nothing is left to do.
	again func(w *crashWorld, heard string)
	end   func(*crashWorld) string // how often it happened in the end
	steps []matrixStep
}

// A matrixStep is one operation of a way, the nth of its kind ("a > b": after the
// first a), and what becomes of
// the message where it breaks: by persisted or not and reported or not, in the
// order of manners. An empty cell cannot be.
type matrixStep struct {
	doc   string
	step  string
	nth   int
	cells [4]string
}

// manners are the columns of the matrix.
var manners = []struct {
	doc                 string
	persisted, reported bool
}{
	{"not done, killed", false, false},
	{"done, killed", true, false},
	{"fails", false, true},
	{"fails, but is done", true, true},
}

// The steps as the store names them.
const (
	written   = string(logstore.StepPrepared)
	synced    = string(logstore.StepSynced)
	named     = string(logstore.StepNamed)
	nameSync  = string(logstore.StepNameSynced)
	sqlBegin  = string(logstore.StepBegun)
	sqlRows   = string(logstore.StepWritten)
	sqlCommit = string(logstore.StepCommitted)
	takeBegin = string(logstore.StepTakeBegun)
	takeRows  = string(logstore.StepTakeWritten)
	takeEnd   = string(logstore.StepTakeCommitted)
	takeFiles = string(logstore.StepTakeSettled)
)

const matrixMessage = "From: alice@alfa.example\r\nTo: %s\r\nSubject: Offerta\r\nMessage-ID: <c1@alfa.example>\r\n\r\nTesto.\r\n"

const (
	bob  = "bob@beta.example"
	anna = "anna@alfa.example"
)

func alfa(w *pointstest.World) *pointstest.Provider { return w.Alfa }
func beta(w *pointstest.World) *pointstest.Provider { return w.Beta }

// matrix is the document: docs/reliability.md shows it.
var matrix = []matrixWay{
	{
		name: "Submission", doc: "what the client hears; what is certified after the restart; messages in the end, after the client has repeated what it heard no 250 for",
		of: alfa, setup: func(*crashWorld) {},
		run:   func(w *crashWorld) string { return w.submit(fmt.Sprintf(matrixMessage, bob), bob) },
		after: func(w *crashWorld) string { return certified1(w, pec.KindAcceptance, "nothing", "accepted") },
		again: func(w *crashWorld, heard string) {
			if heard != "250" && w.submit(fmt.Sprintf(matrixMessage, bob), bob) != "250" {
				w.t.Error("the repeat was not accepted")
			}
		},
		end: func(w *crashWorld) string {
			n := w.entries(logstore.EntryType(pec.KindAcceptance))
			for _, k := range []pec.Kind{pec.KindAcceptance, pec.KindTransport} {
				if sent := len(w.outbox(k)); sent != n {
					w.t.Errorf("%d messages of kind %s in the outbox, %d accepted", sent, k, n)
				}
			}
			return fmt.Sprint(n)
		},
		steps: []matrixStep{
			{"spool the body", written, 1, [4]string{"-; nothing; 1", "-; nothing; 1", "4xx; nothing; 1", "4xx; nothing; 1"}},
			{"sync the body", synced, 1, [4]string{"-; nothing; 1", "-; nothing; 1", "4xx; nothing; 1", "4xx; nothing; 1"}},
			{"name the body", named, 1, [4]string{"-; nothing; 1", "-; nothing; 1", "4xx; nothing; 1", "4xx; nothing; 1"}},
			{"sync the name", nameSync, 1, [4]string{"-; nothing; 1", "-; nothing; 1", "4xx; nothing; 1", "4xx; nothing; 1"}},
			{"BEGIN", sqlBegin, 1, [4]string{"-; nothing; 1", "-; nothing; 1", "4xx; nothing; 1", "4xx; nothing; 1"}},
			{"rows", sqlRows, 1, [4]string{"-; nothing; 1", "-; nothing; 1", "4xx; nothing; 1", "4xx; nothing; 1"}},
			{"COMMIT", sqlCommit, 1, [4]string{"-; nothing; 1", "-; accepted; 2", "4xx; nothing; 1", "250; accepted; 1"}},
			{"the milter says DISCARD", stepReport, 1, [4]string{"-; accepted; 2", "250; accepted; 1", "-; accepted; 2", ""}},
		},
	},
	{
		name: "Hand-over to the MTA", doc: "where the envelope is after the restart; copies at the MTA in the end, all of one signed message",
		of: alfa,
		setup: func(w *crashWorld) {
			w.mustSubmit(bob)
			w.discardOutbox()
		},
		run:   func(w *crashWorld) string { w.send(false); return "" },
		after: outboxState,
		again: func(w *crashWorld, _ string) { sendRest(w, false) },
		end: func(w *crashWorld) string {
			copies := w.all(&w.mta)
			for _, text := range copies {
				if text != copies[0] {
					w.t.Error("two copies differ")
				}
			}
			return fmt.Sprint(len(copies))
		},
		steps: []matrixStep{
			{"the MTA says 354", stepOffer, 1, [4]string{"in the outbox; 1", "in the outbox; 1", "gone; 1", "gone; 1"}},
			{"the MTA takes it (final dot)", stepMTA, 1, [4]string{"in the outbox; 1", "in the outbox; 2", "gone; 1", "gone; 2"}},
			{"BEGIN of the mark", takeBegin, 1, [4]string{"in the outbox; 2", "in the outbox; 2", "gone; 1", "gone; 1"}},
			{"rows of the mark", takeRows, 1, [4]string{"in the outbox; 2", "in the outbox; 2", "gone; 1", "gone; 1"}},
			{"COMMIT of the mark", takeEnd, 1, [4]string{"in the outbox; 2", "gone; 1", "gone; 1", "gone; 1"}},
			{"remove the body", takeFiles, 1, [4]string{"gone; 1", "gone; 1", "gone; 1", "gone; 1"}},
		},
	},
	{
		name: "Arrival of an envelope by LMTP", doc: "what the MTA hears; what is certified after the restart; copies in the mailbox in the end, after the MTA has delivered again what it heard no 250 for. Both receipts are there once in every cell",
		of: beta, setup: func(*crashWorld) {},
		run:   func(w *crashWorld) string { return w.arrive(w.envelopeOf(bob), "posta-certificata@alfa.example", bob) },
		after: receiptState,
		again: func(w *crashWorld, heard string) {
			if heard != "250" {
				w.mustArrive(w.envelopeOf(bob), "posta-certificata@alfa.example", bob)
			}
		},
		end: copiesOnce,
		steps: []matrixStep{
			{"spool the body", written, 1, [4]string{"-; nothing; 1", "-; nothing; 1", "4xx; nothing; 1", "4xx; nothing; 1"}},
			{"take-charge receipt: sync the body", synced, 1, [4]string{"-; nothing; 1", "-; nothing; 1", "4xx; nothing; 1", "4xx; nothing; 1"}},
			{"take-charge receipt: BEGIN", sqlBegin, 1, [4]string{"-; nothing; 1", "-; nothing; 1", "4xx; nothing; 1", "4xx; nothing; 1"}},
			{"take-charge receipt: rows", sqlRows, 1, [4]string{"-; nothing; 1", "-; nothing; 1", "4xx; nothing; 1", "4xx; nothing; 1"}},
			{"take-charge receipt: COMMIT", sqlCommit, 1, [4]string{"-; nothing; 1", "-; taken in charge; 1", "4xx; nothing; 1", "250; taken in charge, delivered; 1"}},
			{"the mailbox store takes it", stepStore, 1, [4]string{"-; taken in charge; 1", "-; taken in charge; 2", "4xx; taken in charge; 1", "4xx; taken in charge; 2"}},
			{"delivery receipt: sync the body", stepStore + then + synced, 1, [4]string{"-; taken in charge; 2", "-; taken in charge; 2", "4xx; taken in charge; 2", "4xx; taken in charge; 2"}},
			{"delivery receipt: name the body", stepStore + then + named, 1, [4]string{"-; taken in charge; 2", "-; taken in charge; 2", "4xx; taken in charge; 2", "4xx; taken in charge; 2"}},
			{"delivery receipt: sync the name", stepStore + then + nameSync, 1, [4]string{"-; taken in charge; 2", "-; taken in charge; 2", "4xx; taken in charge; 2", "4xx; taken in charge; 2"}},
			{"delivery receipt: BEGIN", sqlBegin, 2, [4]string{"-; taken in charge; 2", "-; taken in charge; 2", "4xx; taken in charge; 2", "4xx; taken in charge; 2"}},
			{"delivery receipt: rows", sqlRows, 2, [4]string{"-; taken in charge; 2", "-; taken in charge; 2", "4xx; taken in charge; 2", "4xx; taken in charge; 2"}},
			{"delivery receipt: COMMIT", sqlCommit, 2, [4]string{"-; taken in charge; 2", "-; taken in charge, delivered; 1", "4xx; taken in charge; 2", "250; taken in charge, delivered; 1"}},
			{"LMTP says 250", stepReport, 1, [4]string{"-; taken in charge, delivered; 1", "250; taken in charge, delivered; 1", "-; taken in charge, delivered; 1", ""}},
		},
	},
	{
		name: "Straight delivery to a user of ours", doc: "what is certified, and where the envelope is, after the restart; copies in the mailbox in the end. Both receipts are there once in every cell",
		of: alfa,
		setup: func(w *crashWorld) {
			w.mustSubmit(anna)
			w.discardOutbox()
		},
		run:   func(w *crashWorld) string { w.send(true); return "" },
		after: func(w *crashWorld) string { return receiptState(w) + "; " + outboxState(w) },
		again: func(w *crashWorld, _ string) {
			sendRest(w, true)
			for _, text := range w.all(&w.mta) { // the MTA brings what did not go straight
				w.mustArrive([]byte(text), "posta-certificata@alfa.example", anna)
			}
		},
		end: copiesOnce,
		steps: []matrixStep{
			{"spool the body", written, 1, [4]string{"nothing; in the outbox; 1", "nothing; in the outbox; 1", "nothing; gone; 1", "nothing; gone; 1"}},
			{"take-charge receipt: BEGIN", sqlBegin, 1, [4]string{"nothing; in the outbox; 1", "nothing; in the outbox; 1", "nothing; gone; 1", "nothing; gone; 1"}},
			{"take-charge receipt: rows", sqlRows, 1, [4]string{"nothing; in the outbox; 1", "nothing; in the outbox; 1", "nothing; gone; 1", "nothing; gone; 1"}},
			{"take-charge receipt: COMMIT", sqlCommit, 1, [4]string{"nothing; in the outbox; 1", "taken in charge; in the outbox; 1", "nothing; gone; 1", "taken in charge, delivered; gone; 1"}},
			{"the mailbox store takes it", stepStore, 1, [4]string{"taken in charge; in the outbox; 1", "taken in charge; in the outbox; 2", "taken in charge; gone; 1", "taken in charge; gone; 2"}},
			{"delivery receipt: BEGIN", sqlBegin, 2, [4]string{"taken in charge; in the outbox; 2", "taken in charge; in the outbox; 2", "taken in charge; gone; 2", "taken in charge; gone; 2"}},
			{"delivery receipt: rows", sqlRows, 2, [4]string{"taken in charge; in the outbox; 2", "taken in charge; in the outbox; 2", "taken in charge; gone; 2", "taken in charge; gone; 2"}},
			{"delivery receipt: COMMIT", sqlCommit, 2, [4]string{"taken in charge; in the outbox; 2", "taken in charge, delivered; in the outbox; 1", "taken in charge; gone; 2", "taken in charge, delivered; gone; 1"}},
			{"BEGIN of the mark", takeBegin, 1, [4]string{"taken in charge, delivered; in the outbox; 1", "taken in charge, delivered; in the outbox; 1", "taken in charge, delivered; gone; 1", "taken in charge, delivered; gone; 1"}},
			{"COMMIT of the mark", takeEnd, 1, [4]string{"taken in charge, delivered; in the outbox; 1", "taken in charge, delivered; gone; 1", "taken in charge, delivered; gone; 1", "taken in charge, delivered; gone; 1"}},
			{"remove the body", takeFiles, 1, [4]string{"taken in charge, delivered; gone; 1", "taken in charge, delivered; gone; 1", "taken in charge, delivered; gone; 1", "taken in charge, delivered; gone; 1"}},
		},
	},
	{
		name: "Arrival of a receipt", doc: "what the MTA hears; what is registered after the restart; copies in the mailbox in the end. Its arrival is registered once, and the ledger has one outcome, in every cell",
		of: alfa,
		setup: func(w *crashWorld) {
			w.mustSubmit(bob)
			w.receipt = w.deliveryReceipt(bob)
		},
		run: func(w *crashWorld) string {
			return w.arrive(w.receipt, "posta-certificata@beta.example", "alice@alfa.example")
		},
		after: func(w *crashWorld) string {
			return certified1(w, pec.Kind(logstore.EntryReceived), "nothing", "arrived")
		},
		again: func(w *crashWorld, heard string) {
			if heard != "250" {
				w.mustArrive(w.receipt, "posta-certificata@beta.example", "alice@alfa.example")
			}
		},
		end: receivedOnce,
		steps: []matrixStep{
			{"spool the body", written, 1, [4]string{"-; nothing; 1", "-; nothing; 1", "4xx; nothing; 1", "4xx; nothing; 1"}},
			{"the mailbox store takes it", stepStore, 1, [4]string{"-; nothing; 1", "-; nothing; 2", "4xx; arrived; 1", "4xx; arrived; 2"}},
			{"BEGIN", sqlBegin, 1, [4]string{"-; nothing; 2", "-; nothing; 2", "4xx; nothing; 2", "4xx; nothing; 2"}},
			{"rows", sqlRows, 1, [4]string{"-; nothing; 2", "-; nothing; 2", "4xx; nothing; 2", "4xx; nothing; 2"}},
			{"COMMIT", sqlCommit, 1, [4]string{"-; nothing; 2", "-; arrived; 1", "4xx; nothing; 2", "250; arrived; 1"}},
			{"LMTP says 250", stepReport, 1, [4]string{"-; arrived; 1", "250; arrived; 1", "-; arrived; 1", ""}},
		},
	},
	{
		name: "Twelve hours of silence", doc: "what is certified after the restart; notices in the end",
		of: alfa,
		setup: func(w *crashWorld) {
			w.mustSubmit(bob)
			w.ahead += 12*time.Hour + time.Minute
		},
		run:   func(w *crashWorld) string { _ = w.clerk().Expire(context.Background()); return "" },
		after: func(w *crashWorld) string { return certified1(w, pec.KindTimeout, "nothing", "notice") },
		again: func(w *crashWorld, _ string) {
			for range 2 {
				if err := w.clerk().Expire(context.Background()); err != nil {
					w.t.Error(err)
				}
			}
		},
		end: func(w *crashWorld) string { return fmt.Sprint(w.entries(logstore.EntryType(pec.KindTimeout))) },
		steps: []matrixStep{
			{"BEGIN", sqlBegin, 1, [4]string{"nothing; 1", "nothing; 1", "nothing; 1", "nothing; 1"}},
			{"rows", sqlRows, 1, [4]string{"nothing; 1", "nothing; 1", "nothing; 1", "nothing; 1"}},
			{"COMMIT", sqlCommit, 1, [4]string{"nothing; 1", "notice; 1", "nothing; 1", "notice; 1"}},
		},
	},
}

// TestCrashMatrix breaks each step of each way, done or not, told or by the death
// of the process, and wants what the table says.
func TestCrashMatrix(t *testing.T) {
	world := pointstest.New(t)
	for _, way := range matrix {
		base := newCrashWorld(t, world, way.of(world))
		way.setup(base)
		base.close()
		for _, step := range way.steps {
			for i, m := range manners {
				if impossible(step.step, i) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", way.name, step.doc, m.doc), func(t *testing.T) {
					t.Parallel()
					if got := runCell(t, base, way, step, m.persisted, m.reported); got != step.cells[i] {
						t.Errorf("%q, the table says %q", got, step.cells[i])
					}
				})
			}
		}
	}
}

// TestCrashMatrixWhole: no operation of the store is left out. The last step is
// no operation: the outcome is known, and nobody was told.
func TestCrashMatrixWhole(t *testing.T) {
	have := map[string]bool{string(logstore.StepSettled): true}
	for _, way := range matrix {
		for _, s := range way.steps {
			have[s.step] = true
		}
	}
	for _, s := range logstore.Steps() {
		if !have[string(s)] {
			t.Errorf("nothing breaks at %s", s)
		}
	}
}

// impossible cells: who is told that a report failed did not get it.
func impossible(step string, manner int) bool { return step == stepReport && manner == 3 }

func runCell(t *testing.T, base *crashWorld, way matrixWay, s matrixStep, persisted, reported bool) string {
	w := base.again(t)
	w.fault.arm(s.step, s.nth, persisted, reported)
	heard := way.run(w)
	hit, dead := w.fault.happened()
	if !hit || dead == reported {
		t.Fatalf("hit %v, dead %v", hit, dead)
	}
	w.restart()
	w.sound()
	after := way.after(w)
	way.again(w, heard)
	w.sound()
	words := []string{heard, after, way.end(w)}
	if heard == "" {
		words = words[1:]
	}
	return strings.Join(words, "; ")
}

// TestCrashMatrixPage holds docs/reliability.md against the table.
func TestCrashMatrixPage(t *testing.T) {
	const file, begin, end = "../../docs/reliability.md", "<!-- crash matrix: go test ./cmd/pecd -run TestCrashMatrixPage -update-matrix -->\n", "<!-- end of the crash matrix -->\n"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), begin)
	old, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("the page has no place for the table")
	}
	now := renderMatrix()
	switch {
	case *updateMatrix:
		if err := os.WriteFile(file, []byte(head+begin+now+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	case old != now:
		t.Errorf("%s does not show the table; go test ./cmd/pecd -run TestCrashMatrixPage -update-matrix writes it", file)
	}
}

func renderMatrix() string {
	var b strings.Builder
	for _, way := range matrix {
		fmt.Fprintf(&b, "\n**%s** (%s)\n\n| step |", way.name, way.doc)
		for _, m := range manners {
			fmt.Fprintf(&b, " %s |", m.doc)
		}
		b.WriteString("\n|---|---|---|---|---|\n")
		for _, s := range way.steps {
			fmt.Fprintf(&b, "| %s | %s |\n", s.doc, strings.Join(s.cells[:], " | "))
		}
	}
	b.WriteString("\n")
	return b.String()
}

// sound wants a register that nothing was lost from.
func (w *crashWorld) sound() {
	w.t.Helper()
	res, err := w.store.Verify(context.Background(), logstore.VerifyOptions{})
	if err != nil || !res.Sound() {
		w.t.Errorf("the register is not sound: %v %v", res.Broken, err)
	}
}

func (w *crashWorld) mustSubmit(to string) {
	w.t.Helper()
	if heard := w.submit(fmt.Sprintf(matrixMessage, to), to); heard != "250" {
		w.t.Fatalf("the submission heard %s", heard)
	}
}

// mustArrive delivers until it hears 250: the MTA repeats what is put off.
func (w *crashWorld) mustArrive(raw []byte, from, to string) {
	w.t.Helper()
	if heard := w.arrive(raw, from, to); heard != "250" {
		w.t.Errorf("the repeat heard %s", heard)
	}
}

// envelopeOf is an envelope by Alfa, the same each time.
func (w *crashWorld) envelopeOf(to string) []byte {
	w.t.Helper()
	if w.envelope == nil {
		m, err := message.Read(message.Bytes(fmt.Sprintf(matrixMessage, to)))
		if err != nil {
			w.t.Fatal(err)
		}
		d, err := w.Alfa.Issuer.Transport(w.event(to), m, message.Facts{}, rand.Reader)
		w.envelope = signed(w.t, w.Alfa, d, err)
	}
	return w.envelope
}

func (w *crashWorld) event(to string) pec.Event {
	return pec.Event{At: pointstest.At, Identifier: "20261122x@alfa.example", MsgID: "<c1@alfa.example>", Sender: "alice@alfa.example",
		Recipients: []pec.Recipient{{Address: pec.Address(to), Type: pec.Certified}}, Subject: "Offerta", Receipt: pec.Complete, Error: pec.NoError}
}

// deliveryReceipt is Beta's about the message in the outbox.
func (w *crashWorld) deliveryReceipt(to string) []byte {
	w.t.Helper()
	ev := w.event(to)
	ev.Identifier = pec.Identifier(strings.Trim(w.outbox(pec.KindTransport)[0].MessageID, "<>"))
	ev.Recipient, ev.Receipt = pec.Address(to), pec.Concise
	d, err := w.Beta.Issuer.Delivery(ev, nil, false, rand.Reader)
	return signed(w.t, w.Beta, d, err)
}

// certified1 says whether there is an entry of a kind; more than one is only for
// what was committed under two identifiers.
func certified1(w *crashWorld, kind pec.Kind, none, one string) string {
	switch n := w.entries(logstore.EntryType(kind)); n {
	case 0:
		return none
	case 1:
		return one
	default:
		return fmt.Sprint(n)
	}
}

// receiptState wants nobody certified to have a message that he has not.
func receiptState(w *crashWorld) string {
	if w.entries(logstore.EntryType(pec.KindDelivery)) > 0 && w.count(&w.mailbox) == 0 {
		w.t.Error("certified as delivered, and not in the mailbox")
	}
	return certified1(w, pec.KindTakeCharge, "nothing", "taken in charge") + strings.Replace(certified1(w, pec.KindDelivery, "", ", delivered"), "nothing", "", 1)
}

func outboxState(w *crashWorld) string {
	if len(w.outbox(pec.KindTransport)) > 0 {
		return "in the outbox"
	}
	return "gone"
}

func sendRest(w *crashWorld, direct bool) {
	if len(w.outbox(pec.KindTransport)) > 0 {
		w.send(direct)
	}
}

// copiesOnce counts the copies, and wants each receipt once.
func copiesOnce(w *crashWorld) string {
	for _, k := range []pec.Kind{pec.KindTakeCharge, pec.KindDelivery} {
		if n, sent := w.entries(logstore.EntryType(k)), len(w.outbox(k)); n != 1 || sent != 1 {
			w.t.Errorf("%s: %d times in the register, %d times sent", k, n, sent)
		}
	}
	if n := w.entries(logstore.EntryType(pec.KindNonDelivery)); n != 0 {
		w.t.Errorf("%d notices of non-delivery", n)
	}
	return fmt.Sprint(w.count(&w.mailbox))
}

// receivedOnce counts the copies of a receipt, and wants it registered once.
func receivedOnce(w *crashWorld) string {
	for _, k := range []logstore.EntryType{logstore.EntryReceived, logstore.EntryDelivered} {
		if n := w.entries(k); n != 1 {
			w.t.Errorf("%d entries %s", n, k)
		}
	}
	id := pec.Identifier(strings.Trim(w.outbox(pec.KindTransport)[0].MessageID, "<>"))
	rows, err := w.store.Awaited(context.Background(), id)
	if err != nil || len(rows) != 1 || rows[0].Outcome != pec.KindDelivery {
		w.t.Errorf("ledger: %+v, %v", rows, err)
	}
	return fmt.Sprint(w.count(&w.mailbox))
}
