package logstore_test

import (
	"context"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/storetest"
	"pecd/pec"
)

// A day is a store whose clocks are moved: hours by the clock that is shown, and by the
// one that does not jump.
type day struct {
	store  *logstore.SQLite
	at     time.Duration
	steady time.Duration
}

// wait lets time pass by both clocks.
func (d *day) wait(hours float64) {
	by := time.Duration(hours * float64(time.Hour))
	d.at, d.steady = d.at+by, d.steady+by
}

// set sets the clock that is shown.
func (d *day) set(hours int) { d.at = time.Duration(hours) * time.Hour }

func (d *day) open(t *testing.T, dir string, elapsed bool) {
	t.Helper()
	o := logstore.Options{Dir: dir}
	if elapsed {
		o.Elapsed = func() time.Duration { return d.steady }
	}
	d.store = open(t, o)
}

func keyOfDay(id pec.Identifier) logstore.Key { return logstore.Key{Kind: "k", Identifier: id} }

// send has an answer about id awaited from now on.
func (d *day) send(t *testing.T, id pec.Identifier) {
	t.Helper()
	mustCommit(t, d.store, logstore.Tx{At: storetest.At.Add(d.at), Acts: []logstore.Act{{
		Entry: logstore.Entry{Type: "prova", Identifier: id}, Keys: []logstore.Key{keyOfDay(id)}, Await: []pec.Address{"bob@beta.example"}}}})
}

// want expects Overdue and LongIssued to say of id that twelve hours are over, or not.
func (d *day) want(t *testing.T, id pec.Identifier, over bool) {
	t.Helper()
	const term = 12 * time.Hour
	now, overdue := storetest.At.Add(d.at), false
	rows, err := d.store.Overdue(context.Background(), now, term, false, 10)
	for _, r := range rows {
		overdue = overdue || r.Identifier == id
	}
	issued, issuedErr := d.store.LongIssued(context.Background(), []logstore.Key{keyOfDay(id)}, now, term)
	if err != nil || issuedErr != nil || overdue != over || issued[0] != over {
		t.Errorf("%s at %v, steady %v: overdue %v (%v), long issued %v (%v), want %v", id, d.at, d.steady, overdue, err, issued, issuedErr, over)
	}
}

// TestAge: a term is over when it is, whatever the clock showed when it began.
func TestAge(t *testing.T) {
	for name, test := range map[string]struct {
		elapsed bool
		run     func(t *testing.T, d *day)
	}{
		"as it should be": {true, func(t *testing.T, d *day) {
			d.send(t, "b")
			d.wait(11.99)
			d.send(t, "c")
			d.want(t, "b", false)
			d.wait(0.01)
			d.want(t, "b", true)
			d.want(t, "c", false)
		}},
		"behind, an entry bears it out": {false, func(t *testing.T, d *day) {
			d.set(40)
			d.send(t, "a")
			d.set(10)
			d.send(t, "b")
			d.set(41)
			d.want(t, "b", false)
			d.set(52)
			d.want(t, "b", true)
		}},
		"behind, nothing but the steady clock": {true, func(t *testing.T, d *day) {
			d.send(t, "b")
			d.set(40)
			d.want(t, "b", false)
			d.wait(11.9)
			d.want(t, "b", false)
			d.wait(0.1)
			d.want(t, "b", true)
		}},
		"behind, long after the start, and nothing happened": {true, func(t *testing.T, d *day) {
			d.set(100)
			d.wait(30)
			d.set(80)
			d.send(t, "b")
			d.set(130)
			d.want(t, "b", false)
			d.wait(11.9)
			d.want(t, "b", false)
			d.wait(0.1)
			d.want(t, "b", true)
		}},
		"behind, days after the start": {true, func(t *testing.T, d *day) {
			for range 100 {
				d.wait(1)
				d.send(t, pec.Identifier("x"+d.at.String()))
			}
			d.set(10)
			d.send(t, "b")
			d.set(101)
			d.want(t, "b", false)
			d.wait(12)
			d.want(t, "b", true)
		}},
		"ahead by days": {true, func(t *testing.T, d *day) {
			d.set(100)
			d.send(t, "b")
			d.set(0)
			d.wait(0.1)
			d.want(t, "b", false) // it counts from here on
			d.wait(11.9)
			d.want(t, "b", false)
			d.wait(0.1)
			d.want(t, "b", true)
		}},
		"ahead, without a steady clock": {false, func(t *testing.T, d *day) {
			d.set(100)
			d.send(t, "b")
			d.set(90)
			d.want(t, "b", false)
			d.set(112)
			d.want(t, "b", true)
		}},
		"a date in the future bears nothing out": {false, func(t *testing.T, d *day) {
			d.set(100)
			d.send(t, "a")
			d.set(0)
			d.send(t, "b")
			d.wait(12)
			d.want(t, "b", true)
		}},
		"when it has come, for a term at most": {false, func(t *testing.T, d *day) {
			d.set(11)
			d.send(t, "a")
			d.set(0)
			d.send(t, "b")
			d.wait(12)
			d.want(t, "b", false)
			d.wait(11)
			d.want(t, "b", true)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := &day{}
			d.open(t, t.TempDir(), test.elapsed)
			defer func() { closeStore(t, d.store) }()
			test.run(t, d)
		})
	}
}

// TestAgeRestart: what an earlier process wrote by a clock that was behind is no older
// than what the register had before. Of a store that another has open, a reader knows as
// much.
func TestAgeRestart(t *testing.T) {
	dir := t.TempDir()
	d := &day{}
	d.open(t, dir, true)
	d.set(40)
	d.send(t, "a")
	d.set(10)
	d.send(t, "b")
	closeStore(t, d.store)
	d.open(t, dir, true)
	defer func() { closeStore(t, d.store) }()
	d.set(41)
	d.want(t, "b", false)
	r, err := logstore.OpenReadOnly(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if rows, err := r.Overdue(t.Context(), storetest.At.Add(d.at), 12*time.Hour, false, 10); err != nil || len(rows) != 0 {
		t.Errorf("to a reader is overdue: %+v, %v", rows, err)
	}
	d.wait(11.1)
	d.want(t, "b", true)
}

// TestAgeOfNoEntry: a row whose entry is gone, or was never there, is judged by its date.
func TestAgeOfNoEntry(t *testing.T) {
	dir := t.TempDir()
	s := open(t, logstore.Options{Dir: dir, Elapsed: func() time.Duration { return 0 }})
	defer closeStore(t, s)
	fillLedger(t, dir, 1)
	if rows, err := s.Overdue(t.Context(), storetest.At.Add(12*time.Hour), 12*time.Hour, true, 10); err != nil || len(rows) != 1 {
		t.Errorf("%+v, %v", rows, err)
	}
}
