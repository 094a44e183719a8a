// Package test holds the whole-system tests and those about the tree itself.
package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// layers is the import table of docs/flow.md: what a room may import of ours.
// A room below covers its folders unless they stand here themselves.
var layers = map[string][]string{
	"pecd/pec":           {},
	"pecd/pec/message":   {"pecd/pec"},
	"pecd/pec/daticert":  {"pecd/pec"},
	"pecd/pec/dsn":       {"pecd/pec", "pecd/pec/message"},
	"pecd/pec/directory": {"pecd/pec"},
	"pecd/pec/issue":     {"pecd/pec", "pecd/pec/message", "pecd/pec/daticert"},
	"pecd/signer":        {"pecd/pec", "pecd/pec/message", "pecd/pec/daticert", "pecd/pec/issue"},
	"pecd/logstore":      {"pecd/pec", "pecd/pec/message", "pecd/signer"},
	"pecd/courier":       {"pecd/pec", "pecd/pec/message", "pecd/logstore"},
	"pecd/milter":        {"pecd/milter/socket"},
	"pecd/milter/socket": {},
	"pecd/lmtp":          {"pecd/milter/socket"},
	"pecd/points":        {},
	"pecd/points/access": {"pecd/pec", "pecd/pec/message", "pecd/pec/directory", "pecd/points"},
	"pecd/points/reception": {"pecd/pec", "pecd/pec/message", "pecd/pec/daticert", "pecd/pec/directory", "pecd/pec/dsn",
		"pecd/signer", "pecd/points"},
	"pecd/points/delivery": {"pecd/pec", "pecd/points"},
	"pecd/points/act": {"pecd/pec", "pecd/pec/message", "pecd/pec/issue", "pecd/signer", "pecd/logstore", "pecd/points",
		"pecd/points/access", "pecd/points/reception", "pecd/points/delivery"},
	"pecd/cmd/pecd/config": {},
}

// free are rooms that may import whatever they need: the binary, the demo, and
// helpers of tests.
var free = []string{"pecd/cmd/pecd", "pecd/packaging/demo", "pecd/packaging/demo/stage", "pecd/test",
	"pecd/points/pointstest", "pecd/signer/signertest", "pecd/logstore/storetest", "pecd/milter/miltertest"}

func TestImportsPointDownward(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "pecd/...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := map[string]bool{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen[p.ImportPath] = true
		check(t, p.ImportPath, p.Imports)
	}
	for room := range layers {
		if !seen[room] {
			t.Errorf("the table has a room that is not there: %s", room)
		}
	}
}

func check(t *testing.T, room string, imports []string) {
	for _, f := range free {
		if room == f {
			return
		}
	}
	allowed, ok := layers[room]
	if !ok {
		t.Errorf("%s is not in the import table: a new room needs a place in it", room)
		return
	}
next:
	for _, i := range imports {
		if !strings.HasPrefix(i, "pecd/") {
			continue
		}
		for _, a := range allowed {
			if i == a {
				continue next
			}
		}
		t.Errorf("%s imports %s; imports point downward only", room, i)
	}
}
