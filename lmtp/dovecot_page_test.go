package lmtp_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDovecotPage: Dovecot takes the settings that docs/dovecot.md and docs/install.md
// show, and its defaults are those that docs/dovecot.md says.
func TestDovecotPage(t *testing.T) {
	shown := 0
	for _, name := range []string{"dovecot.md", "install.md"} {
		page, err := os.ReadFile("../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("(?ms)^```\n(.*?)^```").FindAllStringSubmatch(string(page), -1) {
			if !strings.Contains(block[1], " {\n") {
				continue // commands
			}
			shown++
			file := filepath.Join(t.TempDir(), "dovecot.conf")
			if err := os.WriteFile(file, []byte(block[1]), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("doveconf", "-n", "-c", file).CombinedOutput(); err != nil || strings.Contains(string(out), "Error") {
				t.Errorf("%s: %v\n%s\n%s", name, err, block[1], out)
			}
		}
	}
	if shown < 4 {
		t.Errorf("only %d blocks of settings", shown)
	}
	defaults, err := exec.Command("doveconf", "-d").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"auth_username_format = %Lu", "lda_mailbox_autocreate = no", "lmtp_rcpt_check_quota = no", "lmtp_save_to_detail_mailbox = no",
		"mail_fsync = optimized", "quota_full_tempfail = no", "recipient_delimiter = +"} {
		if !strings.Contains(string(defaults), "\n"+want+"\n") {
			t.Errorf("not a default: %s", want)
		}
	}
}
