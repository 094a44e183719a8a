// Package python holds the tests of the check in Python.
package python

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"pecd/pec/message"
	"pecd/plugins/host"
	"pecd/points"
)

func TestMain(m *testing.M) {
	host.LaunchIfAsked()
	os.Exit(m.Run())
}

// TestStubs: plugin_pb2.py is what protoc makes of plugin.proto.
func TestStubs(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("protoc", "-I", "../../protocol/v1", "--python_out="+dir, "plugin.proto").CombinedOutput(); err != nil {
		t.Fatalf("protoc: %v: %s", err, out)
	}
	want, err := os.ReadFile(filepath.Join(dir, "plugin_pb2.py"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("plugin_pb2.py"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("plugin_pb2.py is not that of plugin.proto (%v); see README.md", err)
	}
}

// TestRule: what the check says of subjects, in the call and in a file.
func TestRule(t *testing.T) {
	h := start(t, map[string]any{"words": []string{"Lotteria", "perché"}})
	large := "\r\n" + string(bytes.Repeat([]byte("Testo.\r\n"), 20000))
	for header, want := range map[string]points.Says{
		"Subject: Offerta":                           points.Clean,
		"From: lotteria@alfa.example":                points.Clean,
		"Subject: La lotteria":                       points.Refused,
		"Subject: La\r\n LOTTERIA nazionale":         points.Refused,
		"Subject: =?utf-8?q?Perch=C3=89_no=3F?=":     points.Refused,
		"Subject: =?iso-8859-1?b?cGVyY2jp?= offerta": points.Refused,
		"Subject: =?x-none?q?lotteria?=":             points.Refused,
		"Subject:":                                   points.Clean,
	} {
		for _, body := range []string{"\r\nlotteria\r\n", large} {
			if got := ask(t, h, header+"\r\n"+body); got.Says != want {
				t.Errorf("%q with a body of %d: %v, want %v", header, len(body), got, want)
			}
		}
	}
}

// TestSettings: without words, and with some that are none.
func TestSettings(t *testing.T) {
	for _, table := range []map[string]any{{"words": "lotteria"}, {"words": []any{1}}, {"words": []string{" "}}, {"word": []string{"x"}}} {
		spec, opts := setup(t, table)
		if _, problems, err := host.Validate(context.Background(), spec, opts); err != nil || len(problems) != 1 || problems[0].Key == "" {
			t.Errorf("%v: %v, %v", table, problems, err)
		}
	}
	if got := ask(t, start(t, nil), "Subject: La lotteria\r\n\r\nx\r\n"); got.Says != points.Clean {
		t.Errorf("without words: %v", got)
	}
}

func setup(t *testing.T, table map[string]any) (host.Spec, host.Options) {
	t.Helper()
	path, err := filepath.Abs("subjectwords")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	o := host.Options{Dir: filepath.Join(dir, "s"), Messages: filepath.Join(dir, "m"), State: filepath.Join(dir, "state"), Log: slog.New(slog.DiscardHandler), Now: time.Now}
	for _, d := range []string{o.Dir, o.Messages, o.State} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return host.Spec{Name: "python", Path: path, Table: table}, o
}

func start(t *testing.T, table map[string]any) *host.Host {
	t.Helper()
	spec, opts := setup(t, table)
	h, err := host.Start(context.Background(), []host.Spec{spec}, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h
}

func ask(t *testing.T, h *host.Host, raw string) points.Finding {
	t.Helper()
	found := h.Check(context.Background(), points.Submission, host.Question{Source: message.Bytes(raw), Range: message.Range{Len: int64(len(raw))}})
	if len(found) != 1 {
		t.Fatalf("%d findings", len(found))
	}
	return found[0]
}
