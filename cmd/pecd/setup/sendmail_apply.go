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
	if undone := s.takeBack(back, backup, m); undone != nil {
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

// content is the lines of a file, which may be empty.
func content(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return lines(b)
}
