package doctor

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pecd/cmd/pecd/setup"
)

// lookAtSendmail looks at Sendmail as submission, gate, listener, settings and arrival
// look at Postfix.
func (v *visit) lookAtSendmail(ctx context.Context) {
	submissions, gates := 0, 0
	for _, d := range v.Sendmail.Daemons() {
		switch l, ok := v.Sendmail.Listener(v.want.Reinject); {
		case ok && l.Key() == d.Key():
			v.sendmailListener(d)
		case d.Submission():
			submissions++
			v.sendmailSubmission(d)
		default:
			gates++
			v.sendmailGate(d)
		}
	}
	if submissions == 0 {
		v.add("submission-missing", "no daemon of Sendmail's lets users log in and send")
	}
	if gates == 0 {
		v.add("port25-missing", "no daemon of Sendmail's listens at port 25")
	}
	if _, ok := v.Sendmail.Listener(v.want.Reinject); !ok && strings.HasPrefix(v.want.Reinject, "inet:") {
		v.add("listener-missing", "no daemon of Sendmail's listens at %s (courier.mta)", v.want.Reinject)
	}
	v.sendmailSettings()
	v.sendmailArrival(ctx)
}

func (v *visit) sendmailSubmission(d setup.Daemon) {
	s := v.Sendmail
	x, at := s.Filter(d, v.want.Access)
	if at < 0 {
		v.add("submission-milter", "%s: InputMailFilters is %q, without %s", d.Key(), strings.Join(d.Filters, ";"), v.want.Access)
		return
	}
	if x.Flags != "T" {
		v.add("submission-accept", "%s: the filter %s has F=%s for when pecd is away", d.Key(), x.Name, x.Flags)
	}
	if at != len(d.Filters)-1 {
		v.add("milter-order", "%s: %s comes after pecd in InputMailFilters", d.Key(), d.Filters[at+1])
	}
	for _, name := range d.Filters[:at] {
		if s.Filters()[name].Signs() {
			v.add("signer-before", "%s: the DKIM signer %s comes before pecd", d.Key(), name)
		}
	}
}

func (v *visit) sendmailGate(d setup.Daemon) {
	if v.want.Gate == "" {
		return
	}
	x, at := v.Sendmail.Filter(d, v.want.Gate)
	if at < 0 {
		v.add("gate-milter", "%s: InputMailFilters is %q, without %s", d.Key(), strings.Join(d.Filters, ";"), v.want.Gate)
	} else if x.Flags != "T" {
		v.add("gate-accept", "%s: the filter %s has F=%s for when pecd is away", d.Key(), x.Name, x.Flags)
	}
}

func (v *visit) sendmailListener(d setup.Daemon) {
	if !d.Loopback() {
		v.add("listener-open", "%s listens beyond this machine", d.Key())
	}
	for _, name := range d.Filters {
		switch x := v.Sendmail.Filters()[name]; {
		case x.Signs():
		case v.is(x, v.want.Access), v.is(x, v.want.Gate):
			v.add("listener-loop", "%s calls pecd itself: %s", d.Key(), name)
		default:
			v.add("listener-milter", "%s calls the milter %s", d.Key(), name)
		}
	}
}

// is reports whether a filter is the socket addr of pecd's.
func (v *visit) is(x setup.Filter, addr string) bool {
	_, at := v.Sendmail.Filter(setup.Daemon{Filters: []string{x.Name}}, addr)
	return at == 0
}

// sendmailSettings looks at what holds for all mail.
func (v *visit) sendmailSettings() {
	s := v.Sendmail
	for _, d := range s.Demands(v.want) {
		v.add(d.ID, "%s is %q", d.Option, d.Is)
	}
	if s.Option("ServerCertFile", "") == "" {
		v.add("server-tls", "Sendmail has no certificate (ServerCertFile) and offers no TLS")
	}
	if !s.Logins() {
		v.add("no-login", "Sendmail takes no logins (there is no TrustAuthMech)")
	}
	for _, file := range s.StaleTables() {
		v.add("table", "%s is newer than what makemap made of it", file)
	}
	cf, err := os.Stat(filepath.Join(s.Dir, setup.CFFile))
	if err != nil {
		return // it was read a moment ago
	}
	if started, err := os.Stat(s.Option("PidFile", "/var/run/sendmail.pid")); err == nil && started.ModTime().Before(cf.ModTime()) {
		v.add("sendmail-restart", "%s has changed since Sendmail was started", filepath.Join(s.Dir, setup.CFFile))
	}
}

// ordinaryDomain is one to which ordinary recipients' mail goes the way of all others.
const ordinaryDomain = "example.org"

// sendmailArrival looks at the way of mail for our domains, and of mail to others.
func (v *visit) sendmailArrival(ctx context.Context) {
	s := v.Sendmail
	peers := sample(v.want.Peers)
	routes, err := s.Routes(ctx, slices.Concat(v.want.Domains, peers, []string{ordinaryDomain}))
	if err != nil {
		v.add("sendmail-unreadable", text(err))
		return
	}
	damage := map[string]bool{}
	harm := func(name string) {
		if damage[name] {
			return
		}
		damage[name] = true
		m := s.Mailers()[name]
		if m.Converts() {
			v.add("mime-conversion", "the mailer %s has F=%s", name, m.Flags)
		}
		if m.Cuts() {
			v.add("line-limit", "the mailer %s has L=%d", name, m.Line)
		}
	}
	for _, d := range v.want.Domains {
		switch {
		case s.Local(d):
			v.add("route", "mail for %s is delivered by Sendmail itself: it is one of its own names ($=w)", d)
		case !s.Relays(d):
			v.add("domain-refused", "Sendmail takes no mail for %s from others ($=R)", d)
		case !s.RoutesTo(routes[d], v.want.LMTP):
			v.add("route", "mail for %s goes by the mailer %s, not to %s", d, orNone(routes[d]), v.want.LMTP)
		default:
			harm(routes[d])
		}
	}
	for _, d := range append(peers, ordinaryDomain) {
		if s.Mailers()[routes[d]].Program == "[IPC]" {
			harm(routes[d])
		}
	}
	weak, err := s.Unprotected(v.want.Peers)
	if err != nil {
		v.add("sendmail-unreadable", text(err))
	}
	if len(weak) > 0 {
		v.add("tls-policy", "towards other providers TLS is not compulsory (no TLS_Rcpt in the access table): %s", strings.Join(weak[:min(3, len(weak))], ", "))
	}
}

// unsafe looks for folders above a socket that others may write: Sendmail refuses such
// sockets.
func (v *visit) unsafe(key, path string) {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err != nil {
			return // a missing socket is told elsewhere
		}
		if st.Mode().Perm()&0o002 != 0 {
			v.add("socket-unsafe", "%s: everybody may write to %s, above %s", key, dir, path)
			return
		}
		if dir == filepath.Dir(dir) {
			return
		}
	}
}

// sendmailPorts looks whether somebody listens where Sendmail's users and other servers
// call.
func (v *visit) sendmailPorts(ctx context.Context) {
	for _, d := range v.Sendmail.Daemons() {
		if l, ok := v.Sendmail.Listener(v.want.Reinject); ok && l.Key() == d.Key() {
			continue // greeted elsewhere
		}
		host := d.Addr
		if host == "" {
			host = "127.0.0.1"
		}
		v.port(ctx, d.Key(), net.JoinHostPort(host, strings.ToLower(d.Port)))
	}
}
