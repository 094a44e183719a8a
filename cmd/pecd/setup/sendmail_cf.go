package setup

import (
	"net"
	"slices"
	"strings"
)

// A cfFile is a sendmail.cf, as far as pecd is concerned.
type cfFile struct {
	options map[string]string // by name; the last one counts
	daemons []Daemon
	filters map[string]Filter
	tables  map[string]string // K lines: type, flags and file
	locals  []string          // files of names of this machine (Fw)
	text    string
}

// A Filter is a milter that Sendmail knows (an X line).
type Filter struct {
	Name    string
	Address string // unix:path or inet:host:port
	Flags   string // F=: T is "later while it is away", R "refused"; empty: on without it
	equates string // all of it, as it stands there
}

// A Daemon is a socket at which Sendmail listens (DAEMON_OPTIONS).
type Daemon struct {
	Name, Addr, Port, Modifiers string
	Own                         bool     // it has its own list of filters
	Filters                     []string // that list, or else the one for all
	text                        string   // as it stands there
}

func parseCF(cf []byte) *cfFile {
	f := &cfFile{options: map[string]string{}, filters: map[string]Filter{}, tables: map[string]string{}, text: string(cf)}
	var daemons []string
	for _, line := range logical(f.text) {
		rest := strings.TrimSpace(line[1:])
		switch line[0] {
		case 'O':
			name, value, _ := strings.Cut(rest, "=")
			if name, value = strings.TrimSpace(name), strings.TrimSpace(value); name == "DaemonPortOptions" {
				daemons = append(daemons, value)
			} else {
				f.options[strings.ToLower(name)] = value
			}
		case 'X':
			x := parseFilter(rest)
			f.filters[x.Name] = x
		case 'K':
			name, what, _ := strings.Cut(rest, " ")
			f.tables[name] = strings.TrimSpace(what)
		case 'F':
			if file, ok := strings.CutPrefix(line, "Fw"); ok {
				words := strings.Fields(strings.TrimPrefix(strings.TrimSpace(file), "-o"))
				if len(words) > 0 && strings.HasPrefix(words[0], "/") {
					f.locals = append(f.locals, words[0])
				}
			}
		}
	}
	for _, d := range daemons {
		f.daemons = append(f.daemons, f.daemon(d))
	}
	return f
}

// logical are the lines that are no comments, with those that continue them.
func logical(text string) (list []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.TrimSpace(line) == "" || line[0] == '#':
		case (line[0] == ' ' || line[0] == '\t') && len(list) > 0:
			list[len(list)-1] += " " + strings.TrimSpace(line)
		default:
			list = append(list, line)
		}
	}
	return list
}

// get returns an option as it is set, or standard.
func (f *cfFile) get(name, standard string) string {
	if v, ok := f.options[strings.ToLower(name)]; ok {
		return v
	}
	return standard
}

// inputs is the list of filters for daemons that have none of their own.
func (f *cfFile) inputs() []string { return list(f.get("InputMailFilters", "")) }

func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(",; \t", r) })
}

// parseFilter reads "name, S=socket, F=flags, T=timeouts".
func parseFilter(s string) Filter {
	name, equates, _ := strings.Cut(s, ",")
	x := Filter{Name: strings.TrimSpace(name), equates: strings.TrimSpace(equates)}
	for part := range strings.SplitSeq(equates, ",") {
		key, value, _ := strings.Cut(part, "=")
		switch strings.TrimSpace(key) {
		case "S":
			x.Address = milterAddress(strings.TrimSpace(value))
		case "F":
			x.Flags = strings.TrimSpace(value)
		}
	}
	return x
}

// milterAddress writes Sendmail's way to name a socket as pecd does.
func milterAddress(s string) string {
	if path, ok := strings.CutPrefix(s, "local:"); ok {
		return "unix:" + path
	}
	if rest, ok := strings.CutPrefix(s, "inet:"); ok {
		if port, host, ok := strings.Cut(rest, "@"); ok {
			return "inet:" + net.JoinHostPort(plainHost(strings.Trim(host, "[]")), port)
		}
	}
	return s
}

// sendmailAddress writes pecd's way to name a socket as Sendmail does.
func sendmailAddress(addr string) string {
	if rest, ok := strings.CutPrefix(addr, "inet:"); ok {
		if host, port, err := net.SplitHostPort(rest); err == nil {
			return "inet:" + port + "@" + host
		}
	}
	return addr
}

// daemon reads the value of DAEMON_OPTIONS. Of a key Sendmail reads the first letter.
func (f *cfFile) daemon(text string) Daemon {
	d := Daemon{Port: "smtp", Filters: f.inputs(), text: text}
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		value = strings.TrimSpace(value)
		switch strings.ToUpper(key + " ")[0] {
		case 'N':
			d.Name = value
		case 'A':
			d.Addr = strings.TrimPrefix(value, "IPv6:")
		case 'P':
			d.Port = value
		case 'M':
			d.Modifiers = value
		case 'I':
			d.Own, d.Filters = true, list(value)
		}
	}
	return d
}

// Key names a daemon for people.
func (d Daemon) Key() string {
	if d.Name != "" {
		return d.Name
	}
	return "the daemon at port " + d.Port
}

// Daemons are the sockets at which Sendmail listens.
func (s *Sendmail) Daemons() []Daemon { return s.cf.daemons }

// Listener returns the daemon at an address of pecd's configuration, inet:host:port.
func (s *Sendmail) Listener(addr string) (Daemon, bool) {
	for _, d := range s.cf.daemons {
		if d.is(addr) {
			return d, true
		}
	}
	return Daemon{}, false
}

func (d Daemon) is(addr string) bool {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(addr, "inet:"))
	return err == nil && d.Port == port && (d.Addr == "" || plainHost(d.Addr) == plainHost(host))
}

// Submission reports whether users log in there: by the port, or because it takes
// nobody else.
func (d Daemon) Submission() bool {
	return slices.Contains([]string{"587", "submission", "465", "smtps", "submissions"}, strings.ToLower(d.Port)) || strings.ContainsAny(d.Modifiers, "a")
}

// Loopback reports whether it listens on this machine alone.
func (d Daemon) Loopback() bool {
	ip := net.ParseIP(d.Addr)
	return strings.EqualFold(d.Addr, "localhost") || ip != nil && ip.IsLoopback()
}

// Filter returns pecd's filter in a daemon's list and its place there; -1 if it is not.
func (s *Sendmail) Filter(d Daemon, addr string) (Filter, int) {
	for i, name := range d.Filters {
		if x := s.cf.filters[name]; x.Address == milterAddress(sendmailAddress(addr)) {
			return x, i
		}
	}
	return Filter{}, -1
}

// Signs reports whether a filter looks like a DKIM signer.
func (x Filter) Signs() bool {
	return Milter{Address: x.Address}.Signs() || strings.Contains(strings.ToLower(x.Name), "dkim")
}

// Option returns an option of sendmail.cf; standard where it is not set.
func (s *Sendmail) Option(name, standard string) string { return s.cf.get(name, standard) }

// Mailers are Sendmail's ways to deliver, by name.
func (s *Sendmail) Mailers() map[string]Mailer { return s.said.mailers }

// Filters are all filters that Sendmail knows, by name.
func (s *Sendmail) Filters() map[string]Filter { return s.cf.filters }

// Logins reports whether Sendmail takes logins.
func (s *Sendmail) Logins() bool { return strings.Contains(s.cf.text, "\nC{TrustAuthMech}") }
