package setup

import (
	"path/filepath"
	"slices"
	"strings"
)

// A Milter is one element of Postfix's smtpd_milters.
type Milter struct {
	Text    string // as it stands there
	Address string // unix:path or inet:host:port
	Options map[string]string
}

// Milters reads a list of milters.
func Milters(value string) (list []Milter) {
	for _, w := range Words(value) {
		m := Milter{Text: w, Address: w, Options: map[string]string{}}
		if inner, braced := unbrace(w); braced {
			for i, part := range Words(spaceless(inner)) {
				if name, v, ok := strings.Cut(part, "="); i > 0 && ok {
					m.Options[name] = v
				} else if i == 0 {
					m.Address = part
				}
			}
		}
		if path, ok := strings.CutPrefix(m.Address, "local:"); ok {
			m.Address = "unix:" + path
		}
		list = append(list, m)
	}
	return list
}

// spaceless takes the blanks round "=" away.
func spaceless(s string) string {
	words := strings.Split(s, "=")
	for i := range words {
		if i > 0 {
			words[i] = strings.TrimLeft(words[i], " \t")
		}
		if i < len(words)-1 {
			words[i] = strings.TrimRight(words[i], " \t")
		}
	}
	return strings.Join(words, "=")
}

// Signs reports whether a milter looks like a DKIM signer: it must see what pecd has
// made, and not what the user sent.
func (m Milter) Signs() bool {
	a := strings.ToLower(m.Address)
	return strings.Contains(a, "dkim") || slices.ContainsFunc(signerPorts, func(port string) bool { return strings.HasSuffix(a, ":"+port) })
}

// signerPorts are where OpenDKIM listens as its own examples, guides and panels have it
// (8891; 12301; Modoboa 12345), and dkimpy-milter (8892).
var signerPorts = []string{"8891", "8892", "12301", "12345"}

// RunsHandlers reports whether a milter is Plesk's psa-pc-remote, which runs all of its
// mail handlers: the one that signs, too, if Plesk is told to sign for a domain.
func (m Milter) RunsHandlers() bool {
	return strings.HasSuffix(m.Address, ":12768") || strings.Contains(m.Address, "psa-pc-remote")
}

// Reaches reports whether an address that stands in Postfix's configuration for a
// service is the socket want of pecd's.
func (p *Postfix) Reaches(s *Service, address, want string) bool {
	if path, ok := strings.CutPrefix(want, "unix:"); ok {
		got, ok := strings.CutPrefix(address, "unix:")
		return ok && p.resolve(s, got) == filepath.Clean(path)
	}
	return plainInet(address) == plainInet(want)
}

// resolve is the path that a service reaches: below the queue directory when it is
// chrooted, and from there when the path is relative.
func (p *Postfix) resolve(s *Service, path string) string {
	if !filepath.IsAbs(path) || p.Chrooted(s) {
		return filepath.Join(p.QueueDir(), path)
	}
	return filepath.Clean(path)
}

// plainInet writes inet:host:port in one way; Sendmail's inet:port@host counts too.
func plainInet(a string) string {
	rest := strings.TrimPrefix(a, "inet:")
	if port, host, ok := strings.Cut(rest, "@"); ok {
		rest = host + ":" + port
	}
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return a
	}
	return "inet:" + plainHost(rest[:i]) + rest[i:]
}

// Address is how Postfix is to name a socket of pecd: relative to the queue directory
// if it lies there, so that it is right in a chroot and outside.
func (p *Postfix) Address(addr string) string {
	if rest, ok := p.inQueue(addr); ok {
		return "unix:" + rest
	}
	return addr
}

// inQueue reports whether a socket lies in the queue directory, and where there.
func (p *Postfix) inQueue(addr string) (string, bool) {
	path, ok := strings.CutPrefix(addr, "unix:")
	if !ok {
		return "", false
	}
	rest, err := filepath.Rel(p.QueueDir(), path)
	if err != nil || rest == ".." || strings.HasPrefix(rest, "../") {
		return "", false
	}
	return rest, true
}

// Reachable reports whether a service can get to a socket of pecd at all.
func (p *Postfix) Reachable(s *Service, addr string) bool {
	_, inside := p.inQueue(addr)
	return inside || !strings.HasPrefix(addr, "unix:") || !p.Chrooted(s)
}

// FindMilter returns pecd's milter in a service's list and its place; -1 if it is not
// there.
func (p *Postfix) FindMilter(s *Service, want string) (Milter, int) {
	for i, m := range Milters(p.In(s, "smtpd_milters")) {
		if p.Reaches(s, m.Address, want) {
			return m, i
		}
	}
	return Milter{}, -1
}

// Silenced reports whether a service's milters are switched off, whatever its list says.
func (p *Postfix) Silenced(s *Service) bool {
	return slices.Contains(Words(p.In(s, "receive_override_options")), "no_milters")
}

// calls reports whether a milter that stands in a service's list is pecd's door.
func (p *Postfix) calls(s *Service, m Milter, door string) bool {
	return door != "" && (p.Reaches(s, m.Address, door) || m.Address == door)
}

// Strays are the services that call pecd where it has no business: a filter's way back,
// where the message would pass pecd a second time, or port 25, where nobody logs in. The
// listener is looked at apart.
func (p *Postfix) Strays(w Wants) (list []*Service) {
	submissions, port25 := p.Submissions(w.Reinject), p.Port25(w.Reinject)
	for i := range p.Services {
		s := &p.Services[i]
		if s.Program != "smtpd" || p.isListener(s, w.Reinject) || p.Silenced(s) {
			continue
		}
		access, gate := slices.Contains(submissions, s), slices.Contains(port25, s)
		if slices.ContainsFunc(Milters(p.In(s, "smtpd_milters")), func(m Milter) bool {
			return !access && p.calls(s, m, w.Access) || !gate && p.calls(s, m, w.Gate)
		}) {
			list = append(list, s)
		}
	}
	return list
}
