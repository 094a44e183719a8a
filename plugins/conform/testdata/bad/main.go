// Command bad is a plugin with a fault: the one that its own name names.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"pecd/plugins/sdk"
	"pecd/plugins/sdk/point"
	"pecd/points"
	"pecd/points/access"
)

var fault = filepath.Base(os.Args[0])

func main() {
	p := sdk.Plugin{Name: "bad", Version: "1.0.0", About: "has the fault " + fault, Open: open,
		Keys: []sdk.Key{{Name: "word", Type: "string", About: "A word."}}}
	switch fault {
	case "chatty":
		fmt.Println("Hello.")
	case "changes":
		p.Version = time.Now().String()
	case "nameless":
		p.About = " "
	case "byhand":
		if len(os.Environ()) < 4 {
			return
		}
	}
	sdk.Main(p)
}

func open(_ context.Context, c sdk.Config) (sdk.Service, error) {
	var t struct{ Word string }
	if err := c.Decode(&t); err != nil && fault != "careless" {
		return nil, err
	}
	switch fault {
	case "needy":
		if t.Word == "" {
			return nil, c.Problem("word", "it is missing", "write one")
		}
	case "lawless":
		return point.Access(lawless{}), nil
	}
	return sdk.Check(look, points.Submission, points.Incoming).WithClose(stop), nil
}

// stop stops the process where it should end.
func stop() error {
	if fault != "lingers" {
		return nil
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
		return err
	}
	select {}
}

type lawless struct{}

func (lawless) Decide(context.Context, access.Submission) (access.Decision, error) {
	return access.Decision{Verdict: points.Accept}, nil
}

// hog takes memory, once.
var hog = sync.OnceValue(func() []byte { return bytes.Repeat([]byte("x"), 90<<20) })

func look(ctx context.Context, m *sdk.Message) (points.Finding, error) {
	r, err := m.Open()
	if err != nil {
		return sdk.Unavailable(), err
	}
	defer r.Close()
	if m.Size > 1<<23 {
		return large(r)
	}
	b, err := io.ReadAll(r)
	switch {
	case err != nil:
		return sdk.Unavailable(), err
	case fault == "deaf":
		return sdk.Unavailable(), fmt.Errorf("the scanner is away")
	case fault == "nonsense":
		return sdk.Refuse("no\r\nno", "no"), nil
	case fault == "panics" && bytes.IndexByte(b, 0) >= 0:
		panic("NUL")
	case fault == "dies" && bytes.IndexByte(b, 0) >= 0:
		os.Exit(3)
	}
	return sdk.Clean(), nil
}

func large(r io.Reader) (points.Finding, error) {
	switch fault {
	case "hog":
		hog()
	case "busy":
		for end := time.Now().Add(6 * time.Second); time.Now().Before(end); {
		}
	}
	_, err := io.Copy(io.Discard, r)
	return sdk.Clean(), err
}
