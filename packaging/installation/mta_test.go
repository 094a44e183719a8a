//go:build installation

package installation

// An mta is the mail server of a machine: how it gets there, and what is said to it.
type mta struct {
	name     string // as pecd setup calls it
	packages string
	files    map[string]string // there before the packages, by name
	prepare  string            // what an administrator does then
	dovecot  string            // added to Dovecot's configuration
	dir      string            // of its configuration, which prepare copies to /root/before
	group    string            // in which pecd must be
	// generated are files there that the distribution makes anew whenever the MTA starts.
	generated []string
	planned   string // in what pecd setup shows
	start     []string
	flush     []string
}

var postfix = mta{
	name:     "postfix",
	packages: "postfix",
	files:    map[string]string{"root/debconf-selections": "postfix postfix/main_mailer_type select Internet Site\npostfix postfix/mailname string mail.example.test\n"},
	prepare: `
postconf -e myhostname=mail.example.test mydestination=localhost inet_protocols=ipv4 maillog_file=/var/log/mail.log \
	smtpd_tls_cert_file=/etc/ssl/certs/t.pem smtpd_tls_key_file=/etc/ssl/private/t.key
postconf -M submission/inet='submission inet n - y - - smtpd'
postconf -P submission/inet/smtpd_sasl_auth_enable=yes submission/inet/smtpd_sasl_type=dovecot submission/inet/smtpd_sasl_path=private/auth \
	submission/inet/smtpd_tls_security_level=may submission/inet/smtpd_recipient_restrictions=permit_sasl_authenticated,reject
cp -a /etc/postfix /root/before
`,
	dovecot: `
service auth {
  unix_listener /var/spool/postfix/private/auth {
    mode = 0660
    user = postfix
    group = postfix
  }
}
`,
	dir:     "/etc/postfix",
	group:   "postfix",
	planned: "+    -o {smtpd_milters={ unix:/run/pecd/access.sock, default_action=tempfail }}",
	start:   []string{"postfix", "start"},
	flush:   []string{"postqueue", "-f"},
}

// Debian's Sendmail as its packages leave it, with a certificate and logins. There is no
// DNS here: example.test stands in the file of hosts.
var sendmail = mta{
	name:     "sendmail",
	packages: "sendmail sendmail-bin sasl2-bin libsasl2-modules",
	prepare: `
printf '127.0.0.1 localhost mail.example.test\n127.0.0.9 example.test\n' >/etc/hosts
printf 'passwd files\nhosts files\naliases files\n' >/etc/mail/service.switch
sed -i 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf
mkdir -p /etc/sasl2
printf 'pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\n' >/etc/sasl2/Sendmail.conf
echo secret | saslpasswd2 -p -c -u example.test alice
cat >/root/logins.mc <<'END'
define(` + "`confCACERT_PATH', `/etc/ssl/certs'" + `)dnl
define(` + "`confCACERT', `/etc/ssl/certs/t.pem'" + `)dnl
define(` + "`confSERVER_CERT', `/etc/ssl/certs/t.pem'" + `)dnl
define(` + "`confSERVER_KEY', `/etc/ssl/private/t.key'" + `)dnl
define(` + "`confTLS_SRV_OPTIONS', `V'" + `)dnl
define(` + "`confAUTH_MECHANISMS', `PLAIN LOGIN'" + `)dnl
define(` + "`confAUTH_OPTIONS', `p,y'" + `)dnl
TRUST_AUTH_MECH(` + "`PLAIN LOGIN'" + `)dnl
dnl How busy the machine of the test is does not matter.
define(` + "`confREFUSE_LA', `10000'" + `)dnl
define(` + "`confQUEUE_LA', `10000'" + `)dnl
END
sed -i '/^FEATURE(.use_cw_file/r /root/logins.mc' /etc/mail/sendmail.mc
make -s -C /etc/mail all
cp -a /etc/mail /root/before
`,
	dir: "/etc/mail",
	// Of what sendmail.mc says, by sendmailconfig, with the hour in them.
	generated: []string{"Makefile", "databases"},
	planned:   "+MAIL_FILTER(`pecdaccess', `S=unix:/run/pecd/access.sock, F=T, ",
	start:     []string{"/etc/init.d/sendmail", "start"},
	flush:     []string{"sendmail", "-q"},
}
