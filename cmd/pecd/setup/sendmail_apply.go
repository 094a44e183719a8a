package setup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// maxShown is how many changes of a table are shown: one of all providers is long.
const maxShown = 40

// Diff writes what the plan changes as a unified diff without context, each change
// after its reason. patch(1) takes it, unless it says that there is more.
func (s *Sendmail) Diff(plan *SendmailPlan, to io.Writer) error {
	var out bytes.Buffer
	for _, f := range plan.Files {
		f.print(&out)
	}
	if !plan.Empty() {
		fmt.Fprintf(&out, "# m4 makes %s of %s anew, makemap the tables\n", s.path(CFFile), MCFile)
	}
	_, err := to.Write(out.Bytes())
	return err
}

func (f Rewrite) print(out io.Writer) {
	old := f.Name
	if f.Old == nil {
		old = "/dev/null"
	}
	fmt.Fprintf(out, "--- %s\n+++ %s\n", old, f.Name)
	hunks := diff(content(f.Old), content(f.New))
	for i, h := range hunks {
		if f.Type != "" && i == maxShown {
			fmt.Fprintf(out, "# and %d changes more, of the same kind\n", len(hunks)-i)
			break
		}
		var reasons []string
		for _, line := range slices.Concat(h.removed, h.added) {
			if why := f.reasons[line]; why != "" && !slices.Contains(reasons, why) {
				reasons = append(reasons, why)
			}
		}
		h.print(out, reasons)
	}
}

// A sendmailManifest says what an application changed.
type sendmailManifest struct {
	Made  time.Time    `json:"made"`
	Files []madeChange `json:"files"`
}

// A madeChange is a file that was changed; what was there before is in the backup under
// the number of the change.
type madeChange struct {
	Name   string `json:"name"`
	Was    bool   `json:"was"`    // it was there before
	Type   string `json:"type"`   // of the table made of it; empty: none
	WasMap bool   `json:"wasmap"` // and that was there before
	After  string `json:"after"`  // as we left it
}

// Apply makes the plan's changes and returns the backup directory. Sendmail is asked
// whether it likes them and where it would send mail now; if anything is not as it
// should be, everything is put back and the error says why. A running Sendmail uses
// them after a restart.
func (s *Sendmail) Apply(ctx context.Context, plan *SendmailPlan, want Wants, now time.Time) (backup string, err error) {
	for _, f := range plan.Files {
		if err := f.unchanged(); err != nil {
			return "", err
		}
	}
	backup = s.path(backupPrefix + now.UTC().Format("20060102T150405Z"))
	m, err := s.keep(backup, plan, now)
	if err != nil {
		return "", err
	}
	for _, f := range plan.Files {
		if err = f.unchanged(); err == nil {
			err = replace(f.Name, f.New)
		}
		if err != nil {
			break
		}
	}
	if err == nil {
		err = s.rebuild(ctx, m.Files)
	}
	if err == nil {
		err = s.approve(ctx, want)
	}
	if err == nil {
		return backup, nil
	}
	// The caller's context may be what ended it; going back must not stop half way.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if _, undone := s.takeBack(back, backup, m); undone != nil {
		return backup, errors.Join(err, fmt.Errorf("and putting it back failed; the old files are in %s: %w", backup, undone))
	}
	return "", fmt.Errorf("%w; everything was put back", errors.Join(err, os.RemoveAll(backup)))
}

// unchanged looks whether a file is still what its new content was made of.
func (f Rewrite) unchanged() error {
	now, err := os.ReadFile(f.Name)
	if errors.Is(err, os.ErrNotExist) {
		now, err = nil, nil
	}
	if err == nil && !bytes.Equal(now, f.Old) {
		err = fmt.Errorf("%w: %s %w", ErrSendmail, f.Name, ErrMeanwhile)
	}
	return err
}

// keep writes the backup before anything is changed.
func (s *Sendmail) keep(backup string, plan *SendmailPlan, now time.Time) (m *sendmailManifest, err error) {
	err = whole(backup, func(dir string) error {
		m, err = s.copyTo(dir, plan, now)
		return err
	})
	return m, err
}

func (s *Sendmail) copyTo(dir string, plan *SendmailPlan, now time.Time) (*sendmailManifest, error) {
	m := &sendmailManifest{Made: now}
	for i, f := range plan.Files {
		c := madeChange{Name: f.Name, Was: f.Old != nil, Type: f.Type, After: string(f.New)}
		_, err := os.Stat(f.Name + ".db")
		c.WasMap = err == nil
		m.Files = append(m.Files, c)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), f.Old, 0o600); err != nil {
			return nil, err
		}
		if f.Type != "" && c.WasMap && f.Old != nil && !stale(f.Name) {
			if err := copyFile(f.Name+".db", filepath.Join(dir, fmt.Sprint(i)+".db")); err != nil {
				return nil, err
			}
		}
	}
	if err := copyFile(s.path(CFFile), filepath.Join(dir, CFFile)); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	return m, os.WriteFile(filepath.Join(dir, "manifest.json"), b, 0o600)
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// rebuild makes sendmail.cf and the tables of the changed files.
func (s *Sendmail) rebuild(ctx context.Context, files []madeChange) error {
	mc, err := os.ReadFile(s.path(MCFile))
	if err != nil {
		return err
	}
	cf, err := s.build(ctx, mc)
	if err != nil {
		return err
	}
	if err := replace(s.path(CFFile), cf); err != nil {
		return err
	}
	for _, f := range files {
		if f.Type == "" {
			continue
		}
		text, err := os.ReadFile(f.Name)
		if errors.Is(err, os.ErrNotExist) || err == nil && !f.WasMap && len(text) == 0 {
			continue
		}
		if err != nil {
			return err
		}
		if _, errs, err := command(ctx, s.Dir, text, s.makemap(), "-C", s.path(CFFile), f.Type, f.Name); err != nil {
			return fmt.Errorf("%w: makemap %s %s: %w: %s", ErrSendmail, f.Type, f.Name, err, strings.TrimSpace(errs))
		}
	}
	return nil
}

// makemap is the program that makes tables: it lies beside Sendmail, or on the path.
func (s *Sendmail) makemap() string {
	if to, err := filepath.EvalSymlinks(s.Program); err == nil {
		if beside := filepath.Join(filepath.Dir(to), "makemap"); isThere(beside) {
			return beside
		}
	}
	return "makemap"
}

func isThere(file string) bool { _, err := os.Stat(file); return err == nil }

// approve asks Sendmail, and then ourselves, whether the result is what was wanted.
func (s *Sendmail) approve(ctx context.Context, want Wants) error {
	again, err := ReadSendmail(ctx, s.Dir, s.Program)
	if err != nil {
		return err
	}
	if fresh := newComplaints(s.said.complaints, again.said.complaints); len(fresh) > 0 {
		return fmt.Errorf("%w: it says of the new %s: %s", ErrSendmail, CFFile, strings.Join(fresh, "; "))
	}
	routes, err := again.Routes(ctx, want.Domains)
	if err != nil {
		return err
	}
	for _, d := range want.Domains {
		if !again.RoutesTo(routes[d], want.LMTP) {
			return fmt.Errorf("%w: after the changes it would still send mail for %s by the mailer %q", ErrSendmail, d, routes[d])
		}
	}
	rest, err := again.Plan(ctx, want)
	if err != nil {
		return err
	}
	if !rest.Empty() {
		var still bytes.Buffer
		err := again.Diff(rest, &still)
		return errors.Join(fmt.Errorf("%w: something in %s, or in what it includes, undoes a part of the changes; these would still be due:\n%s", ErrSendmail, MCFile, still.String()), err)
	}
	return nil
}

// UndoSendmail takes the last application in dir back and returns where its backup
// was. Where others have changed a file since, only those of our changes are taken back
// that are still there as they were, and left names the rest; ErrNothing if nothing was
// applied.
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
	if left, err = s.takeBack(ctx, backup, &m); err != nil {
		return backup, left, err
	}
	if _, err := s.ask(ctx, s.path(CFFile), nil); err != nil {
		return backup, left, err
	}
	cf, err := os.ReadFile(s.path(CFFile))
	if err != nil {
		return backup, left, err
	}
	if names := parseCF(cf).undefined(); len(names) > 0 {
		return backup, left, fmt.Errorf("%w: what is left of %s asks for filters that are not defined any more (%s), and with it Sendmail does not start: take them out of InputMailFilters", ErrSendmail, s.path(MCFile), strings.Join(names, ", "))
	}
	done := backup + ".undone"
	return done, left, os.Rename(backup, done)
}

// takeBack puts the files of a backup back and makes again what is made of them.
func (s *Sendmail) takeBack(ctx context.Context, backup string, m *sendmailManifest) (left []string, err error) {
	var tables []madeChange
	for i, f := range m.Files {
		old, err := os.ReadFile(filepath.Join(backup, fmt.Sprint(i)))
		if err != nil {
			return left, err
		}
		now, err := os.ReadFile(f.Name)
		if errors.Is(err, os.ErrNotExist) && !f.Was {
			continue // somebody, or the undo that was interrupted, has removed it
		}
		if err != nil {
			return left, err
		}
		text, whole := old, true
		if string(now) != f.After {
			text, whole = revert(now, old, []byte(f.After))
		}
		if !whole {
			left = append(left, f.Name)
		}
		if !f.Was && len(text) == 0 {
			err = os.Remove(f.Name)
			if err == nil && f.Type != "" && !f.WasMap && isThere(f.Name+".db") {
				err = os.Remove(f.Name + ".db")
			}
		} else {
			err = replace(f.Name, text)
			tables = append(tables, f)
		}
		if err != nil {
			return left, err
		}
	}
	if err := s.rebuild(ctx, tables); err != nil {
		return left, err
	}
	return left, s.asMade(backup, m)
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

// revert takes out of now the changes from old to after that are still there. whole is
// false if some are not.
func revert(now, old, after []byte) (text []byte, whole bool) {
	s, whole := string(now), true
	var filters []*hunk
	hunks := diff(content(old), content(after))
	slices.Reverse(hunks)
	for _, h := range hunks {
		if filterOf(h) != "" {
			filters = append(filters, h)
		}
	}
	// Filters last: one that is still asked for must stay, or Sendmail does not start.
	hunks = append(slices.DeleteFunc(hunks, func(h *hunk) bool { return filterOf(h) != "" }), filters...)
	for _, h := range hunks {
		if name := filterOf(h); name != "" && asksFor(s, name) {
			whole = false
			continue
		}
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

// content is the lines of a file, which may be empty.
func content(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return lines(b)
}

var (
	definesFilter = regexp.MustCompile("MAIL_FILTER\\(`([^',]+)'")
	// Of a key in DAEMON_OPTIONS Sendmail reads the first letter.
	namesFilters = regexp.MustCompile("(?i)[,` ]I[a-z]*=([^,']*)|`confINPUT_MAIL_FILTERS',\\s*`([^']*)'")
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
