package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"pecd/cmd/pecd/config"
)

// An Evidence is what the daemon says of seals and witnesses.
type Evidence struct {
	SealAttempts int       `json:"seal_attempts"` // that failed since one did not
	SealError    string    `json:"seal_error"`
	Witnesses    []Witness `json:"witnesses"`
}

// A Witness is who hears how far the register is.
type Witness struct {
	Name     string    `json:"name"`
	Attested time.Time `json:"attested"` // when it heard last; zero: not since the start
	Error    string    `json:"error"`    // why it did not hear the last time; empty if it did
}

// proves asks the daemon how it stands with seals and witnesses.
func (v *visit) proves(ctx context.Context) {
	var e Evidence
	if v.Control(ctx, "/evidence", &e) != nil {
		return // that the daemon does not answer is told for its plugins
	}
	if e.SealAttempts > 0 {
		v.add("seal-failing", "%d attempts to seal a day failed: %s", e.SealAttempts, e.SealError)
	}
	for _, w := range e.Witnesses {
		if w.Error == "" {
			continue
		}
		since := "has not heard since pecd started"
		if !w.Attested.IsZero() {
			since = "heard last at " + w.Attested.UTC().Format(time.RFC3339)
		}
		v.add("witness-failing", "the witness %s %s: %s", w.Name, since, w.Error)
	}
}

// seals looks at the directory of the sealed days.
func (v *visit) seals() {
	dir := v.Config.Seal.Path
	st, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return // it is made with the first seal; one that is due is told
	}
	if err != nil || !st.IsDir() {
		v.add("seal-unreadable", "seal.path: %s is not a directory that can be read", dir)
		return
	}
	if st.Mode().Perm()&0o077 != 0 {
		v.add("seal-open", "seal.path: %s has mode %#o", dir, st.Mode().Perm())
	}
	store, err := os.Stat(v.Config.Store.Path)
	if err != nil {
		return // told for the store
	}
	v.sealOwner(dir, st, store)
	mine, _ := st.Sys().(*syscall.Stat_t)
	its, _ := store.Sys().(*syscall.Stat_t)
	if mine == nil || its == nil {
		return
	}
	if mine.Dev == its.Dev {
		v.add("seal-beside", "seal.path: %s is on the disk of %s", dir, v.Config.Store.Path)
	} else {
		v.disk("seal.path", dir, 0)
	}
}

// sealOwner looks whether whoever runs the daemon can add to the sealed days: a command
// that root ran may have left folders of root's.
func (v *visit) sealOwner(dir string, st, store fs.FileInfo) {
	if config.Owner(st) != config.Owner(store) {
		v.add("seal-owner", "seal.path: %s belongs to user %d, the store to %d", dir, config.Owner(st), config.Owner(store))
		return
	}
	if file, by := foreign(dir, config.Owner(store), ""); file != "" {
		v.add("seal-owner", "seal.path: %s belongs to user %d, the store to %d", file, by, config.Owner(store))
	}
}

// foreign is a file in a directory, other than but, that belongs to another user, and to
// whom; "" if there is none.
func foreign(dir string, user uint32, but string) (file string, by uint32) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", 0 // told elsewhere
	}
	for _, e := range entries {
		if i, err := e.Info(); err == nil && config.Owner(i) != user && filepath.Join(dir, e.Name()) != but {
			return filepath.Join(dir, e.Name()), config.Owner(i)
		}
	}
	return "", 0
}

// authorities looks whether the time-stamping authorities can be reached. Any answer
// counts: a stamp may cost money.
func (v *visit) authorities(ctx context.Context) {
	t := &http.Transport{DisableKeepAlives: true}
	if u, err := url.Parse(v.Config.Trust.Proxy); err == nil && v.Config.Trust.Proxy != "" {
		t.Proxy = http.ProxyURL(u)
	}
	client := &http.Client{Transport: t, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, a := range v.Config.Seal.TSA {
		u, err := url.Parse(a)
		if err != nil || v.Resolver == nil && net.ParseIP(u.Hostname()) == nil {
			continue // no name server is to be asked
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, a, nil)
		if err != nil {
			continue
		}
		answer, err := client.Do(req)
		if err != nil {
			v.add("tsa-down", "seal.tsa: %s", text(err))
			continue
		}
		_ = answer.Body.Close()
	}
}
