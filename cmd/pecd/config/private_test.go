package config

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// secretKeys are the names of keys whose files hold secrets.
var secretKeys = regexp.MustCompile(`(^|\.)(key|pkcs12|client_key|pin_file|[a-z_]*password_file|credentials)$`)

// TestSecrets: whose each file with a secret is, is looked at.
func TestSecrets(t *testing.T) {
	var keys []string
	var text strings.Builder
	for _, k := range Keys() {
		if secretKeys.MatchString(k) {
			keys = append(keys, k)
			text.WriteString(k + " = \"/x\"\n")
		}
	}
	var c Config
	if _, err := toml.Decode(text.String(), &c); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range c.secrets() {
		got = append(got, f.key)
	}
	slices.Sort(keys)
	slices.Sort(got)
	if len(keys) == 0 || !slices.Equal(got, keys) {
		t.Errorf("looked at %v, want %v", got, keys)
	}
}
