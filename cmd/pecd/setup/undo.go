package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// owner is who owns a file.
func owner(st fs.FileInfo) (uid, gid int) {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid), int(s.Gid)
	}
	return -1, -1
}

// UndoneSuffix ends the names of the backups of applications that were taken back.
const UndoneSuffix = ".undone"

// Undo takes the last application back and returns where its backup is. Where others
// have changed the files since, only what is still as it was left is taken back, and
// left names the rest; ErrNothing if nothing was applied. While something of the rest
// calls pecd the backup has no UndoneSuffix: once pecd is taken out there, the next Undo
// takes back what that needed.
func (p *Postfix) Undo(ctx context.Context) (backup string, left []string, err error) {
	list, err := backups(p.Dir)
	if err != nil {
		return "", nil, err
	}
	if len(list) == 0 {
		return "", nil, fmt.Errorf("%s: %w", p.Dir, ErrNothing)
	}
	backup = list[len(list)-1]
	m, err := readManifest(backup)
	if err != nil {
		return backup, nil, err
	}
	now, err := contents(p.Dir)
	if err != nil {
		return backup, nil, err
	}
	calls := false
	if string(now["main.cf"]) == m.After["main.cf"] && string(now["master.cf"]) == m.After["master.cf"] {
		err = p.restore(ctx, backup, true)
	} else if left, calls, err = p.revert(ctx, m); err == nil && !calls {
		err = p.restoreTables(ctx, backup, m, left)
	}
	if err != nil {
		return backup, left, err
	}
	if err := Check(ctx, p.Dir); err != nil {
		return backup, left, err
	}
	if calls {
		return backup, left, nil
	}
	done := backup + UndoneSuffix
	return done, left, os.Rename(backup, done)
}

func readManifest(backup string) (*manifest, error) {
	b, err := os.ReadFile(filepath.Join(backup, "manifest.json"))
	if err != nil {
		return nil, err
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", backup, err)
	}
	return &m, nil
}

// restore puts the files of a backup back, as they were; all of them, or the tables alone.
func (p *Postfix) restore(ctx context.Context, backup string, all bool) error {
	m, err := readManifest(backup)
	if err != nil {
		return err
	}
	old, err := contents(backup)
	if err != nil {
		return err
	}
	for _, name := range configFiles {
		if !all {
			continue // what somebody has written there is his
		}
		if err := replace(filepath.Join(p.Dir, name), old[name]); err != nil {
			return err
		}
	}
	return p.restoreTables(ctx, backup, m, nil)
}

// restoreTables puts the tables back that were replaced, and removes those that were
// new, unless something still names them.
func (p *Postfix) restoreTables(ctx context.Context, backup string, m *manifest, left []string) error {
	now, err := Read(ctx, p.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for name, kind := range m.Tables {
		file := filepath.Join(p.Dir, name)
		switch {
		case slices.Contains(m.Replaced, name):
			// Of the type that is named again: hash and btree have one file, and the
			// application may have changed one to the other.
			for _, w := range Words(now.Get("transport_maps") + " " + now.Get("smtp_tls_policy_maps")) {
				if k, ok := strings.CutSuffix(unproxied(w), ":"+file); ok {
					kind = k
				}
			}
			b, err := os.ReadFile(filepath.Join(backup, name))
			if err == nil {
				err = p.writeTable(ctx, name, kind, b)
			}
			errs = append(errs, err)
		case len(left) == 0:
			made, err := filepath.Glob(file + "*") // the table and what postmap(1) made of it
			errs = append(errs, err)
			for _, f := range made {
				errs = append(errs, os.Remove(f))
			}
		}
	}
	return errors.Join(errs...)
}

// serviceOf is Service by key.
func (p *Postfix) serviceOf(key string) *Service {
	for i := range p.Services {
		if p.Services[i].Key() == key {
			return &p.Services[i]
		}
	}
	return nil
}
