package setup

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
)

// A reversal takes back, one by one, what is still as an application left it.
type reversal struct {
	now        *Postfix
	called     bool     // what stays calls pecd
	back       []*Edit  // services that become what they were, or go
	set, unset []string // settings of main.cf, as postconf(1) takes them
	params     []string // settings that stay
	services   []string // services that stay
}

// revert takes back what is still as we left it. While something that others have changed
// still calls pecd, pecd must be able to hand in what it has signed: then calls is true,
// and only services that nothing needs are taken back.
func (p *Postfix) revert(ctx context.Context, m *manifest) (left []string, calls bool, err error) {
	now, err := Read(ctx, p.Dir)
	if err != nil {
		return nil, false, err
	}
	r := &reversal{now: now}
	r.sort(m.Services)
	size := r.now.Int("message_size_limit")
	if r.called = r.calls(m); r.called {
		r.params = r.standing(m.Params)
	} else {
		r.restore(m.Params)
		size = r.size(m.Params)
	}
	r.keep(func(e *Edit) bool {
		return r.called && isListener(e) || smallMailbox(parseLine(e.Old), parseLine(e.New), size)
	})
	undone := r.keys()
	r.keep(func(e *Edit) bool { return r.needed(e.Key, undone) })
	return slices.Concat(r.params, r.services), r.called, r.write(ctx)
}

// sort finds the services that can be taken back. What is as it was already needs nothing.
func (r *reversal) sort(edits []*Edit) {
	for _, e := range edits {
		s := r.now.serviceOf(e.Key)
		switch {
		case s == nil && e.Old == "", s != nil && s.Line() == e.Old:
		case s == nil || s.Line() != e.New:
			r.services = append(r.services, e.Key)
		default:
			r.back = append(r.back, e)
		}
	}
}

// was reports whether a setting is as it was before the application.
func (p *Postfix) was(c Param) bool {
	return p.set[c.Name] == c.Had && (!c.Had || p.raw[c.Name] == c.Old)
}

// standing are the settings that are not as they were.
func (r *reversal) standing(params []Param) (names []string) {
	for _, c := range params {
		if !r.now.was(c) {
			names = append(names, c.Name)
		}
	}
	return names
}

// restore finds the settings that can be taken back.
func (r *reversal) restore(params []Param) {
	size := r.size(params)
	for _, c := range params {
		small := (c.Name == "mailbox_size_limit" || c.Name == "virtual_mailbox_limit") && tooSmall(number(c.Old), size)
		switch {
		case r.now.was(c):
		case r.now.raw[c.Name] != c.New || small:
			r.params = append(r.params, c.Name)
		case c.Had:
			r.set = append(r.set, c.Name+"="+c.Old)
		default:
			r.unset = append(r.unset, c.Name)
		}
	}
}

// size is the message_size_limit that is in force afterwards.
func (r *reversal) size(params []Param) int64 {
	for _, c := range params {
		if c.Name == "message_size_limit" && r.now.raw[c.Name] == c.New {
			return number(c.Old)
		}
	}
	return r.now.Int("message_size_limit")
}

// tooSmall reports whether a limit to mailboxes stops what delivers to them where messages
// may have size octets (0: any).
func tooSmall(limit, size int64) bool { return limit != 0 && (size == 0 || limit < size) }

// smallMailbox reports whether a service would stop if it became what it was.
func smallMailbox(old, now *Service, size int64) bool {
	return slices.ContainsFunc([]string{"mailbox_size_limit", "virtual_mailbox_limit"}, func(name string) bool {
		was, own := old.Option(name)
		is, _ := now.Option(name)
		return own && is == "0" && tooSmall(number(was), size)
	})
}

// keep leaves those services alone that must stay.
func (r *reversal) keep(must func(e *Edit) bool) {
	r.back = slices.DeleteFunc(r.back, func(e *Edit) bool {
		stays := must(e)
		if stays {
			r.services = append(r.services, e.Key)
		}
		return stays
	})
}

func (r *reversal) keys() (keys []string) {
	for _, e := range r.back {
		keys = append(keys, e.Key)
	}
	return keys
}

// isListener reports whether an edit is that of the listener for signed messages.
func isListener(e *Edit) bool {
	cleanup, _ := parseLine(e.New).Option("cleanup_service_name")
	return cleanup == "recleanup"
}

// calls reports whether the application brought the listener, and something that is not
// taken back with it calls pecd.
func (r *reversal) calls(m *manifest) bool {
	return slices.ContainsFunc(m.Services, isListener) && (r.arrives(m.Params) || r.asks(m.Services))
}

// arrives reports whether a list of tables that somebody has changed sends mail to pecd.
func (r *reversal) arrives(params []Param) bool {
	const list = "transport_maps"
	now := r.now.raw[list]
	return slices.ContainsFunc(params, func(c Param) bool { return c.Name == list && now != c.New && now != c.Old }) &&
		slices.ContainsFunc(Words(now), func(w string) bool {
			return strings.HasSuffix(w, ":"+filepath.Join(r.now.Dir, TransportFile)) || strings.HasSuffix(w, ":"+filepath.Join(r.now.Dir, UsersFile))
		})
}

// asks reports whether a service that stays as it is asks a milter that we have added.
func (r *reversal) asks(edits []*Edit) bool {
	ours, undone := map[string]bool{}, r.keys()
	for _, e := range edits {
		if place, ok := r.added(e); ok && !isListener(e) {
			ours[place] = true
		}
	}
	return slices.ContainsFunc(r.now.Services, func(s Service) bool {
		return s.Program == "smtpd" && !slices.Contains(undone, s.Key()) && !r.now.Silenced(&s) &&
			slices.ContainsFunc(Milters(r.now.In(&s, "smtpd_milters")), func(m Milter) bool { return ours[r.now.place(&s, m)] })
	})
}

// added is where pecd's milter is that an edit has added, as the last one.
func (r *reversal) added(e *Edit) (place string, ok bool) {
	s, was := parseLine(e.New), parseLine(e.Old)
	value, _ := s.Option("smtpd_milters")
	list := Milters(value)
	if len(list) == 0 || list[len(list)-1].Options["default_action"] != "tempfail" {
		return "", false
	}
	place = r.now.place(s, list[len(list)-1])
	before, own := was.Option("smtpd_milters")
	if !own {
		before = r.now.Get("smtpd_milters")
	}
	return place, !slices.ContainsFunc(Milters(before), func(m Milter) bool { return r.now.place(was, m) == place })
}

// place is where a milter of a service is, written in one way.
func (p *Postfix) place(s *Service, m Milter) string {
	if path, ok := strings.CutPrefix(m.Address, "unix:"); ok {
		return "unix:" + p.resolve(s, path)
	}
	return plainInet(m.Address)
}

// needed reports whether a service is one without which what stays takes no mail: the
// cleanup of a service, but for those that go or become what they were, or what a table
// delivers by.
func (r *reversal) needed(key string, undone []string) bool {
	name, kind, _ := strings.Cut(key, "/")
	if kind != "unix" {
		return false
	}
	if name == "lmtp" && (r.called || slices.Contains(r.params, "transport_maps")) {
		return true
	}
	return slices.ContainsFunc(r.now.Services, func(s Service) bool {
		return s.Program == "smtpd" && !slices.Contains(undone, s.Key()) && r.now.In(&s, "cleanup_service_name") == name
	})
}

// write has postconf(1) take back what can be.
func (r *reversal) write(ctx context.Context) error {
	var edited, gone []string
	for _, e := range r.back {
		if e.Old != "" {
			edited = append(edited, e.Key+"="+e.Old)
		} else {
			gone = append(gone, e.Key)
		}
	}
	for _, c := range []struct {
		flag string
		args []string
	}{{"-e", r.set}, {"-X", r.unset}, {"-M", edited}, {"-MX", gone}} {
		if len(c.args) > 0 {
			if _, err := run(ctx, "postconf", append([]string{"-c", r.now.Dir, c.flag}, c.args...)...); err != nil {
				return err
			}
		}
	}
	return nil
}
