package setup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// UndoSendmail takes the last application in dir back and returns where its backup
// is. Where others have changed a file since, only those of our changes are taken back
// that are still there as they were, and left names the rest; ErrNothing if nothing was
// applied. While something of the rest calls pecd the backup has no UndoneSuffix: once
// pecd is taken out there, the next UndoSendmail takes back what that needed.
func UndoSendmail(ctx context.Context, dir, program string) (backup string, left []string, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return "", nil, err
	}
	s := &Sendmail{Dir: dir}
	if s.Program, err = findSendmail(ctx, program); err != nil {
		return "", nil, err
	}
	list, err := backups(dir)
	if err != nil {
		return "", nil, err
	}
	if len(list) == 0 {
		return "", nil, fmt.Errorf("%s: %w", dir, ErrNothing)
	}
	backup = list[len(list)-1]
	b, err := os.ReadFile(filepath.Join(backup, "manifest.json"))
	if err != nil {
		return backup, nil, err
	}
	var m sendmailManifest
	if err := json.Unmarshal(b, &m); err != nil {
		return backup, nil, fmt.Errorf("%s: %w", backup, err)
	}
	back, err := s.reverse(backup, &m)
	if err == nil {
		err = s.starts(ctx, back.files)
	}
	if err == nil {
		err = s.putBack(ctx, backup, &m, back.files)
	}
	if err == nil {
		_, err = s.ask(ctx, s.path(CFFile), nil)
	}
	if err != nil || back.calls {
		return backup, back.left, err
	}
	done := backup + UndoneSuffix
	return done, back.left, os.Rename(backup, done)
}

// A backText is a file of an application as it is, and as it shall be again.
type backText struct {
	madeChange
	now, text []byte // text nil: the file, and what was made of it, go
	whole     bool   // all is taken back
}

// A sendmailReversal is what is taken back of an application.
type sendmailReversal struct {
	files []backText
	left  []string // files of which not all is taken back
	calls bool     // what stays calls pecd
}

// reverse says what the files of an application shall be again. It changes nothing.
func (s *Sendmail) reverse(backup string, m *sendmailManifest) (r sendmailReversal, err error) {
	routed := false
	for i, f := range m.Files {
		old, err := os.ReadFile(filepath.Join(backup, fmt.Sprint(i)))
		if err != nil {
			return r, err
		}
		now, err := os.ReadFile(f.Name)
		if errors.Is(err, os.ErrNotExist) && !f.Was {
			// Somebody, or the undo that was interrupted, has removed it; not what was made of it.
			r.files = append(r.files, backText{madeChange: f, whole: true})
			continue
		}
		if err != nil {
			return r, err
		}
		b := backText{madeChange: f, now: now, text: old, whole: true}
		untouched := string(now) == f.After || bytes.Equal(now, old)
		switch {
		case f.Name == s.path(MCFile) && (routed || !untouched): // the last of the files
			b.text, b.whole, r.calls = revertMC(now, old, []byte(f.After), routed)
		case !untouched:
			b.text, b.whole = revert(now, diff(content(old), content([]byte(f.After))))
			routed = routed || f.Type != "" && sendsToPecd(b.text)
		}
		if !f.Was && len(b.text) == 0 {
			b.text = nil
		}
		r.files = append(r.files, b)
	}
	for i := range r.files {
		b := &r.files[i]
		if r.calls && b.Name != s.path(MCFile) && !bytes.Equal(b.now, b.text) {
			b.text, b.whole = b.now, false // pecd needs it
		}
		if !b.whole {
			r.left = append(r.left, b.Name)
		}
	}
	return r, nil
}

// sendsToPecd reports whether a mailertable has a way to pecd.
func sendsToPecd(table []byte) bool {
	return slices.ContainsFunc(content(table), func(line string) bool {
		f := strings.Fields(line)
		return key(line) != "" && len(f) > 1 && strings.HasPrefix(f[1], pecdMailer+":")
	})
}

// starts looks whether Sendmail would start with what is left of sendmail.mc: it does not
// where a daemon asks for a filter that is not defined.
func (s *Sendmail) starts(ctx context.Context, files []backText) error {
	for _, f := range files {
		if f.Name != s.path(MCFile) {
			continue
		}
		cf, err := s.build(ctx, f.text)
		if err != nil {
			return err
		}
		if names := parseCF(cf).undefined(); len(names) > 0 {
			return fmt.Errorf("%w: nothing was changed: what would be left of %s asks for filters that would not be defined any more (%s), and with it Sendmail does not start: take them out of InputMailFilters", ErrSendmail, s.path(MCFile), strings.Join(names, ", "))
		}
	}
	return nil
}

// takeBack puts the files of a backup back and makes again what is made of them.
func (s *Sendmail) takeBack(ctx context.Context, backup string, m *sendmailManifest) error {
	back, err := s.reverse(backup, m)
	if err != nil {
		return err
	}
	return s.putBack(ctx, backup, m, back.files)
}

// putBack writes files as they shall be again, and makes what is made of them.
func (s *Sendmail) putBack(ctx context.Context, backup string, m *sendmailManifest, files []backText) error {
	var tables []madeChange
	for _, f := range files {
		if f.text != nil || f.Was {
			if err := replace(f.Name, f.text); err != nil {
				return err
			}
			tables = append(tables, f.madeChange)
			continue
		}
		err := os.Remove(f.Name)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			err = nil
			if f.Type != "" && !f.WasMap && isThere(f.Name+".db") {
				err = os.Remove(f.Name + ".db")
			}
		}
		if err != nil {
			return err
		}
	}
	if err := s.rebuild(ctx, tables); err != nil {
		return err
	}
	return s.asMade(backup, m)
}

// asMade puts back what was made of files that are again as they were, to the octet:
// sendmail.cf with the comments that tell when it was made, and tables.
func (s *Sendmail) asMade(backup string, m *sendmailManifest) error {
	old, err := os.ReadFile(filepath.Join(backup, CFFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil // a backup of an earlier pecd
	}
	now, nerr := os.ReadFile(s.path(CFFile))
	if err := errors.Join(err, nerr); err != nil {
		return err
	}
	if _, other := differ(now, old); !other {
		if err := replace(s.path(CFFile), old); err != nil {
			return err
		}
	}
	for i, f := range m.Files {
		made, err := os.ReadFile(filepath.Join(backup, fmt.Sprint(i)+".db"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		old, oerr := os.ReadFile(filepath.Join(backup, fmt.Sprint(i)))
		now, nerr := os.ReadFile(f.Name)
		if err := errors.Join(err, oerr, nerr); err != nil {
			return err
		}
		if bytes.Equal(now, old) {
			if err := replace(f.Name+".db", made); err != nil {
				return err
			}
		}
	}
	return nil
}

// revert takes changes back that are still there. whole is false if some are not.
func revert(now []byte, hunks []*hunk) (text []byte, whole bool) {
	s, whole := string(now), true
	for _, h := range slices.Backward(hunks) {
		ours, theirs := strings.Join(h.added, "\n")+"\n", ""
		if len(h.removed) > 0 {
			theirs = strings.Join(h.removed, "\n") + "\n"
		}
		if len(h.added) == 0 || strings.Count("\n"+s, "\n"+ours) != 1 {
			whole = false
			continue
		}
		s = strings.Replace("\n"+s, "\n"+ours, "\n"+theirs, 1)[1:]
	}
	return []byte(s), whole
}

// revertMC is revert for sendmail.mc. The daemons come first. If what is left of them asks
// one of our filters, or mail is routed to pecd still, pecd must be able to hand in what it
// has signed: then calls is true, and only what nothing asks for is taken back.
func revertMC(now, old, after []byte, routed bool) (text []byte, whole, calls bool) {
	var daemons, msa, rest []*hunk
	listener := false
	for _, h := range diff(content(old), content(after)) {
		switch {
		case h.adds("DAEMON_OPTIONS(`Name=pecd,"):
			listener = true
			rest = append(rest, h)
		case h.adds("DAEMON_OPTIONS("):
			daemons = append(daemons, h)
		case h.adds("FEATURE(`no_default_msa')"):
			msa = append(msa, h)
		default:
			rest = append(rest, h)
		}
	}
	text, whole = revert(now, daemons)
	if says(text, "Name=MSA") {
		whole = whole && len(msa) == 0 // with the default one there would be two
	} else {
		more := true
		text, more = revert(text, msa)
		whole = whole && more
	}
	asked := func(h *hunk) bool { return filterOf(h) != "" && asksFor(string(text), filterOf(h)) }
	if calls = listener && routed || slices.ContainsFunc(rest, asked); calls {
		rest = slices.DeleteFunc(rest, func(h *hunk) bool { return filterOf(h) == "" || asked(h) })
	}
	text, more := revert(text, rest)
	return text, whole && more && !calls, calls
}

// adds reports whether a change adds a line that has s in it.
func (h *hunk) adds(s string) bool {
	return says([]byte(strings.Join(h.added, "\n")), s)
}

// says reports whether a line of a sendmail.mc that m4 sees has s in it.
func says(mc []byte, s string) bool {
	return slices.ContainsFunc(content(mc), func(line string) bool { return active(line) && strings.Contains(line, s) })
}

var (
	definesFilter = regexp.MustCompile("MAIL_FILTER\\(`([^',]+)'")
	// Of a key in DAEMON_OPTIONS Sendmail reads the first letter.
	namesFilters = regexp.MustCompile("(?i)(?:^|[,`\\s])I[a-z]*=([^,']*)|`confINPUT_MAIL_FILTERS',\\s*`([^']*)'")
)

// filterOf is the name of the filter that a hunk adds; empty: none.
func filterOf(h *hunk) string {
	for _, line := range h.added {
		if m := definesFilter.FindStringSubmatch(line); m != nil && active(line) && len(h.removed) == 0 {
			return m[1]
		}
	}
	return ""
}

// asksFor reports whether a sendmail.mc has a daemon ask a filter.
func asksFor(mc, filter string) bool {
	for line := range strings.Lines(mc) {
		if !active(line) {
			continue
		}
		for _, m := range namesFilters.FindAllStringSubmatch(line, -1) {
			if slices.Contains(list(m[1]+","+m[2]), filter) {
				return true
			}
		}
	}
	return false
}

// undefined are the filters that daemons ask and that Sendmail does not know.
func (f *cfFile) undefined() (names []string) {
	for _, d := range f.daemons {
		for _, name := range d.Filters {
			if _, ok := f.filters[name]; !ok && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}
