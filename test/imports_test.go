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

// plugin is what a shipped check may import: what anybody's may.
var plugin = []string{"pecd/milter/socket", "pecd/pec", "pecd/pec/message", "pecd/plugins/sdk", "pecd/points"}

// layers is the import table of docs/flow.md: what a room may import of ours.
// A room below covers its folders unless they stand here themselves.
var layers = map[string][]string{
	"pecd/pec":                  {},
	"pecd/pec/message":          {"pecd/pec"},
	"pecd/pec/daticert":         {"pecd/pec"},
	"pecd/pec/dsn":              {"pecd/pec", "pecd/pec/message"},
	"pecd/pec/directory":        {"pecd/pec"},
	"pecd/pec/issue":            {"pecd/pec", "pecd/pec/message", "pecd/pec/daticert"},
	"pecd/signer":               {"pecd/pec", "pecd/pec/message", "pecd/pec/daticert", "pecd/pec/directory", "pecd/pec/issue", "pecd/signer/hsm"},
	"pecd/signer/libcrypto":     {},
	"pecd/signer/hsm":           {},
	"pecd/signer/fetch":         {},
	"pecd/signer/revocation":    {"pecd/signer", "pecd/signer/fetch"},
	"pecd/signer/index":         {"pecd/pec/directory", "pecd/signer", "pecd/signer/fetch"},
	"pecd/signer/timestamp":     {"pecd/signer"},
	"pecd/logstore":             {"pecd/pec", "pecd/pec/message", "pecd/signer"},
	"pecd/logstore/consistency": {"pecd/pec", "pecd/logstore"},
	"pecd/logstore/seal":        {"pecd/pec", "pecd/logstore", "pecd/signer", "pecd/signer/timestamp"},
	"pecd/courier":              {"pecd/pec", "pecd/pec/message", "pecd/logstore"},
	"pecd/milter":               {"pecd/milter/socket"},
	"pecd/milter/socket":        {},
	"pecd/lmtp":                 {"pecd/milter/socket"},
	"pecd/points":               {},
	"pecd/points/access":        {"pecd/pec", "pecd/pec/message", "pecd/points"},
	"pecd/points/reception": {"pecd/pec", "pecd/pec/message", "pecd/pec/daticert", "pecd/pec/directory", "pecd/pec/dsn",
		"pecd/signer", "pecd/points"},
	"pecd/points/delivery": {"pecd/pec", "pecd/points"},
	"pecd/points/act": {"pecd/pec", "pecd/pec/message", "pecd/pec/issue", "pecd/signer", "pecd/logstore", "pecd/points",
		"pecd/points/access", "pecd/points/reception", "pecd/points/delivery"},
	"pecd/plugins/protocol":      {},
	"pecd/plugins/protocol/v1":   {"pecd/plugins/protocol"},
	"pecd/plugins/protocol/wire": {"pecd/pec", "pecd/pec/message", "pecd/plugins/protocol", "pecd/plugins/protocol/v1", "pecd/points"},
	"pecd/plugins/protocol/pointwire": {"pecd/pec", "pecd/pec/directory", "pecd/pec/message", "pecd/plugins/protocol", "pecd/plugins/protocol/v1",
		"pecd/plugins/protocol/wire", "pecd/points", "pecd/points/access", "pecd/points/reception", "pecd/points/delivery"},
	"pecd/plugins/sdk": {"pecd/pec", "pecd/pec/message", "pecd/plugins/protocol", "pecd/plugins/protocol/v1", "pecd/plugins/protocol/wire", "pecd/points"},
	"pecd/plugins/sdk/point": {"pecd/pec/message", "pecd/plugins/protocol/pointwire", "pecd/plugins/protocol/v1", "pecd/plugins/sdk",
		"pecd/points/access", "pecd/points/reception", "pecd/points/delivery"},
	"pecd/plugins/host": {"pecd/pec", "pecd/pec/message", "pecd/plugins/protocol", "pecd/plugins/protocol/v1", "pecd/plugins/protocol/wire",
		"pecd/plugins/protocol/pointwire", "pecd/points", "pecd/points/access", "pecd/points/reception", "pecd/points/delivery"},
	"pecd/plugins/conform": {"pecd/pec", "pecd/pec/directory", "pecd/pec/message", "pecd/plugins/host", "pecd/plugins/protocol", "pecd/points",
		"pecd/points/access", "pecd/points/reception", "pecd/points/delivery", "pecd/signer"},
	"pecd":                                    {},
	"pecd/plugins/scaffold":                   {"pecd", "pecd/plugins/protocol"},
	"pecd/plugins/spool":                      {"pecd/pec/message"},
	"pecd/plugins/clamav":                     append([]string{"pecd/plugins/spool"}, plugin...),
	"pecd/plugins/limits":                     plugin,
	"pecd/plugins/attachments":                append([]string{"pecd/plugins/spool"}, plugin...),
	"pecd/cmd/pecd/config":                    {},
	"pecd/cmd/pecd/report":                    {"pecd/cmd/pecd/availability", "pecd/logstore", "pecd/pec"},
	"pecd/cmd/pecd/availability":              {}, // a file and spans of time, for the daemon and its report
	"pecd/cmd/pecd/clockwatch":                {},
	"pecd/cmd/pecd/clockwatch/clockwatchtest": {},
	"pecd/cmd/pecd/roff":                      {},
	"pecd/cmd/pecd/verify":                    {"pecd/pec", "pecd/pec/directory", "pecd/pec/issue", "pecd/pec/message", "pecd/points/reception", "pecd/signer"},
	"pecd/cmd/pecd/setup":                     {"pecd/cmd/pecd/config", "pecd/pec", "pecd/pec/directory", "pecd/signer", "pecd/signer/index"},
	"pecd/cmd/pecd/doctor": {"pecd/cmd/pecd/clockwatch", "pecd/cmd/pecd/config", "pecd/cmd/pecd/setup", "pecd/logstore", "pecd/logstore/seal", "pecd/milter/socket", "pecd/pec", "pecd/pec/directory",
		"pecd/plugins/host", "pecd/signer", "pecd/signer/index", "pecd/signer/revocation"},
}

// free are rooms that may import whatever they need: the binary, the demo, and
// helpers of tests.
var free = []string{"pecd/cmd/pecd", "pecd/packaging/demo", "pecd/packaging/demo/stage", "pecd/packaging/installation", "pecd/packaging/packages", "pecd/test", "pecd/test/bench", "pecd/test/chaos", "pecd/test/fuzz",
	"pecd/plugins/example/builtin", "pecd/plugins/example/countersign", "pecd/plugins/example/python", "pecd/plugins/clamav/clamdtest", "pecd/plugins/sdk/sdktest",
	"pecd/signer/fetch/fetchtest", "pecd/signer/hsm/hsmtest", "pecd/signer/timestamp/timestamptest",
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
