package doctor

const (
	// sendmailFix takes the place of setupFix where Sendmail is the MTA.
	sendmailFix  = "pecd setup sendmail --config {config} --sendmail-config-dir {sendmail} --apply && systemctl restart sendmail"
	sendmailLook = "systemctl status sendmail; systemctl restart sendmail"
)

// sendmailFixes are what mends a finding where Sendmail is the MTA, if it is not what the
// catalogue says. By ID.
var sendmailFixes = map[string]string{
	"bounces":        sendmailFix,
	"canary-lost":    "pecd log search --config {config}; mailq",
	"canary-refused": "journalctl -u sendmail -u pecd -n 50",
	"listener-down":  sendmailLook,
	"listener-open":  "bind it to the machine itself: Addr=127.0.0.1 in its DAEMON_OPTIONS in {sendmail}/sendmail.mc",
	"no-login":       "have Sendmail check passwords (TRUST_AUTH_MECH and confAUTH_MECHANISMS in {sendmail}/sendmail.mc; Cyrus SASL)",
	"port-closed":    sendmailLook,
	"port25-missing": "add DAEMON_OPTIONS for port 25 to {sendmail}/sendmail.mc (docs/sendmail.md), then " + sendmailFix,
	"server-tls":     "give Sendmail a certificate: confSERVER_CERT, confSERVER_KEY, confCACERT and confCACERT_PATH in {sendmail}/sendmail.mc",
	"table":          "makemap hash {sendmail}/FILE < {sendmail}/FILE",
}

// fixOf is what mends a finding, by the MTA.
func fixOf(id string, sendmail bool) string {
	fix := catalogue[id].Fix
	if !sendmail {
		return fix
	}
	if other, ok := sendmailFixes[id]; ok {
		return other
	}
	if fix == setupFix {
		return sendmailFix
	}
	return fix
}
