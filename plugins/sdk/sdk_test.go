package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pecd/pec/message"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/points"
)

type table struct {
	Max     int
	Names   []string `json:"forbidden_names"`
	Within  Duration
	Inner   struct{ Depth int }
	Ignored string `json:"-"`
	private string //lint:ignore U1000 Decode must pass over it
}

func TestDecode(t *testing.T) {
	c, err := NewConfig(`{"MAX": 7, "forbidden_names": ["a", "b"], "within": "90s", "inner": {"depth": 2}}`, true)
	if err != nil {
		t.Fatal(err)
	}
	got := table{Max: 50, Ignored: "kept"}
	if err := c.Decode(&got); err != nil || got.Max != 7 || len(got.Names) != 2 || time.Duration(got.Within) != 90*time.Second || got.Inner.Depth != 2 || got.Ignored != "kept" {
		t.Errorf("%+v, %v", got, err)
	}
	if !c.Dry() || got.Within.String() != "1m30s" {
		t.Errorf("dry %v, %s", c.Dry(), got.Within)
	}
	empty, err := NewConfig("", false)
	if err != nil {
		t.Fatal(err)
	}
	kept := table{Max: 50}
	if err := empty.Decode(&kept); err != nil || kept.Max != 50 {
		t.Errorf("%+v, %v: a default is lost", kept, err)
	}
}

// TestDecodeProblems: all problems are told at once, each with its setting and
// what to do.
func TestDecodeProblems(t *testing.T) {
	c, err := NewConfig(`{"max": "many", "moon": 1, "within": "soon", "inner": {"deep": 1}, "forbidden_names": [1], "private": "x", "ignored": "x"}`, false)
	if err != nil {
		t.Fatal(err)
	}
	c.keys = []Key{{Name: "max", Type: "integer"}}
	var got table
	list := problems(c.Decode(&got))
	want := []struct{ key, why, fix string }{
		{"forbidden_names", "it holds a number", "[]string"}, {"ignored", "no such setting", "forbidden_names, inner, max, within"}, {"inner", "deep", ""},
		{"max", "it holds a string", "it must be: integer"}, {"moon", "no such setting", "forbidden_names"}, {"private", "no such setting", ""}, {"within", "not a duration such as 90s", ""},
	}
	if len(list) != len(want) {
		t.Fatalf("%d problems, want %d: %v", len(list), len(want), list)
	}
	for i, w := range want {
		if p := list[i]; p.Key != w.key || !strings.Contains(p.Why, w.why) || !strings.Contains(p.Fix, w.fix) {
			t.Errorf("%v, want %v", p, w)
		}
	}
	if err := c.Decode(got); err == nil {
		t.Error("it decoded into no pointer")
	}
	if _, err := NewConfig(`[1]`, false); err == nil {
		t.Error("a list is no table")
	}
}

func TestProblems(t *testing.T) {
	var c Config
	err := errors.Join(c.Problem("max", "too small", "raise it"), errors.Join(errors.New("other"), c.Problem("", strings.Repeat("é\xff", 400), "")))
	list := problems(err)
	if len(list) != 3 || list[0].Key != "max" || list[0].Fix != "raise it" || list[1].Why != "other" || len(list[2].Why) > 500 {
		t.Errorf("%v", list)
	}
	if got := c.Problem("max", "too small", "raise it").Error(); got != "max: too small; raise it" {
		t.Error(got)
	}
}

const text = "Subject: =?utf-8?q?cos=C3=AC?=\r\nTo: b@due.example\r\n\r\nciao\r\n"

// TestMessage: a message reads the same from a file and from the call.
func TestMessage(t *testing.T) {
	name := filepath.Join(t.TempDir(), "m")
	if err := os.WriteFile(name, []byte("before"+text+"after"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := newMessage(&pluginv1.CheckRequest{Stage: pluginv1.Stage_STAGE_INCOMING, Message: &pluginv1.Message{
		Content: &pluginv1.Message_Path{Path: name}, Offset: 6, Size: int64(len(text))}})
	for _, m := range []*Message{file, NewMessage(points.Incoming, []byte(text))} {
		r, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || string(b) != text || r.Size() != m.Size || m.Stage != points.Incoming {
			t.Errorf("%q, %v, size %d, %s", b, err, m.Size, m.Stage)
		}
		if _, err := r.Seek(9, io.SeekStart); err != nil {
			t.Error(err)
		}
		msg, err := message.Read(r)
		if err != nil || msg.Header.Text("Subject") != "così" {
			t.Errorf("%v", err)
		}
		if h, err := m.Header(); err != nil || h.Get("To") != "b@due.example" {
			t.Errorf("%v, %v", h, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, m := range []*pluginv1.Message{nil, {Content: &pluginv1.Message_Path{Path: "/nowhere"}}} {
		if _, err := (&Message{content: m}).Open(); err == nil {
			t.Errorf("%v was opened", m)
		}
	}
}

// TestLog: a line is what go-hclog writes.
func TestLog(t *testing.T) {
	var b bytes.Buffer
	newLog(&b).Warn("slow", "took", 3, slog.Group("g", "msg", "inner"))
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	at, ok := line["@timestamp"].(string)
	if _, err := time.Parse(hclogTime, at); !ok || err != nil || line["@level"] != "warn" || line["@message"] != "slow" || line["took"] != 3.0 {
		t.Errorf("%s, %v", b.Bytes(), err)
	}
}

func example(open func(context.Context, Config) (Service, error)) Plugin {
	return Plugin{Name: "quota", Version: "1.2", About: "counts", Keys: []Key{{"max", "integer", "50", "the most"}}, Open: open}
}

func TestMainByHand(t *testing.T) {
	p := example(nil)
	for _, c := range []struct {
		args      []string
		code      int
		out, errs string
	}{
		{nil, 2, "", "is a plugin of pecd: counts"},
		{[]string{"serve"}, 2, "", "pecd plugin check"},
		{[]string{"describe"}, 0, "max      integer  50       the most", ""},
		{[]string{"describe", "--json"}, 0, `"sdk":"go ` + Version, ""},
	} {
		var out, errs bytes.Buffer
		if code := p.main(c.args, &out, &errs); code != c.code || !strings.Contains(out.String(), c.out) || !strings.Contains(errs.String(), c.errs) || (c.out == "") != (out.Len() == 0) {
			t.Errorf("%q: %d, %q, %q", c.args, code, out.String(), errs.String())
		}
	}
}

func newServer(p Plugin) *server { return &server{plugin: p, log: slog.New(slog.DiscardHandler)} }

func TestServer(t *testing.T) {
	ctx := context.Background()
	closed := 0
	s := newServer(example(func(_ context.Context, c Config) (Service, error) {
		if c.Name() != "q" || c.Dry() || c.Log() == nil {
			t.Errorf("config %+v", c)
		}
		return Check(func(_ context.Context, m *Message) (points.Finding, error) {
			if m.Sender == "" {
				return Unavailable(), errors.New("no sender")
			}
			return Refuse("no", "no"), nil
		}, points.Submission, points.Delivery).WithEngine(func() string { return "v1" }).WithClose(func() error { closed++; return nil }), nil
	}))
	if _, err := (checkServer{server: s}).Check(ctx, &pluginv1.CheckRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("it checks before it is configured: %v", err)
	}
	if r, err := s.Configure(ctx, &pluginv1.ConfigureRequest{Name: "q", Table: []byte("{}")}); err != nil || len(r.GetProblems()) > 0 {
		t.Fatalf("%v, %v", r, err)
	}
	if _, err := s.Configure(ctx, &pluginv1.ConfigureRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("it was configured twice: %v", err)
	}
	d, err := s.Describe(ctx, nil)
	if err != nil || d.GetKind() != pluginv1.Kind_KIND_CHECK || len(d.GetStages()) != 2 || d.GetEngine() != "v1" || d.GetKeys()[0].GetName() != "max" {
		t.Errorf("%v, %v", d, err)
	}
	if r, err := (checkServer{server: s}).Check(ctx, &pluginv1.CheckRequest{}); err != nil || r.GetVerdict() != pluginv1.Verdict_VERDICT_UNAVAILABLE || r.GetDetail() != "no sender" {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := (checkServer{server: s}).Check(ctx, &pluginv1.CheckRequest{Sender: []byte("a")}); err != nil || r.GetVerdict() != pluginv1.Verdict_VERDICT_REFUSED || r.GetReasonItalian() != "no" {
		t.Errorf("%v, %v", r, err)
	}
	for _, err := range []error{second((accessServer{server: s}).Decide(ctx, nil)), second((receptionServer{server: s}).Decide(ctx, nil)), second((deliveryServer{server: s}).Decide(ctx, nil))} {
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("a check decides: %v", err)
		}
	}
	s.end(s.log)
	s.end(s.log)
	if closed != 1 {
		t.Errorf("closed %d times", closed)
	}
}

func second[T any](_ T, err error) error { return err }

func TestConfigureFails(t *testing.T) {
	for name, open := range map[string]func(context.Context, Config) (Service, error){
		"error":      func(context.Context, Config) (Service, error) { return nil, errors.New("no scanner") },
		"no service": func(context.Context, Config) (Service, error) { return nil, nil },
	} {
		r, err := newServer(example(open)).Configure(context.Background(), &pluginv1.ConfigureRequest{})
		if err != nil || len(r.GetProblems()) != 1 || r.GetProblems()[0].GetWhy() == "" {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	r, err := newServer(example(nil)).Configure(context.Background(), &pluginv1.ConfigureRequest{Table: []byte("moon")})
	if err != nil || len(r.GetProblems()) != 1 {
		t.Errorf("%v, %v", r, err)
	}
}

func TestPanic(t *testing.T) {
	_, err := caught(slog.New(slog.DiscardHandler), "x", func() (int, error) { panic("moon") })
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "moon") {
		t.Errorf("%v", err)
	}
}

// TestSlowClose: a service that does not close keeps nobody waiting for long.
func TestSlowClose(t *testing.T) {
	s := newServer(Plugin{})
	s.service = Check(nil).WithClose(func() error { select {} })
	begun := time.Now()
	s.end(s.log)
	if took := time.Since(begun); took < closeTime || took > 2*closeTime {
		t.Errorf("it took %v", took)
	}
}

// TestWatch: the end of the pipe that is the standard input is the end of the
// host.
func TestWatch(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	gone := make(chan struct{})
	watch(r, func() { close(gone) })
	select {
	case <-gone:
		t.Fatal("gone too early")
	default:
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("not noticed")
	}
}
