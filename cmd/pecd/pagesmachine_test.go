package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// enter makes a file system over that of the machine, whose changes are in memory, and
// goes there.
func (m *pagesMachine) enter(root string) {
	m.Helper()
	memory := filepath.Join(root, "memory")
	m.sh("/", `ip link set lo up
hostname mail.example.it
mount -t tmpfs -o mode=755 tmpfs `+memory+`
cd `+memory+`
mkdir up work root
mount -t overlay overlay -o lowerdir=/,upperdir=up,workdir=work root
mount -t proc proc root/proc
mount -t tmpfs -o mode=755 tmpfs root/run
mount --rbind /dev root/dev`)
	for _, err := range []error{syscall.Chroot(filepath.Join(memory, "root")), os.Chdir("/")} {
		if err != nil {
			m.Fatal(err)
		}
	}
	m.sh("/", "install -m 755 "+root+"/bin/pecd /usr/bin/pecd; id pecd 2>/dev/null || useradd -r -s /usr/sbin/nologin pecd")
}

// servers starts what an administrator has before pecd comes.
func (m *pagesMachine) servers() {
	m.Helper()
	for name, text := range map[string]string{
		"/etc/postfix/main.cf": "compatibility_level = 3.6\nmyhostname = mail.example.it\nmydestination = localhost\nalias_maps =\ninet_protocols = ipv4\nmaillog_file = /var/log/mail.log\n" +
			"smtpd_tls_cert_file = /etc/ssl/t.pem\nsmtpd_tls_key_file = /etc/ssl/t.key\nsmtpd_tls_security_level = may\n",
		"/etc/dovecot/dovecot.conf": dovecotHere(m.T),
		"/etc/dovecot/users":        "alice@example.it:{PLAIN}secret\nanna@example.it:{PLAIN}secret\nricevute@example.it:{PLAIN}secret\nposta-certificata@example.it:{PLAIN}secret\n",
		"/etc/mail/sendmail.mc": "include(`/var/cache/pecd-demo/sendmail/usr/share/sendmail/cf/m4/cf.m4')dnl\nOSTYPE(`linux')dnl\ndefine(`confTRUSTED_USER', `root')dnl\n" +
			"MAILER(`local')dnl\nMAILER(`smtp')dnl\n",
		"/usr/bin/systemctl": systemctl,
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.RemoveAll(name), os.WriteFile(name, []byte(text), 0o755)); err != nil {
			m.Fatal(err)
		}
	}
	m.sh("/", `rm -rf /var/spool/postfix /var/lib/postfix/* /var/lib/dovecot /etc/pecd /var/lib/pecd
mkdir -p /var/spool/postfix /var/vmail /opt/postfix /usr/libexec
chown mail /var/vmail
chgrp dovecot /etc/dovecot/users
ln -s /etc/postfix /opt/postfix/conf
[ -e /usr/libexec/sendmail ] || ln -s /var/cache/pecd-demo/sendmail/usr/libexec/sendmail /usr/libexec/sendmail
m4 /etc/mail/sendmail.mc >/etc/mail/sendmail.cf
openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=mail.example.it -keyout /etc/ssl/t.key -out /etc/ssl/t.pem 2>/dev/null
install -d -o pecd -g pecd -m 0700 /var/lib/pecd
install -d -o pecd -g pecd /run/pecd
cp /usr/share/postfix/master.cf.dist /etc/postfix/master.cf
postconf -F '*/*/chroot=n'
postconf -M submission/inet='submission inet n - n - - smtpd'
postconf -P submission/inet/smtpd_sasl_auth_enable=yes submission/inet/smtpd_sasl_type=dovecot submission/inet/smtpd_sasl_path=private/auth \
	submission/inet/smtpd_tls_security_level=encrypt submission/inet/smtpd_recipient_restrictions=permit_sasl_authenticated,reject
postfix start >/dev/null 2>&1 </dev/null
dovecot >/dev/null 2>&1 </dev/null`)
}

// systemctl stands for systemd, which does not run there.
const systemctl = `#!/bin/sh
case "$*" in
"reload postfix") exec postfix reload ;;
"restart sendmail") echo "systemctl $*: nothing runs" ;;
"enable --now pecd" | "start pecd" | "restart pecd")
	if [ -e /run/pecd.pid ]; then
		kill "$(cat /run/pecd.pid)"
		while [ -e "/proc/$(cat /run/pecd.pid)" ]; do sleep 0.05; done
	fi
	setpriv --reuid pecd --regid pecd --init-groups pecd serve >/var/log/pecd.log 2>&1 </dev/null &
	echo $! >/run/pecd.pid
	for i in $(seq 200); do grep -q msg=ready /var/log/pecd.log && exit 0; sleep 0.05; done
	cat /var/log/pecd.log; exit 1 ;;
*) echo "systemctl $*: unknown"; exit 1 ;;
esac
`

// dovecotHere is a configuration for the Dovecot that is installed.
func dovecotHere(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("dovecot", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	const services = `
first_valid_uid = 8
service lmtp {
  unix_listener lmtp {
    mode = 0660
    group = pecd
  }
}
service auth {
  unix_listener /var/spool/postfix/private/auth {
    mode = 0660
    user = postfix
    group = postfix
  }
}
`
	if strings.HasPrefix(string(out), "2.3.") {
		return `protocols = lmtp
ssl = no
log_path = /var/log/dovecot.log
mail_location = maildir:/var/vmail/%d/%n
passdb {
  driver = passwd-file
  args = /etc/dovecot/users
}
userdb {
  driver = static
  args = uid=mail gid=mail home=/var/vmail/%d/%n
}
` + services
	}
	return `dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
protocols {
  lmtp = yes
}
ssl = no
log_path = /var/log/dovecot.log
mail_driver = maildir
mail_path = /var/vmail/%{user | domain}/%{user | username}
passdb passwd-file {
  passwd_file_path = /etc/dovecot/users
}
userdb static {
  fields {
    uid = mail
    gid = mail
    home = /var/vmail/%{user | domain}/%{user | username}
  }
}
` + services
}

// run runs a line in a shell and returns its exit code and what it printed.
func (m *pagesMachine) run(dir, line string) (int, string) {
	m.Helper()
	out, err := os.CreateTemp("", "out") // a file and no pipe: daemons that a line starts keep it open
	if err != nil {
		m.Fatal(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		m.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

// sh runs a script of the test's own.
func (m *pagesMachine) sh(dir, script string) {
	m.Helper()
	if code, out := m.run(dir, "set -e\n"+script); code != 0 {
		m.Fatalf("%s: exit %d\n%s", script, code, out)
	}
}

func (m *pagesMachine) output(line string) string {
	m.Helper()
	code, out := m.run("/", line)
	if code != 0 || strings.TrimSpace(out) == "" {
		m.Fatalf("%s: exit %d\n%s", line, code, out)
	}
	return strings.TrimSpace(out)
}

// write writes a file that all may read, but for what is secret.
func (m *pagesMachine) write(name, text string) {
	m.Helper()
	mode := os.FileMode(0o644)
	if name == canaryFile {
		mode = 0o600
	}
	if err := errors.Join(os.WriteFile(name, []byte(text), mode), os.Chmod(name, mode)); err != nil {
		m.Fatal(err)
	}
}

// canaryFile holds Alice's password.
const canaryFile = "/root/canary"
