package lmtp_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pecd/lmtp"
)

const dovecotConf = `base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols = lmtp
listen = 127.0.0.1
ssl = no
first_valid_uid = 1
mail_location = maildir:%[1]s/mail/%%u
mail_save_crlf = yes
default_internal_user = dovecot
default_login_user = dovenull
passdb {
  driver = passwd-file
  args = %[1]s/users
}
userdb {
  driver = passwd-file
  args = %[1]s/users
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = %[2]s
  }
}
`

// A dovecot is a private instance with the users bob and bruna.
type dovecot struct {
	dir  string
	addr string
}

// startDovecot starts one, with settings beside those of dovecotConf.
func startDovecot(t *testing.T, settings ...string) *dovecot {
	t.Helper()
	// Not t.TempDir: the paths of its sockets must be short, and other users enter.
	dir, err := os.MkdirTemp("/tmp", "dc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chmod(dir, 0o755))
	must(os.Mkdir(dir+"/mail", 0o755))
	must(exec.Command("chown", "mail:mail", dir+"/mail").Run())
	d := &dovecot{dir: dir, addr: freePort(t)}
	_, port, err := net.SplitHostPort(d.addr)
	must(err)
	must(os.WriteFile(dir+"/dovecot.conf", append(fmt.Appendf(nil, dovecotConf, dir, port), strings.Join(settings, "\n")...), 0o644))
	users := ""
	for _, u := range []string{"bob", "bruna"} {
		users += u + "@beta.example:{PLAIN}x:8:8::" + dir + "/mail/" + u + "::\n"
	}
	must(os.WriteFile(dir+"/users", []byte(users), 0o644))
	out, err := os.Create(dir + "/out") // a pipe would stay open as long as the daemon runs
	must(err)
	defer out.Close()
	run := exec.Command("dovecot", "-c", dir+"/dovecot.conf")
	run.Stdout, run.Stderr = out, out
	if err := run.Run(); err != nil {
		b, _ := os.ReadFile(dir + "/out")
		t.Fatalf("dovecot: %v\n%s", err, b)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("doveadm", "-c", dir+"/dovecot.conf", "stop").CombinedOutput(); err != nil {
			t.Errorf("dovecot stop: %v\n%s", err, out)
		}
		if t.Failed() {
			b, err := os.ReadFile(dir + "/log")
			t.Logf("log: %s, %v", b, err)
		}
	})
	return d
}

// freePort returns an address that no other test is likely to take before it is
// used: from below the range that the system gives to those who do not ask.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 12_000+rand.IntN(20_000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

func (d *dovecot) store(t testing.TB) *lmtp.Store {
	s := &lmtp.Store{Name: "pecd.example", Dial: func(ctx context.Context) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", d.addr)
	}}
	t.Cleanup(func() { s.Close() })
	return s
}

// taken returns the one message of a user, without the fields that Dovecot adds,
// and removes it.
func (d *dovecot) taken(t *testing.T, user string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(d.dir, "mail", user+"@beta.example", "new", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s has %d messages, %v", user, len(files), err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	_, content, found := bytes.Cut(b, []byte("X-Start: 1\r\n"))
	if !found {
		t.Fatalf("stored: %.300q", b)
	}
	return string(content)
}

func TestDovecot(t *testing.T) {
	d := startDovecot(t)
	s := d.store(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	deliver := func(t *testing.T, content string, to ...string) []lmtp.Status {
		t.Helper()
		content = "X-Start: 1\r\n" + content
		got, err := s.Deliver(ctx, "alice@alfa.example", to, int64(len(content)), true, write(content))
		if err != nil || len(got) != len(to) {
			t.Fatal(got, err)
		}
		return got
	}
	t.Run("recipients", func(t *testing.T) {
		got := deliver(t, "\r\nx\r\n", "bob@beta.example", "nobody@beta.example", "bruna@beta.example", "bob@beta.example")
		for i, want := range []string{"250 2.0.0", "550 5.1.1", "250 2.0.0", "250 2.0.0"} {
			if !strings.HasPrefix(got[i].String(), want) {
				t.Errorf("recipient %d: %s", i, got[i])
			}
		}
		for _, user := range []string{"bob", "bruna"} {
			if got := d.taken(t, user); got != "\r\nx\r\n" {
				t.Errorf("%s has %q", user, got)
			}
		}
		if got := deliver(t, "\r\nx\r\n", "nobody@beta.example"); !got[0].Refused() {
			t.Error(got)
		}
	})
	for name, content := range map[string]string{
		"dots":       "A: b\r\n\r\n.\r\n..\r\n.a\r\na.\r\n.\r\n",
		"folds":      "A:\tb\r\n c\r\nB:\r\nC:x \r\n\r\nbody\r\n",
		"long lines": "\r\n" + strings.Repeat("x", 998) + "\r\n" + strings.Repeat("y", 50_000) + "\r\n",
		"8-bit":      "Subject: perch\xe8\r\n\r\n\xff\xe8\xc3\xa8\r\n",
		"no body":    "A: b\r\n\r\n",
		"From":       "\r\nFrom x\r\n>From y\r\n\r\n\r\n",
		"large":      "\r\n" + strings.Repeat(".0123456789abcdef0123456789abcdef\r\n", 200_000),
	} {
		t.Run(name, func(t *testing.T) {
			deliver(t, content, "bob@beta.example")
			if got := d.taken(t, "bob"); got != content {
				t.Errorf("stored %.300q\nwant   %.300q", got, content)
			}
		})
	}
	t.Run("no final newline", func(t *testing.T) {
		deliver(t, "\r\nx\r\ny", "bob@beta.example")
		if got := d.taken(t, "bob"); got != "\r\nx\r\ny\r\n" {
			t.Errorf("stored %q", got)
		}
	})
	t.Run("bare line feeds", func(t *testing.T) { // Dovecot reads them as line ends, dots included
		deliver(t, "\r\nx\n.y\n.\nz\r\n", "bob@beta.example")
		if got := strings.ReplaceAll(d.taken(t, "bob"), "\r\n", "\n"); got != "\nx\n.y\n.\nz\n" {
			t.Errorf("stored %q", got)
		}
	})
	t.Run("half a message", func(t *testing.T) {
		_, err := s.Deliver(ctx, "a@alfa.example", []string{"bob@beta.example"}, 0, true, func(w io.Writer) error {
			_, err := io.WriteString(w, "X-Start: 1\r\n\r\nhalf\r\n")
			return fmt.Errorf("no more: %w", err)
		})
		if err == nil {
			t.Error("no error")
		}
		deliver(t, "\r\nwhole\r\n", "bob@beta.example") // comes after the half one, if that was stored
		if got := d.taken(t, "bob"); got != "\r\nwhole\r\n" {
			t.Errorf("stored %q", got)
		}
	})
}
