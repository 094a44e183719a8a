package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"pecd/cmd/pecd/config"
	"pecd/logstore"
	"pecd/logstore/seal"
)

// Filesystems that forget, or promise what they do not keep.
var (
	forgetful = map[int64]string{unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs"}
	doubtful  = map[int64]string{unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "NFS", unix.SMB_SUPER_MAGIC: "SMB", unix.SMB2_SUPER_MAGIC: "SMB",
		unix.CIFS_SUPER_MAGIC: "SMB", unix.FUSE_SUPER_MAGIC: "FUSE", unix.V9FS_MAGIC: "9p", unix.ECRYPTFS_SUPER_MAGIC: "ecryptfs"}
)

const (
	outboxPatience = 10 * time.Minute
	// A timeout notice is due after 24 hours (RFC 6109, 3.1.6); the clerk looks every
	// few seconds.
	ledgerPatience = 24*time.Hour + 30*time.Minute
	maxUsed        = 0.9
)

// store looks at the register's directory and at what waits in it.
func (v *visit) store(ctx context.Context) {
	dir := v.Config.Store.Path
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.add("store-missing", "store.path: %s is not there", dir)
		return
	case err != nil || !st.IsDir():
		v.add("store-missing", "store.path: %s is not a directory that can be read", dir)
		return
	case st.Mode().Perm()&0o077 != 0:
		v.add("store-open", "store.path: %s has mode %#o", dir, st.Mode().Perm())
	}
	if unix.Access(dir, unix.W_OK|unix.X_OK) != nil || st.Mode().Perm()&0o300 != 0o300 {
		v.add("store-unwritable", "store.path: %s cannot be written by its owner (mode %#o)", dir, st.Mode().Perm())
	}
	if file, by := foreign(dir, config.Owner(st), filepath.Clean(v.Config.Seal.Path)); file != "" {
		v.add("store-owner", "store.path: %s belongs to user %d, the directory to %d", file, by, config.Owner(st))
	}
	v.disk("store.path", dir, 3*v.Config.Access.MaxSize)
	v.waiting(ctx, dir)
	if v.Postfix != nil {
		// Postfix wants one and a half times the limit free, or refuses all mail.
		v.space("queue_directory", v.Postfix.QueueDir(), v.Postfix.Int("message_size_limit")*3/2)
	}
}

// disk looks at the filesystem under a directory.
func (v *visit) disk(key, dir string, need int64) {
	var fs unix.Statfs_t
	if err := v.Statfs(dir, &fs); err != nil {
		v.add("store-missing", "%s: %s: %s", key, dir, text(err))
		return
	}
	if name := forgetful[int64(fs.Type)]; name != "" {
		v.add("store-forgets", "%s: %s is on %s, which is gone after a reboot", key, dir, name)
	} else if name := doubtful[int64(fs.Type)]; name != "" {
		v.add("store-doubtful", "%s: %s is on %s, of which it is not sure that it keeps what it synced", key, dir, name)
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		v.add("store-unwritable", "%s: %s is mounted read-only", key, dir)
	}
	v.space(key, dir, need)
}

// space looks whether a disk is nearly full: in octets, in parts, or in files.
func (v *visit) space(key, dir string, need int64) {
	var fs unix.Statfs_t
	if err := v.Statfs(dir, &fs); err != nil || fs.Blocks == 0 {
		return // a directory that is not there is told elsewhere
	}
	free := int64(fs.Bavail) * fs.Bsize
	if free < need || float64(fs.Bavail) < (1-maxUsed)*float64(fs.Blocks) {
		v.add("disk-full", "%s: %d MB are free on the disk of %s, %d %%", key, free>>20, dir, 100*fs.Bavail/fs.Blocks)
	} else if fs.Files > 0 && float64(fs.Ffree) < (1-maxUsed)*float64(fs.Files) {
		v.add("disk-full", "%s: %d %% of the inodes are free on the disk of %s", key, 100*fs.Ffree/fs.Files, dir)
	}
}

// waiting looks at outbox and ledger, as they are in the store.
func (v *visit) waiting(ctx context.Context, dir string) {
	r, err := logstore.OpenReadOnly(ctx, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return // before the first start
	}
	if err != nil {
		v.add("store-unreadable", "%s: %s", filepath.Clean(dir), text(err))
		return
	}
	defer r.Close()
	stats, err := r.Stats(ctx)
	if err != nil {
		v.add("store-unreadable", "%s: %s", filepath.Clean(dir), text(err))
		return
	}
	if age := v.Now.Sub(stats.Oldest); stats.Outbox > 0 && age > outboxPatience {
		v.add("outbox-old", "%d signed messages wait for Postfix, the oldest for %s", stats.Outbox, age.Round(time.Minute))
	}
	v.sealed(ctx, r)
	if err := v.meetMailboxes(ctx, r); err != nil {
		v.add("store-unreadable", "%s: %s", filepath.Clean(dir), text(err))
		return
	}
	late, err := r.Overdue(ctx, v.Now, ledgerPatience, true, 1)
	if err != nil {
		v.add("store-unreadable", "%s: %s", filepath.Clean(dir), text(err))
	} else if len(late) > 0 {
		v.add("ledger-overdue", "a recipient has waited since %s for an answer or a timeout notice", late[0].Sent.UTC().Format(time.RFC3339))
	}
}

// sealed looks whether each day of the register was sealed in time.
func (v *visit) sealed(ctx context.Context, r *logstore.Reader) {
	c := v.Config.Seal
	if len(c.TSA) == 0 {
		v.add("seal-none", "seal.tsa names no authority")
		return
	}
	v.authorities(ctx)
	zone, err := time.LoadLocation(v.Config.Provider.Timezone)
	if err != nil {
		return // the configuration would not have been read
	}
	missing := ""
	if _, err := os.Stat(c.Path); errors.Is(err, fs.ErrNotExist) {
		missing = "; " + c.Path + " (seal.path) is not there"
	}
	days, err := seal.Days(os.DirFS(c.Path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		v.add("seal-unreadable", "%s: %s", c.Path, text(err))
		return
	}
	if missing == "" {
		v.seals()
	}
	var next seal.Day
	if n := len(days); n > 0 {
		next = days[n-1].Next()
	} else {
		// As the sealer has it: the day of the first entry, whatever instants follow.
		gone, err := r.PurgedThrough(ctx)
		if err != nil {
			return
		}
		first, err := r.LinkAt(ctx, gone.Seq+1)
		if err != nil {
			return // an empty register
		}
		next = seal.DayOf(first.At, zone)
	}
	if _, until := next.Bounds(zone); v.Now.After(until.Add(c.LateTime())) {
		v.add("seal-late", "%s ended at %s and is not sealed%s", next, until.Format("2006-01-02 15:04 -0700"), missing)
	}
}
