package lmtp

import (
	"errors"
	"fmt"
	"strings"
)

var errAddress = errors.New("bad address")

// mailbox returns an address as SMTP writes it. go-smtp takes the quotes from
// local parts ("a b"@example.com), and what it returns would mean something else
// in the next command; so they are put back. Local parts with an "@" are refused:
// go-smtp does not tell where they end.
func mailbox(s string) (string, error) {
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || domain == "" || strings.ContainsFunc(s, control) ||
		strings.ContainsAny(domain, " @<>()\\,;\"") {
		return "", fmt.Errorf("%w: %q", errAddress, s)
	}
	if !strings.ContainsAny(local, " ()<>[]:;\\,\"") {
		return s, nil
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"@` + domain, nil
}

func control(r rune) bool { return r < ' ' || r == 0x7f }
