package seal

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Witness is somebody outside who hears how far the register is, so that what
// stands in it up to there cannot be rewritten unnoticed.
type Witness interface {
	// Name says who it is, in records and logs: a URL or an address, without secrets.
	Name() string
	// Attest tells it the head. It may be called concurrently and returns when ctx
	// ends.
	Attest(ctx context.Context, h Head) (Proof, error)
}

// A Kind says what a proof is.
type Kind string

// The kinds of witnesses.
const (
	KindTimestamp Kind = "timestamp" // a token over Head.Field: proof by itself
	KindSyslog    Kind = "syslog"    // the message that was sent: the proof is with the receiver
	KindHTTP      Kind = "http"      // what the server answered: the proof is with the server
)

// A Proof is what remains of an attestation here.
type Proof struct {
	Kind Kind
	Data []byte // at most maxProof octets
}

const maxProof = 256 << 10

// A Record is a line of the file of a day's witnesses.
type Record struct {
	Head
	Attested time.Time `json:"attested"` // by our clock
	Kind     Kind      `json:"kind"`
	Name     string    `json:"name"`
	Proof    []byte    `json:"proof"` // in base64
}

// witnessDir is the folder with a file per day: 2026-03-29.jsonl.
const witnessDir = "witness"

// Defaults of WatchOptions.
const (
	DefaultInterval = 15 * time.Minute
	DefaultPatience = time.Minute
)

// WatchOptions say who hears of the register, and when.
type WatchOptions struct {
	Dir       string // that of the seals
	Zone      *time.Location
	Register  Register
	Witnesses []Witness
	Interval  time.Duration // 0: DefaultInterval
	Patience  time.Duration // with each witness; 0: DefaultPatience
	Now       func() time.Time
	Timer     func(time.Duration) <-chan time.Time // for Run; nil: time.After
	Log       *slog.Logger                         // nil discards
}

// A Watch tells witnesses how far the register is, and keeps their proofs. It may
// be used concurrently.
type Watch struct {
	o WatchOptions

	turn   sync.Mutex // held by Attest: one at a time
	mu     sync.Mutex // guards status
	status []WitnessStatus
}

// A WitnessStatus says what a witness heard last.
type WitnessStatus struct {
	Name     string
	Head     Head      // zero: nothing since the start
	Attested time.Time // when it heard it
	Err      error     // why it did not hear the last time; nil if it did
}

// NewWatch returns a watch.
func NewWatch(o WatchOptions) (*Watch, error) {
	if o.Dir == "" || o.Zone == nil || o.Register == nil || len(o.Witnesses) == 0 || o.Now == nil {
		return nil, errors.New("seal: incomplete options of the watch")
	}
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	if o.Timer == nil {
		o.Timer = time.After
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	w := &Watch{o: o}
	for _, witness := range o.Witnesses {
		w.status = append(w.status, WitnessStatus{Name: witness.Name()})
	}
	return w, nil
}

// Status returns what each witness heard last.
func (w *Watch) Status() []WitnessStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.status)
}

// Run lets the witnesses hear at once and then at each interval. It returns when
// ctx ends.
func (w *Watch) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := w.Attest(ctx); err != nil {
			w.o.Log.Error("not all witnesses heard of the register", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-w.o.Timer(w.o.Interval):
		}
	}
}

// Attest tells the head to all witnesses that have not heard it, at the same time,
// and returns when all have answered or were given up. What they gave is durable
// then. The error joins those of all that failed; the others heard.
func (w *Watch) Attest(ctx context.Context) error {
	w.turn.Lock()
	defer w.turn.Unlock()
	link, err := w.o.Register.Head(ctx)
	if err == nil {
		err = errors.Join(makeDir(w.o.Dir), makeDir(filepath.Join(w.o.Dir, witnessDir)))
	}
	if err != nil {
		err = fmt.Errorf("seal: %w", err)
		for i := range w.o.Witnesses {
			w.note(i, nil, err)
		}
		return err
	}
	if link.Seq == 0 { // nothing to hear of, and the folder can be made (again)
		w.clear()
		return nil
	}
	h := HeadOf(link)
	errs := make([]error, len(w.o.Witnesses))
	records := make([]*Record, len(w.o.Witnesses))
	var all sync.WaitGroup
	for i, st := range w.Status() {
		if st.Err == nil && st.Head == h {
			continue
		}
		all.Add(1)
		go func() {
			defer all.Done()
			records[i], errs[i] = w.ask(ctx, w.o.Witnesses[i], h)
		}()
	}
	all.Wait()
	for i, r := range records {
		if r != nil {
			errs[i] = w.keep(r)
		}
		if r != nil || errs[i] != nil {
			w.note(i, r, errs[i])
		}
	}
	return errors.Join(errs...)
}

func (w *Watch) note(i int, r *Record, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := &w.status[i]
	if st.Err = err; err == nil {
		st.Head, st.Attested = r.Head, r.Attested
	}
}

// clear takes back what earlier attempts complained of.
func (w *Watch) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.status {
		w.status[i].Err = nil
	}
}

func (w *Watch) ask(ctx context.Context, witness Witness, h Head) (*Record, error) {
	ctx, cancel := context.WithTimeout(ctx, w.o.Patience)
	defer cancel()
	p, err := witness.Attest(ctx, h)
	if err == nil && len(p.Data) > maxProof {
		err = fmt.Errorf("its proof has more than %d octets", maxProof)
	}
	if err != nil {
		return nil, fmt.Errorf("seal: witness %s: %w", witness.Name(), err)
	}
	return &Record{Head: h, Attested: w.o.Now().UTC(), Kind: p.Kind, Name: witness.Name(), Proof: p.Data}, nil
}

// keep appends r to the file of its day. A line that a crash cut off stays as it
// is: the next one begins behind it.
func (w *Watch) keep(r *Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	dir := filepath.Join(w.o.Dir, witnessDir)
	f, err := os.OpenFile(filepath.Join(dir, DayOf(r.Attested, w.o.Zone).String()+nameRecords), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if size > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, size-1); err != nil {
			return fmt.Errorf("seal: %w", err)
		}
		if last[0] != '\n' {
			line = append([]byte("\n"), line...)
		}
	}
	if _, err = f.Write(append(line, '\n')); err == nil {
		err = f.Sync()
	}
	if err == nil && size == 0 {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	return nil
}

// maxRecord bounds a line of witnesses, in octets.
const maxRecord = 2*maxProof + 16<<10

// witnessFiles returns the names of the files of witnesses, in their order.
func witnessFiles(files fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(files, witnessDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, found := strings.CutSuffix(e.Name(), nameRecords); found {
			if _, err := ParseDay(name); err == nil {
				names = append(names, witnessDir+"/"+e.Name())
			}
		}
	}
	return names, nil
}

// readRecords calls f for each line of a file of witnesses: with its record, or
// with what is wrong with it. A line that a crash cut off is passed over.
func readRecords(files fs.FS, name string, f func(line int, r Record, err error) error) error {
	file, err := files.Open(name)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	defer file.Close()
	s := bufio.NewScanner(file)
	s.Buffer(nil, maxRecord)
	for n := 1; s.Scan(); n++ {
		var r Record
		err := json.Unmarshal(s.Bytes(), &r)
		if err != nil && !bytes.HasSuffix(s.Bytes(), []byte("}")) {
			continue
		}
		if err := f(n, r, err); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("seal: %s: %w", name, err)
	}
	return nil
}

// digest is that of what witnesses stamp.
func (h Head) digest() [sha256.Size]byte { return sha256.Sum256([]byte(h.Field())) }
