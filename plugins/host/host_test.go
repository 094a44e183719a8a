package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"pecd/pec"
	"pecd/pec/message"
	"pecd/points"
)

// binary is the misbehaving plugin, built once.
var binary string

func TestMain(m *testing.M) {
	LaunchIfAsked()
	if os.Getenv(envVictim) != "" {
		victim()
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pecd-host")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "plugin")
	if out, err := exec.Command("go", "build", "-o", binary, "./testdata/plugin").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "the plugin cannot be built: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// named is the plugin under another name.
func named(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bin")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Link(binary, filepath.Join(dir, name))); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// record is a log and what Observe heard.
type record struct {
	mu       sync.Mutex
	log      bytes.Buffer
	outcomes []string
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(b)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

func (r *record) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log.Reset()
}

func (r *record) observe(plugin, outcome string, _ time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcomes = append(r.outcomes, plugin+" "+outcome)
}

func (r *record) observed() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.outcomes, ", ")
}

func options(t testing.TB) (Options, *record) {
	t.Helper()
	r := &record{}
	root := t.TempDir()
	o := Options{Dir: filepath.Join(root, "s"), Messages: filepath.Join(root, "messages"), State: filepath.Join(root, "state"),
		Log: slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug})), Observe: r.observe, Now: time.Now,
		BackOff: 10 * time.Millisecond, MaxBackOff: 100 * time.Millisecond, StartTimeout: 20 * time.Second, Probe: time.Hour}
	for _, d := range []string{o.Dir, o.Messages, o.State} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return o, r
}

func limit(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// start starts a host with specs and closes it with the test.
func start(t testing.TB, o Options, specs ...Spec) *Host {
	t.Helper()
	h, err := Start(limit(t), specs, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return h
}

func spec(mode string) Spec {
	return Spec{Name: "check", Path: binary, Table: map[string]any{"mode": mode}, Timeout: 10 * time.Second}
}

// fileSource is a message in a file, as the store has it.
type fileSource struct {
	*os.File
	n int64
}

func (f fileSource) Size() int64          { return f.n }
func (f fileSource) Path() (string, bool) { return f.File.Name(), true }

// inFile puts text in a file of dir.
func inFile(t testing.TB, dir, text string) fileSource {
	t.Helper()
	name := filepath.Join(dir, "body")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return fileSource{f, int64(len(text))}
}

func question(src message.Source) Question {
	return Question{Sender: "anna@uno.example", Recipients: []pec.Recipient{{Address: "bruno@due.example", Type: pec.Certified}},
		Source: src, Range: message.Range{Len: src.Size()}}
}

func small(mode string) Question {
	q := question(message.Bytes("Subject: prova\r\n\r\nciao\r\n"))
	if mode != "" {
		q.Login = "mode:" + mode
	}
	return q
}

// ask asks the one check about q.
func ask(t testing.TB, h *Host, q Question) points.Finding {
	t.Helper()
	list := h.Check(limit(t), points.Submission, q)
	if len(list) != 1 || list[0].Check != "check" {
		t.Fatalf("findings %+v, want one of the check", list)
	}
	return list[0]
}

// until waits for ok, which something under way makes true.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

func TestCheck(t *testing.T) {
	o, r := options(t)
	h := start(t, o, spec("clean"))
	for _, c := range []struct {
		mode, outcome string
		want          points.Finding
	}{
		{"clean", "clean", points.Finding{Check: "check", Says: points.Clean}},
		{"refuse", "refused", points.Finding{Check: "check", Says: points.Refused, Reason: points.Reason{Cause: points.Policy, Italian: "non si puo'", English: "it is forbidden"}}},
		{"infected", "infected", points.Finding{Check: "check", Says: points.Infected, Virus: "Eicar-Test"}},
		{"error", "unavailable", points.Finding{Check: "check"}},
		{"panic", "error", points.Finding{Check: "check"}},
		{"nonsense", "nonsense", points.Finding{Check: "check"}},
		{"endless", "nonsense", points.Finding{Check: "check"}},
		{"print", "clean", points.Finding{Check: "check", Says: points.Clean}},
	} {
		if got := ask(t, h, small(c.mode)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.mode, got, c.want)
		}
		if !strings.HasSuffix(r.observed(), "check "+c.outcome) {
			t.Errorf("%s: observed %s, want %s", c.mode, r.observed(), c.outcome)
		}
	}
	if st := h.Status()[0]; st.State != Running || st.Restarts != 0 || st.Calls != 8 || st.Failures != 3 || st.P99 <= 0 || st.Mean <= 0 || st.Since.IsZero() {
		t.Errorf("status %+v", st)
	}
	for _, want := range []string{"larger than max", "the scanner is away", "at the disco", "plugin=check", "not for you"} {
		until(t, want+" in the log", func() bool { return strings.Contains(r.String(), want) })
	}
}

func TestStages(t *testing.T) {
	o, _ := options(t)
	h := start(t, o, spec("clean"))
	if got := h.Check(limit(t), points.Delivery, small("")); got != nil || h.Checks(points.Delivery) || !h.Checks(points.Incoming) {
		t.Errorf("asked at a stage that it is not for: %v", got)
	}
}

// TestOrder: after a refusal the others are still asked, after a virus or doubt
// not.
func TestOrder(t *testing.T) {
	o, _ := options(t)
	second := spec("clean")
	second.Name = "second"
	h := start(t, o, spec("clean"), second)
	for mode, want := range map[string]int{"clean": 2, "refuse": 2, "infected": 1, "error": 1} {
		list := h.Check(limit(t), points.Incoming, small(mode))
		if len(list) != want || list[0].Check != "check" {
			t.Errorf("%s: %+v, want %d", mode, list, want)
		}
	}
}

// TestBodies: a message reaches the plugin whole, however it lies; nothing stays
// behind.
func TestBodies(t *testing.T) {
	o, _ := options(t)
	h := start(t, o, spec("sum"))
	long := "Subject: prova\r\n\r\n" + strings.Repeat("ciao ciao ciao\r\n", 100_000) + "fine"
	dir := filepath.Dir(o.Messages)
	for name, q := range map[string]Question{
		"memory": question(message.Bytes(long)),
		"file":   question(inFile(t, dir, long)),
		"range": {Sender: "anna@uno.example", Source: inFile(t, t.TempDir(), "before"+long+"after"),
			Range: message.Range{Off: 6, Len: int64(len(long))}},
		"pieces":      question(message.Content{{Text: []byte(long[:1000])}, {Text: []byte(long[1000:])}}),
		"filesystems": question(inFile(t, elsewhere(t), long)),
	} {
		want := fmt.Sprintf("submission %d %d %q %q prova anna@uno.example", len(long), len(long), "Subj", "fine")
		if got := ask(t, h, q); got.Reason.English != want {
			t.Errorf("%s: %q, want %q", name, got.Reason.English, want)
		}
	}
	if left, err := filepath.Glob(filepath.Join(o.Messages, "to-check", "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// elsewhere is a directory on another file system than the tests' own.
func elsewhere(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pecd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestCrash(t *testing.T) {
	o, r := options(t)
	h := start(t, o, spec("clean"))
	pid := h.Status()[0].Pid
	var wg sync.WaitGroup
	for _, mode := range []string{"slow", "slow", "slow", "crash"} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			begun := time.Now()
			if f := h.Check(limit(t), points.Submission, small(mode))[0]; f.Says != points.Unavailable {
				t.Errorf("%s: %+v", mode, f)
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("a call under way failed only after %v", took)
			}
		}()
	}
	wg.Wait()
	until(t, "the restart", func() bool { return h.Status()[0].Restarts == 1 && h.Status()[0].State == Running })
	st := h.Status()[0]
	if st.Pid == pid || !strings.Contains(r.String(), "exit status 4") {
		t.Errorf("status %+v", st)
	}
	if f := ask(t, h, small("clean")); f.Says != points.Clean {
		t.Errorf("after the restart: %+v", f)
	}
}

// TestHung: a plugin that misses its deadlines is killed, even one that is
// stopped; one that listens no more too.
func TestHung(t *testing.T) {
	for _, mode := range []string{"hang", "stopped", "become"} {
		t.Run(mode, func(t *testing.T) {
			o, r := options(t)
			s := spec("clean")
			s.Timeout = 100 * time.Millisecond
			h := start(t, o, s)
			pid := h.Status()[0].Pid
			for range maxStrikes {
				if f := ask(t, h, small(mode)); f.Says != points.Unavailable {
					t.Errorf("%+v", f)
				}
			}
			if mode != "become" && !strings.Contains(r.observed(), "check timeout, check timeout, check timeout") {
				t.Errorf("observed %s", r.observed())
			}
			until(t, "the restart", func() bool { return h.Status()[0].Restarts == 1 && h.Status()[0].State == Running })
			if st := h.Status()[0]; st.Pid == pid || !strings.Contains(st.LastError, "3 times in a row") {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// TestHungWhileProbed: that the rest of a plugin works is no answer to its calls.
func TestHungWhileProbed(t *testing.T) {
	o, _ := options(t)
	h := start(t, o, spec("clean"))
	p := h.plugins[0]
	for i := range maxStrikes {
		session := p.current()
		// The timeout is also the probe's, which is to be answered on a busy machine too.
		p.spec.Timeout = 100 * time.Millisecond
		ask(t, h, small("hang"))
		if i == maxStrikes-1 {
			break // it is started again now
		}
		p.spec.Timeout = 10 * time.Second
		p.probe(session)
		p.mu.Lock()
		misses := p.misses
		p.mu.Unlock()
		if misses != 0 {
			t.Fatal("the probe was not answered")
		}
	}
	until(t, "the restart", func() bool { return h.Status()[0].Restarts == 1 && h.Status()[0].State == Running })
}

// TestProbeEnds: a plugin that is to end is not waited for because it was asked how
// it is.
func TestProbeEnds(t *testing.T) {
	o, _ := options(t)
	h := start(t, o, spec("clean"))
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	h.Check(ctx, points.Submission, small("stopped"))
	other := newSupervised(h, spec("clean").complete())
	other.session = h.plugins[0].current()
	other.stop()
	begun := time.Now()
	other.probe(other.session)
	if took := time.Since(begun); took > other.spec.Timeout/2 || other.misses != 0 {
		t.Errorf("it took %v, and %d are held against it", took, other.misses)
	}
}

// TestProbe: a plugin that nobody asks is found hung all the same.
func TestProbe(t *testing.T) {
	o, _ := options(t)
	o.Probe = 50 * time.Millisecond
	s := spec("clean")
	s.Timeout = 200 * time.Millisecond
	h := start(t, o, s)
	ask(t, h, small("stopped")) // the first missed deadline; nobody asks any more
	until(t, "the restart", func() bool { return h.Status()[0].Restarts == 1 && h.Status()[0].State == Running })
	if got, want := h.Status()[0].Description.Engine, fmt.Sprint("pid ", h.Status()[0].Pid); got != want {
		t.Errorf("engine %q, want %q", got, want)
	}
}

// TestAway: while the plugin does not run, calls fail at once.
func TestAway(t *testing.T) {
	o, r := options(t)
	o.BackOff = time.Hour
	h := start(t, o, spec("clean"))
	ask(t, h, small("crash"))
	until(t, "the end", func() bool { return h.Status()[0].State == BackingOff })
	begun := time.Now()
	if f := ask(t, h, small("clean")); f.Says != points.Unavailable || time.Since(begun) > time.Second {
		t.Errorf("%+v after %v", f, time.Since(begun))
	}
	if !strings.HasSuffix(r.observed(), "check not-running") || h.Status()[0].Pid != 0 {
		t.Errorf("observed %s, status %+v", r.observed(), h.Status()[0])
	}
}

// TestLasting: what does not go away by itself is said, and tried seldom.
func TestLasting(t *testing.T) {
	o, _ := options(t)
	s := spec("clean")
	s.Path = named(t, "plugin")
	h := start(t, o, s)
	if err := os.Remove(s.Path); err != nil {
		t.Fatal(err)
	}
	ask(t, h, small("crash"))
	until(t, "the failure", func() bool { return h.Status()[0].State == Failed })
	if err := os.Link(binary, s.Path); err != nil {
		t.Fatal(err)
	}
	until(t, "the recovery", func() bool { return h.Status()[0].State == Running })
}

func TestCancelled(t *testing.T) {
	o, r := options(t)
	h := start(t, o, spec("clean"))
	for range maxStrikes + 1 {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		if f := h.Check(ctx, points.Submission, small("hang"))[0]; f.Says != points.Unavailable {
			t.Errorf("%+v", f)
		}
		cancel()
	}
	// The caller's haste is not held against the plugin.
	if st := h.Status()[0]; st.Failures != 0 || st.State != Running || !strings.HasSuffix(r.observed(), "cancelled") {
		t.Errorf("status %+v, observed %s", st, r.observed())
	}
}

// TestParallel: calls run at the same time, up to the limit; those over it wait.
func TestParallel(t *testing.T) {
	o, r := options(t)
	s := spec("clean")
	s.Parallel, s.Timeout = 2, 300*time.Millisecond
	h := start(t, o, s)
	var wg sync.WaitGroup
	for range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			h.Check(limit(t), points.Submission, small("hang"))
		}()
	}
	until(t, "two calls", func() bool { return len(h.plugins[0].slots) == 2 })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if f := h.Check(ctx, points.Submission, small("clean"))[0]; f.Says != points.Unavailable {
		t.Errorf("a third call got through: %+v, observed %s", f, r.observed())
	}
	if f := ask(t, h, small("clean")); f.Says != points.Clean && f.Says != points.Unavailable {
		t.Errorf("%+v", f)
	}
	wg.Wait()
	if f := ask(t, h, small("clean")); f.Says != points.Clean {
		t.Errorf("after them: %+v", f)
	}
}

// TestClose: calls under way are waited for; nothing is left, no process and no
// goroutine, even of plugins that do not want to end.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	o, _ := options(t)
	deaf := spec("deaf")
	deaf.Name = "deaf"
	child := spec("child")
	child.Name = "with-child"
	stopped := spec("clean")
	stopped.Name, stopped.Timeout = "stopped", 100*time.Millisecond
	h, err := Start(limit(t), []Spec{spec("clean"), deaf, child, stopped}, o)
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, st := range h.Status() {
		pids = append(pids, st.Pid)
	}
	nothing := h.newContent(message.Bytes(""), message.Range{}, message.Facts{})
	h.plugins[2].check(limit(t), points.Submission, small(""), nothing)
	h.plugins[3].check(limit(t), points.Submission, small("stopped"), nothing)
	begun := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("the process %d is left", pid)
		}
	}
	if list := h.Check(limit(t), points.Submission, small("")); list[0].Says != points.Unavailable {
		t.Errorf("after Close: %+v", list)
	}
	until(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
	if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}
