package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// A workLine is a line about long work that the daemon does for a command: how far
// it is, or how it ended.
type workLine struct {
	Done   int64           `json:"done,omitempty"`
	Total  int64           `json:"total,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// progressPause is between two lines of progress.
const progressPause = 200 * time.Millisecond

// work answers a command line by line while the work goes on, for as long as it
// takes. If whoever asked is gone, the context of do ends.
func (d *daemon) work(w http.ResponseWriter, r *http.Request, do func(ctx context.Context, progress func(done, total int64)) (any, error)) {
	d.takeTime(w)
	rc, enc := http.NewResponseController(w), json.NewEncoder(w)
	var last time.Time
	result, err := do(r.Context(), func(done, total int64) {
		if now := time.Now(); now.Sub(last) > progressPause {
			last = now
			_ = errors.Join(enc.Encode(workLine{Done: done, Total: total}), rc.Flush()) // the context tells that nobody listens
		}
	})
	var line workLine
	if err == nil {
		line.Result, err = json.Marshal(result)
	}
	if err != nil {
		line = workLine{Error: err.Error()}
	}
	if err := enc.Encode(line); err != nil {
		d.log.Warn("control", "err", err)
	}
}

// controlWork asks the running daemon for long work: it sends in, tells progress,
// which may be nil, and reads the result into out.
func controlWork(ctx context.Context, storeDir, path string, in, out any, progress func(done, total int64)) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	client := http.Client{Transport: controlTransport(storeDir)}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://pecd"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return unanswered(err, os.Geteuid())
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(res.Body, 4096))
		return errors.Join(errors.New(string(bytes.TrimSpace(text))), err)
	}
	for dec := json.NewDecoder(res.Body); ; {
		var line workLine
		if err := dec.Decode(&line); err != nil {
			return fmt.Errorf("the daemon broke off: %w", err)
		}
		switch {
		case line.Error != "":
			return errors.New(line.Error)
		case line.Result != nil:
			return json.Unmarshal(line.Result, out)
		case progress != nil:
			progress(line.Done, line.Total)
		}
	}
}
