package setup

import (
	"net"
	"slices"
	"strings"
)

// A Service is a line of master.cf.
type Service struct {
	Name, Type                                     string
	Private, Unprivileged, Chroot, Wakeup, MaxProc string // columns; "-" is the default
	Program                                        string
	args                                           []string          // after the program, as they stand there
	expanded                                       map[string]string // -o settings, $names replaced
}

// Key is how postconf(1) names the service.
func (s *Service) Key() string { return s.Name + "/" + s.Type }

// Line is the service as one line of master.cf.
func (s *Service) Line() string {
	f := append([]string{s.Name, s.Type, s.Private, s.Unprivileged, s.Chroot, s.Wakeup, s.MaxProc, s.Program}, s.args...)
	return strings.Join(f, " ")
}

// parseLine reads what Line has written.
func parseLine(line string) *Service {
	f := split(line, " \t")
	if len(f) < 8 {
		return &Service{}
	}
	return &Service{Name: f[0], Type: f[1], Private: f[2], Unprivileged: f[3], Chroot: f[4], Wakeup: f[5], MaxProc: f[6], Program: f[7], args: f[8:]}
}

// clone is a copy that can be changed.
func (s *Service) clone() *Service {
	c := *s
	c.args = slices.Clone(s.args)
	c.expanded = map[string]string{}
	for k, v := range s.expanded {
		c.expanded[k] = v
	}
	return &c
}

// Option returns the service's own value of a setting, as it stands there.
func (s *Service) Option(name string) (string, bool) {
	if i := s.find(name); i >= 0 {
		_, v := option(s.args[i])
		return v, true
	}
	return "", false
}

// find is the index of a setting's last word among the arguments: the last one
// counts.
func (s *Service) find(name string) int {
	for i := len(s.args) - 1; i > 0; i-- {
		if s.args[i-1] != "-o" {
			continue
		}
		if n, _ := option(s.args[i]); n == name {
			return i
		}
	}
	return -1
}

// option reads name=value or { name = value }.
func option(arg string) (name, value string) {
	inner, _ := unbrace(arg)
	name, value, _ = strings.Cut(inner, "=")
	return strings.TrimSpace(name), strings.TrimSpace(value)
}

// setOption gives the service a setting of its own.
func (s *Service) setOption(name, value string) {
	arg := name + "=" + value
	if strings.ContainsAny(value, " \t{}") {
		arg = "{" + name + "=" + value + "}" // as postconf(1) writes it
	}
	if i := s.find(name); i >= 0 {
		s.args[i] = arg
	} else {
		s.args = append(s.args, "-o", arg)
	}
	s.expanded[name] = value
}

// readServices makes services of what postconf(1) says of master.cf: columns by
// "name/type/column", settings by "name/type/setting".
func (p *Postfix) readServices(fields, options map[string]string) {
	for key, command := range fields {
		key, isCommand := strings.CutSuffix(key, "/command")
		words := split(command, " \t")
		if !isCommand || len(words) == 0 {
			continue
		}
		at := func(column string) string { return fields[key+"/"+column] }
		s := Service{Name: at("service"), Type: at("type"), Private: at("private"), Unprivileged: at("unprivileged"), Chroot: at("chroot"),
			Wakeup: at("wakeup"), MaxProc: at("process_limit"), Program: words[0], args: words[1:], expanded: map[string]string{}}
		for name, value := range options {
			if n, ok := strings.CutPrefix(name, key+"/"); ok {
				s.expanded[n] = value
			}
		}
		p.Services = append(p.Services, s)
	}
	slices.SortFunc(p.Services, func(a, b Service) int { return strings.Compare(a.Key(), b.Key()) })
}

// Service returns the service of a name and type; nil if there is none.
func (p *Postfix) Service(name, kind string) *Service {
	for i := range p.Services {
		if s := &p.Services[i]; s.Name == name && s.Type == kind {
			return s
		}
	}
	return nil
}

// Chrooted reports whether the service sees only the queue directory.
func (p *Postfix) Chrooted(s *Service) bool {
	if s.Chroot == "-" {
		return number(strings.SplitN(p.Get("compatibility_level"), ".", 2)[0]) < 1 // the default was y before
	}
	return s.Chroot == "y"
}

// port is where an inet service listens: the part after the last colon.
func port(s *Service) string {
	name := s.Name
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		name = name[i+1:]
	}
	return name
}

// isSMTPD reports whether a service is an SMTP server that listens on a network.
func isSMTPD(s *Service) bool { return s.Type == "inet" && s.Program == "smtpd" }

// Submissions are the services at which users log in: those of the ports for it, and
// others that demand a login, but for the re-injection listener.
func (p *Postfix) Submissions(reinject string) (list []*Service) {
	for i := range p.Services {
		s := &p.Services[i]
		if !isSMTPD(s) || p.isListener(s, reinject) {
			continue
		}
		switch port(s) {
		case "submission", "submissions", "smtps", "587", "465":
			list = append(list, s)
		case "smtp", "25", "smtpd":
		default:
			if s.expanded["smtpd_sasl_auth_enable"] == "yes" || p.demandsLogin(s) {
				list = append(list, s)
			}
		}
	}
	return list
}

// demandsLogin reports whether a service lets in who logs in and refuses the rest, also
// where main.cf says for all services that one may log in (mailcow's port for its webmail).
func (p *Postfix) demandsLogin(s *Service) bool {
	who := Words(s.expanded["smtpd_client_restrictions"])
	return p.In(s, "smtpd_sasl_auth_enable") == "yes" && slices.Contains(who, "permit_sasl_authenticated") && who[len(who)-1] == "reject"
}

// private reports whether a service lets in nobody but the own networks: other servers do
// not call there (mailcow's ports for quarantine and copies).
func private(s *Service) bool {
	return slices.Equal(Words(s.expanded["smtpd_client_restrictions"]), []string{"permit_mynetworks", "reject"})
}

// Port25 are the services at which other servers call. Where postscreen(8) stands in
// front, that is the smtpd behind it; where nothing has that port, what else listens.
func (p *Postfix) Port25(reinject string) (list []*Service) {
	submissions := p.Submissions(reinject)
	var other []*Service
	for i := range p.Services {
		s := &p.Services[i]
		switch {
		case p.isListener(s, reinject) || slices.Contains(submissions, s) || private(s):
		case isSMTPD(s) && (port(s) == "smtp" || port(s) == "25" || !Loopback(s)), s.Type == "pass" && s.Program == "smtpd":
			list = append(list, s)
		case isSMTPD(s):
			other = append(other, s)
		}
	}
	if len(list) == 0 {
		return other
	}
	return list
}

// Port25Logins are the services of Port25 at which users can log in.
func (p *Postfix) Port25Logins(reinject string) []*Service {
	return slices.DeleteFunc(p.Port25(reinject), func(s *Service) bool { return p.In(s, "smtpd_sasl_auth_enable") != "yes" })
}

// Loopback reports whether a service listens on this machine alone.
func Loopback(s *Service) bool { return loopback(s.Name) }

func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Listener returns the service that listens at an address of pecd's configuration,
// inet:host:port; nil if there is none.
func (p *Postfix) Listener(addr string) *Service {
	for i := range p.Services {
		if s := &p.Services[i]; p.isListener(s, addr) {
			return s
		}
	}
	return nil
}

func (p *Postfix) isListener(s *Service, addr string) bool {
	hp, ok := strings.CutPrefix(addr, "inet:")
	if !ok || s.Type != "inet" {
		return false
	}
	host, want, err := net.SplitHostPort(hp)
	if err != nil {
		return false
	}
	if at, _, err := net.SplitHostPort(s.Name); err == nil && plainHost(at) != plainHost(host) {
		return false
	}
	return port(s) == want
}

// plainHost makes names of this machine equal.
func plainHost(h string) string {
	if h == "localhost" {
		return "127.0.0.1"
	}
	return strings.ToLower(h)
}

// A SmallMailbox is a limit to mailboxes with which a service of Postfix's delivers nothing.
type SmallMailbox struct {
	Service *Service
	Name    string
	Limit   int64
}

// SmallMailboxes are the limits with which local(8) and virtual(8) end with an error where
// messages may have size octets (0: any).
func (p *Postfix) SmallMailboxes(size int64) (list []SmallMailbox) {
	for i := range p.Services {
		s := &p.Services[i]
		name := map[string]string{"local": "mailbox_size_limit", "virtual": "virtual_mailbox_limit"}[s.Program]
		if name == "" {
			continue
		}
		if limit := number(p.In(s, name)); tooSmall(limit, size) {
			list = append(list, SmallMailbox{s, name, limit})
		}
	}
	return list
}

// DemandsTLS reports whether a service refuses who does not begin with STARTTLS.
func (p *Postfix) DemandsTLS(s *Service) bool {
	level := p.In(s, "smtpd_tls_security_level") // what it says counts before smtpd_enforce_tls
	return level == "encrypt" || level == "" && p.In(s, "smtpd_enforce_tls") == "yes"
}
