package setup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// backupPrefix begins the names of backup directories, beside main.cf.
const backupPrefix = "pecd-backup-"

// A manifest says what an application changed, and what was there before.
type manifest struct {
	Made     time.Time         `json:"made"`
	Params   []Param           `json:"params"`
	Services []*Edit           `json:"services"`
	Tables   map[string]string `json:"tables"`   // of ours, by name: their type
	Replaced []string          `json:"replaced"` // of them, those of which there is a copy
	After    map[string]string `json:"after"`    // main.cf and master.cf as we left them
}

// Apply makes the plan's changes and returns the backup directory. Postfix is asked
// whether it likes them; if not, everything is put back and the error says why. A
// running Postfix uses them after postfix reload.
func (p *Postfix) Apply(ctx context.Context, plan *Plan, want Wants, now time.Time) (backup string, err error) {
	if err := p.unchanged(); err != nil {
		return "", err
	}
	after, err := p.rehearse(ctx, plan)
	if err != nil {
		return "", err
	}
	backup = filepath.Join(p.Dir, backupPrefix+now.UTC().Format("20060102T150405Z"))
	if err := p.keep(backup, plan, after, now); err != nil {
		return "", err
	}
	if err = p.install(ctx, plan, after); err == nil {
		err = p.approve(ctx, want)
	}
	if err == nil {
		return backup, nil
	}
	// The caller's context may be what ended it; going back must not stop half way.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if undone := p.restore(back, backup, !errors.Is(err, ErrMeanwhile)); undone != nil {
		return backup, errors.Join(err, fmt.Errorf("and putting it back failed; the old files are in %s: %w", backup, undone))
	}
	return "", fmt.Errorf("%w; everything was put back", errors.Join(err, os.RemoveAll(backup)))
}

// unchanged looks whether main.cf and master.cf are still what the plan was made of.
func (p *Postfix) unchanged() error {
	now, err := contents(p.Dir)
	if err != nil {
		return err
	}
	for _, name := range configFiles {
		if !bytes.Equal(now[name], p.files[name]) {
			return fmt.Errorf("%w: %s %w", ErrPostfix, filepath.Join(p.Dir, name), ErrMeanwhile)
		}
	}
	return nil
}

// whole has write make a backup under another name, which it loses once it is complete:
// undo must never meet the half of one.
func whole(dir string, write func(part string) error) error {
	part := dir + ".part"
	err := os.Mkdir(part, 0o700)
	if err != nil {
		return err
	}
	if err = write(part); err == nil {
		err = os.Rename(part, dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	return nil
}

// backups are the directories of applications below dir that were not taken back, oldest
// first. Some have no manifest: an earlier pecd was interrupted, before it changed anything.
func backups(dir string) ([]string, error) {
	list, err := filepath.Glob(filepath.Join(dir, backupPrefix+"*Z"))
	list = slices.DeleteFunc(list, func(b string) bool {
		_, err := os.Stat(filepath.Join(b, "manifest.json"))
		return errors.Is(err, fs.ErrNotExist)
	})
	slices.Sort(list)
	return list, err
}

// Applications is how many in dir were not taken back.
func Applications(dir string) (int, error) {
	list, err := backups(dir)
	return len(list), err
}

// keep writes the backup before anything is changed.
func (p *Postfix) keep(backup string, plan *Plan, after map[string][]byte, now time.Time) error {
	return whole(backup, func(dir string) error { return p.copyTo(dir, plan, after, now) })
}

func (p *Postfix) copyTo(dir string, plan *Plan, after map[string][]byte, now time.Time) error {
	m := manifest{Made: now, Params: plan.Params, Services: plan.Services, Tables: map[string]string{}, After: map[string]string{}}
	names := slices.Clone(configFiles)
	for _, f := range plan.Files {
		m.Tables[f.Name] = f.Type
		if _, err := os.Stat(filepath.Join(p.Dir, f.Name)); err == nil {
			m.Replaced = append(m.Replaced, f.Name)
			names = append(names, f.Name)
		}
	}
	for name, b := range after {
		m.After[name] = string(b)
	}
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(p.Dir, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "manifest.json"), b, 0o600)
}

// install puts tables and configuration in their places: tables first, so that what
// names them finds them.
func (p *Postfix) install(ctx context.Context, plan *Plan, after map[string][]byte) error {
	for _, f := range plan.Files {
		if err := p.writeTable(ctx, f.Name, f.Type, []byte(f.Content)); err != nil {
			return err
		}
	}
	if err := p.unchanged(); err != nil {
		return err
	}
	for _, name := range configFiles {
		if err := replace(filepath.Join(p.Dir, name), after[name]); err != nil {
			return err
		}
	}
	return nil
}

func (p *Postfix) writeTable(ctx context.Context, name, kind string, content []byte) error {
	file := filepath.Join(p.Dir, name)
	if err := replace(file, content); err != nil {
		return err
	}
	if kind == "regexp" {
		return nil // Postfix reads the file itself
	}
	_, err := run(ctx, "postmap", "-c", p.Dir, kind+":"+file)
	return err
}

// replace puts content in the place of a file at once, with the mode and owner that it
// had. A symbolic link stays one.
func replace(file string, content []byte) error {
	if to, err := filepath.EvalSymlinks(file); err == nil {
		file = to
	}
	mode, uid, gid := fs.FileMode(0o644), -1, -1
	if st, err := os.Stat(file); err == nil {
		mode = st.Mode().Perm()
		uid, gid = owner(st)
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".pecd-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync())
	if uid >= 0 && os.Geteuid() == 0 {
		err = errors.Join(err, f.Chown(uid, gid))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// approve asks Postfix, and then ourselves, whether the result is what was wanted.
func (p *Postfix) approve(ctx context.Context, want Wants) error {
	if err := Check(ctx, p.Dir); err != nil {
		return err
	}
	again, err := Read(ctx, p.Dir)
	if err != nil {
		return err
	}
	rest, err := again.Plan(ctx, want)
	if err != nil {
		return err
	}
	if !rest.Empty() {
		return fmt.Errorf("%w: after the changes these would still be due: %s", ErrPostfix, strings.Join(rest.Names(), ", "))
	}
	return nil
}

// Check asks Postfix what it thinks of the configuration in dir.
func Check(ctx context.Context, dir string) error {
	if _, err := run(ctx, "postconf", "-c", dir, "-M"); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil // postfix(1) works for root only
	}
	if _, err := run(ctx, "postfix", "-c", dir, "check"); err != nil {
		return fmt.Errorf("%w (Postfix tells the reason to its log, and to a terminal)", err)
	}
	return nil
}

// Names lists what a plan changes.
func (p *Plan) Names() (list []string) {
	for _, c := range p.Params {
		list = append(list, c.Name)
	}
	for _, e := range p.Services {
		list = append(list, e.Key)
	}
	for _, f := range p.Files {
		list = append(list, f.Name)
	}
	return list
}
