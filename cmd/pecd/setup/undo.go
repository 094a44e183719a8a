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

// Undo takes the last application back and returns where its backup was. Where others
// have changed the files since, only what is still as it was left is taken back, and
// left names the rest; ErrNothing if nothing was applied.
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
	if string(now["main.cf"]) == m.After["main.cf"] && string(now["master.cf"]) == m.After["master.cf"] {
		err = p.restore(ctx, backup, true)
	} else if left, err = p.revert(ctx, m); err == nil {
		err = p.restoreTables(ctx, backup, m, left)
	}
	if err != nil {
		return backup, left, err
	}
	if err := Check(ctx, p.Dir); err != nil {
		return backup, left, err
	}
	done := backup + ".undone"
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
	var errs []error
	for name, kind := range m.Tables {
		file := filepath.Join(p.Dir, name)
		switch {
		case slices.Contains(m.Replaced, name):
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

// revert takes back, one by one, what is still as we left it.
func (p *Postfix) revert(ctx context.Context, m *manifest) (left []string, err error) {
	now, err := Read(ctx, p.Dir)
	if err != nil {
		return nil, err
	}
	var set, unset, services, gone []string
	for _, c := range m.Params {
		switch {
		case now.raw[c.Name] != c.New:
			left = append(left, c.Name)
		case c.Had:
			set = append(set, c.Name+"="+c.Old)
		default:
			unset = append(unset, c.Name)
		}
	}
	for _, e := range m.Services {
		s := now.serviceOf(e.Key)
		switch {
		case s == nil || s.Line() != e.New:
			left = append(left, e.Key)
		case e.Old != "":
			services = append(services, e.Key+"="+e.Old)
		default:
			gone = append(gone, e.Key)
		}
	}
	undone := slices.Concat(gone, keysOf(services))
	gone = slices.DeleteFunc(gone, func(key string) bool {
		needed := now.needed(key, undone, left)
		if needed {
			left = append(left, key)
		}
		return needed
	})
	for _, c := range []struct {
		flag string
		args []string
	}{{"-e", set}, {"-X", unset}, {"-M", services}, {"-MX", gone}} {
		if len(c.args) > 0 {
			if _, err := run(ctx, "postconf", append([]string{"-c", p.Dir, c.flag}, c.args...)...); err != nil {
				return left, err
			}
		}
	}
	return left, nil
}

// keysOf are the keys of services as postconf -M takes them.
func keysOf(services []string) (keys []string) {
	for _, s := range services {
		key, _, _ := strings.Cut(s, "=")
		keys = append(keys, key)
	}
	return keys
}

// needed reports whether a service of ours is one without which what stays takes no mail:
// the cleanup of a service, but for those that go or become what they were, or what a
// table delivers by.
func (p *Postfix) needed(key string, undone, left []string) bool {
	name, kind, _ := strings.Cut(key, "/")
	if kind != "unix" {
		return false
	}
	if name == "lmtp" && slices.Contains(left, "transport_maps") {
		return true
	}
	return slices.ContainsFunc(p.Services, func(s Service) bool {
		return s.Program == "smtpd" && !slices.Contains(undone, s.Key()) && p.In(&s, "cleanup_service_name") == name
	})
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
