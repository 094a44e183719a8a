package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/seal"
	"pecd/pec"
	"pecd/signer/timestamp/timestamptest"
)

// An archivist is a site whose register is years old: three entries a day from 30
// January to 2 February 2022, sealed through 1 February.
type archivist struct {
	*site
	store string
	more  int // days after them, sealed too
	times int // how often the three entries of a day are there
}

func newArchivist(t *testing.T, more, times int) *archivist {
	t.Helper()
	a := &archivist{site: newSite(t), more: more, times: times}
	a.store = filepath.Join(a.dir, "store")
	tsa := timestamptest.New(t, nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		reply, err := tsa.Answer(query)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Write(reply)
	}))
	t.Cleanup(server.Close)
	text, err := os.ReadFile(a.config)
	if err != nil {
		t.Fatal(err)
	}
	anchors := a.write(t, "tsa.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tsa.CA.Certificate.Raw}))
	a.write(t, "pecd.toml", []byte(string(text)+"[seal]\ntsa = [\""+server.URL+"\"]\ntsa_anchors = \""+anchors+"\"\n"))
	now := time.Date(2022, 2, 2+more, 12, 0, 0, 0, time.UTC)
	tsa.Now = func() time.Time { return now }
	a.fill(t, func() time.Time { return now })
	return a
}

func (a *archivist) fill(t *testing.T, now func() time.Time) {
	t.Helper()
	ctx := context.Background()
	store, err := logstore.Open(ctx, logstore.Options{Dir: a.store, Now: now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for day := range 4 + a.more {
		at := time.Date(2022, 1, 30+day, 9, 0, 0, 0, time.UTC)
		tx := logstore.Tx{At: at}
		for range a.times {
			for _, id := range []pec.Identifier{"i1@alfa.example", "i2@alfa.example", "i3@alfa.example"} {
				e := logstore.Entry{At: at, Type: "rifiuto", Identifier: id, Sender: "alice@alfa.example", Recipients: []pec.Recipient{}, SendingProvider: "Alfa PEC S.p.A.", Subject: "Offerta"}
				tx.Acts = append(tx.Acts, logstore.Act{Entry: e})
			}
		}
		if _, err := store.Commit(ctx, tx); err != nil {
			t.Fatal(err)
		}
	}
	in, err := load(ctx, a.config, loading{now: now})
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	sealer, err := in.sealer(store, now, nil)
	if err != nil {
		t.Fatal(err)
	}
	if sealed, err := sealer.Seal(ctx); err != nil || len(sealed) != 3+a.more {
		t.Fatalf("%d days sealed: %v", len(sealed), err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRetention: a month is packed and verified, what is in the package goes after
// its term and no earlier, and the register that is left verifies.
func TestRetention(t *testing.T) {
	a := newArchivist(t, 0, 1)
	pack := filepath.Join(a.dir, "2022-01.tar")
	heard := a.heard(t, 2, 6, 12) // among them the last that goes
	if code, out, errs := pecd("log", "archive", "2022-01", "-o", pack, "--config", a.config); code != 0 || !strings.Contains(out, "entries 1 to 6") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	if code, _, errs := pecd("log", "archive", "2022-02", "-o", filepath.Join(a.dir, "2022-02.tar"), "--config", a.config); code != 1 || !strings.Contains(errs, "not all days") {
		t.Errorf("a month that is not over: exit %d\n%s", code, errs)
	}
	if code, _, errs := pecd("log", "purge", pack, "--months", "12", "--config", a.config); code != 2 || !strings.Contains(errs, "30 months") {
		t.Errorf("before the term: exit %d\n%s", code, errs)
	}
	damaged := a.write(t, "damaged.tar", damage(t, pack))
	if code, _, errs := pecd("log", "purge", damaged, "--config", a.config); code != 1 || !strings.Contains(errs, "damaged.tar") {
		t.Errorf("a damaged package: exit %d\n%s", code, errs)
	}
	if code, out, errs := pecd("log", "purge", pack, "--config", a.config); code != 0 || !strings.Contains(out, "6 entries would go, through 6") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if code, out, errs := pecd("log", "purge", pack, "--apply", "--config", a.config); code != 0 || !strings.Contains(out, "6 entries removed, through 6") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if code, out, errs := pecd("log", "purge", pack, "--apply", "--config", a.config); code != 0 || !strings.Contains(out, "nothing can go") {
		t.Errorf("twice: exit %d\n%s%s", code, out, errs)
	}
	if code, out, errs := pecd("log", "verify", "--config", a.config); code != 0 || !strings.Contains(out, "removed        up to 6, after their term") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if code, out, errs := pecd("log", "check", "--config", a.config); code != 0 || !strings.Contains(out, "0 things wrong") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	for _, seq := range []string{"6", "12"} { // what a witness heard otherwise is told still
		line := regexp.MustCompile(`("seq":` + seq + `,"chain":")....`)
		a.write(t, "store/seals/witness/2022-02-02.jsonl", line.ReplaceAll([]byte(heard), []byte("${1}0000")))
		if code, out, errs := pecd("log", "verify", "--config", a.config); code != 1 || !strings.Contains(out, "heard another chain for entry "+seq) {
			t.Errorf("entry %s: exit %d\n%s%s", seq, code, out, errs)
		}
	}
}

// heard has a witness hear of entries, and returns the file that says so.
func (a *archivist) heard(t *testing.T, entries ...int64) string {
	t.Helper()
	r, err := logstore.OpenReadOnly(t.Context(), a.store)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var lines []byte
	for _, seq := range entries {
		l, err := r.LinkAt(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(seal.Record{Head: seal.Head{Seq: seq, Chain: l.Chain, At: l.At}, Attested: l.At, Kind: seal.KindHTTP, Name: "http://witness.example"})
		if err != nil {
			t.Fatal(err)
		}
		lines = append(append(lines, line...), '\n')
	}
	if err := os.MkdirAll(filepath.Join(a.store, "seals", "witness"), 0o700); err != nil {
		t.Fatal(err)
	}
	a.write(t, "store/seals/witness/2022-02-02.jsonl", lines)
	return string(lines)
}

// TestPurgeBrokenOff: a purge that was broken off goes on when it is repeated, and
// the dry run says how much is left.
func TestPurgeBrokenOff(t *testing.T) {
	a := newArchivist(t, 0, 40)
	pack := filepath.Join(a.dir, "2022-01.tar")
	if code, out, errs := pecd("log", "archive", "2022-01", "-o", pack, "--config", a.config); code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	left := 240 - a.breakOff(t, 240)
	if code, out, errs := pecd("log", "purge", pack, "--config", a.config); code != 0 || !strings.Contains(out, fmt.Sprintf("%d entries would go, through 240", left)) {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if code, out, errs := pecd("log", "purge", pack, "--apply", "--config", a.config); code != 0 || !strings.Contains(out, fmt.Sprintf("%d entries removed, through 240", left)) {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if code, out, errs := pecd("log", "purge", pack, "--apply", "--config", a.config); code != 0 || !strings.Contains(out, "nothing can go") {
		t.Errorf("once more: exit %d\n%s%s", code, out, errs)
	}
}

// TestCheckBesideAPurge: what a purge has named, before the check or while it reads, is no
// fault, whether it is gone yet or not.
func TestCheckBesideAPurge(t *testing.T) {
	a := newArchivist(t, 0, 40)
	if gone := a.breakOff(t, 240); gone >= 239 {
		t.Fatalf("%d entries are gone", gone)
	}
	store, err := logstore.OpenReadOnly(t.Context(), a.store)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	receipt := func(seq int64) logstore.Entry { // which is wrong without its envelope
		return logstore.Entry{Seq: seq, At: time.Date(2022, 2, 1, 9, 0, 0, 0, time.UTC), Type: logstore.EntryType(pec.KindAcceptance), Identifier: "i1@alfa.example"}
	}
	late, early := &storyJudge{store: store}, &storyJudge{store: store} // late looks when it finds a fault
	if moved, err := early.look(t.Context()); err != nil || !moved || early.gone != 240 || early.begins.IsZero() {
		t.Fatalf("%+v, %v", early, err)
	}
	for _, j := range []*storyJudge{late, early} {
		if left, found, err := j.judge(t.Context(), []logstore.Entry{receipt(239), receipt(240)}); err != nil || len(left)+len(found) > 0 {
			t.Errorf("purged: %v, %v, %v", left, found, err)
		}
		if left, found, err := j.judge(t.Context(), []logstore.Entry{receipt(240), receipt(241)}); err != nil || len(left) != 1 || len(found) != 1 || found[0].Explained {
			t.Errorf("purged in part: %v, %v, %v", left, found, err)
		}
	}
}

// breakOff purges through an entry, and is broken off when the first have gone.
func (a *archivist) breakOff(t *testing.T, through int64) (gone int64) {
	t.Helper()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	store, err := logstore.Open(t.Context(), logstore.Options{Dir: a.store, Now: func() time.Time { return now }, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	l, err := store.LinkAt(t.Context(), through)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	gone, err = store.PurgeEntries(ctx, logstore.Purge{First: 1, Through: through, Chain: l.Chain, Before: now, At: now, Proof: []byte("pacchetto"),
		Progress: func(int64, int64) { stop() }})
	if !errors.Is(err, context.Canceled) || gone == 0 || gone == through {
		t.Fatalf("the purge was not broken off: %d, %v", gone, err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return gone
}

// TestPurgeGap: no entry goes that is in none of the packages.
func TestPurgeGap(t *testing.T) {
	a := newArchivist(t, 28, 1) // all of February
	pack := filepath.Join(a.dir, "2022-02.tar")
	if code, out, errs := pecd("log", "archive", "2022-02", "-o", pack, "--config", a.config); code != 0 || !strings.Contains(out, "entries 7 to 90") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	for _, apply := range [][]string{nil, {"--apply"}} {
		args := append([]string{"log", "purge", pack, "--config", a.config}, apply...)
		if code, out, errs := pecd(args...); code != 2 || !strings.Contains(errs, "entries 1 to 6 are in none of these packages") {
			t.Errorf("%v: exit %d\n%s%s", apply, code, out, errs)
		}
	}
}

func damage(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	return data
}

// TestRewritten has somebody rewrite the register who can compute chains: what is
// sealed, or what a witness heard of, is found, and the rest is named as covered by
// nothing.
func TestRewritten(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first int64 // entry that is changed, the chain computed anew from there
		last  int64 // the register is cut after it; 0: it is not
		heads bool
		want  string
		code  int
	}{
		{"untouched", 0, 0, false, "not covered    10 to 12", 0},
		{"start", 1, 0, false, "BROKEN", 1},
		{"middle", 5, 0, false, "BROKEN", 1},
		{"last sealed", 9, 0, false, "BROKEN", 1},
		{"after the last seal", 10, 0, false, "not covered    10 to 12", 0},
		{"after the last seal, but witnessed", 10, 0, true, "BROKEN", 1},
		{"cut in what is sealed", 0, 8, false, "BROKEN", 1},
		{"cut after the last seal", 0, 9, false, "vouched for    up to 9", 0},
		{"cut, but witnessed", 0, 11, true, "BROKEN", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newArchivist(t, 0, 1)
			args := []string{"log", "verify", "--config", a.config}
			if tt.heads {
				args = append(args, "--heads", a.write(t, "witness.log", []byte("Feb  2 12:00:00 log pecd: register of Alfa: "+a.head(t, 12)+"\n")))
			}
			a.rewrite(t, tt.first, tt.last)
			if code, out, errs := pecd(args...); code != tt.code || !strings.Contains(out, tt.want) {
				t.Errorf("exit %d, want %d and %q\n%s%s", code, tt.code, tt.want, out, errs)
			}
		})
	}
	a := newArchivist(t, 0, 1)
	if code, _, errs := pecd("log", "verify", "--config", a.config, "--heads", a.write(t, "other.log", []byte("nothing\n"))); code != 2 || !strings.Contains(errs, "names no head") {
		t.Errorf("a file without heads: exit %d\n%s", code, errs)
	}
}

// head is what a witness hears of an entry.
func (a *archivist) head(t *testing.T, seq int64) string {
	t.Helper()
	r, err := logstore.OpenReadOnly(context.Background(), a.store)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l, err := r.LinkAt(context.Background(), seq)
	if err != nil {
		t.Fatal(err)
	}
	return "seq=12; chain=" + l.Chain.String()
}

// rewrite changes the subject of the entry first, computes the chain anew from there
// on, and cuts the register after last.
func (a *archivist) rewrite(t *testing.T, first, last int64) {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(a.store, "pecd.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	triggers := query(t, db, "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
	for _, tr := range triggers {
		exec1(t, db, "DROP TRIGGER "+tr[0])
	}
	var chain logstore.Digest
	for i, row := range query(t, db, "SELECT record, hex(chain) FROM entry ORDER BY seq") {
		if first > 0 && int64(i+1) >= first {
			record := row[0]
			if int64(i+1) == first {
				record = strings.Replace(record, "Offerta", "Ritiro", 1)
			}
			chain = chain.Next([]byte(record))
			exec1(t, db, "UPDATE entry SET record = ?, chain = ? WHERE seq = ?", record, chain[:], i+1)
			continue
		}
		if err := chain.UnmarshalText([]byte(strings.ToLower(row[1]))); err != nil {
			t.Fatal(err)
		}
	}
	if last > 0 {
		for _, table := range []string{"entry_address", "entry_message", "issued", "entry"} {
			exec1(t, db, "DELETE FROM "+table+" WHERE seq > ?", last)
		}
	}
	for _, tr := range triggers {
		exec1(t, db, tr[1])
	}
}

func query(t *testing.T, db *sql.DB, q string) (list [][2]string) {
	t.Helper()
	rows, err := db.Query(q)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var r [2]string
		if err := rows.Scan(&r[0], &r[1]); err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

func exec1(t *testing.T, db *sql.DB, q string, args ...any) {
	t.Helper()
	if _, err := db.Exec(q, args...); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
}
