package main

import (
	"strings"
	"testing"

	"pecd/cmd/pecd/config"
)

// TestWarnOfTimeouts: a plugin that may take as long as the milter waits is told of, since
// only at LMTP it may; one that is quicker is not.
func TestWarnOfTimeouts(t *testing.T) {
	for timeout, want := range map[string]bool{"30s": false, "119s": false, "2m": true, "3m": true} {
		var out strings.Builder
		c := &config.Config{Plugins: []config.Plugin{{Name: "slow", Timeout: timeout}}}
		if err := warnOfTimeouts(c, &out); err != nil || strings.Contains(out.String(), "plugin slow: timeout: "+timeout) != want {
			t.Errorf("%s: %q, %v", timeout, out.String(), err)
		}
	}
}
