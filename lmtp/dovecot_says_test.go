package lmtp_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const quota = `mail_plugins = quota
plugin {
  quota = maildir:User quota
  quota_rule = *:storage=1K
}
`

// TestDovecotSays holds what docs/dovecot.md says of Dovecot's answers and of where it
// puts a message.
func TestDovecotSays(t *testing.T) {
	large := "X-Start: 1\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 500)
	for name, tt := range map[string]struct {
		settings string
		to       string
		content  string
		says     string
		folder   string // of bob's, where the message is; empty: nowhere
	}{
		"small":                  {to: "bob@beta.example", says: "250 2.0.0", folder: "new"},
		"another case":           {to: "BOB@Beta.EXAMPLE", says: "250 2.0.0", folder: "new"},
		"detail":                 {to: "bob+offers@beta.example", says: "250 2.0.0", folder: "new"},
		"detail is no detail":    {settings: "recipient_delimiter =\n", to: "bob+offers@beta.example", says: "550 5.1.1"},
		"detail into its folder": {settings: "lmtp_save_to_detail_mailbox = yes\nlda_mailbox_autocreate = yes\n", to: "bob+offers@beta.example", says: "250 2.0.0", folder: ".offers/new"},
		"no folder for a detail": {settings: "lmtp_save_to_detail_mailbox = yes\n", to: "bob+offers@beta.example", says: "250 2.0.0", folder: "new"},
		"full":                   {settings: quota, to: "bob@beta.example", content: large, says: "552 5.2.2"},
		"full, and it may wait":  {settings: quota + "quota_full_tempfail = yes\n", to: "bob@beta.example", content: large, says: "452 4.2.2"},
		"users cannot be read":   {settings: "userdb {\n  driver = passwd-file\n  args = /dev/null/users\n}\n", to: "nobody@beta.example", says: "451 4.3.0"},
		"static userdb":          {settings: "userdb {\n  driver = static\n  args = uid=8 gid=8 home=/tmp/%u\n}\n", to: "nobody@beta.example", says: "550 5.1.1"},
		// What docs/dovecot.md warns of: a receipt for whoever is asked for.
		"static userdb for all": {settings: "userdb {\n  driver = static\n  args = uid=8 gid=8 home=/tmp/%u allow_all_users=yes\n}\n", to: "nobody@beta.example", says: "250 2.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startDovecot(t, tt.settings)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			content := tt.content
			if content == "" {
				content = "X-Start: 1\r\n\r\nx\r\n"
			}
			got, err := d.store(t).Deliver(ctx, "alice@alfa.example", []string{tt.to}, int64(len(content)), false, write(content))
			if err != nil || len(got) != 1 || !strings.HasPrefix(got[0].String(), tt.says) {
				t.Errorf("%v, %v; want %s", got, err, tt.says)
			}
			t.Log(got)
			var where []string
			root := filepath.Join(d.dir, "mail", "bob@beta.example")
			for _, folder := range []string{"new", ".offers/new"} {
				if files, err := os.ReadDir(filepath.Join(root, folder)); err == nil && len(files) > 0 {
					where = append(where, folder)
				}
			}
			if strings.Join(where, " ") != tt.folder {
				t.Errorf("it is in %q, want %q", where, tt.folder)
			}
		})
	}
}
