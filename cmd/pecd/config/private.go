package config

import (
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// A Foreign is a file for the daemon's eyes only that belongs to somebody else. Root reads
// it all the same, so what root tries works, and the daemon does not.
type Foreign struct {
	Key, File string
	Owner     string // of the file, by name
	Daemon    string // the owner of the store, by name: who the daemon runs as
}

// What says what is wrong.
func (f Foreign) What() string {
	return f.File + " belongs to " + f.Owner + ": pecd, which runs as " + f.Daemon + ", cannot read it"
}

// Fix says what mends it.
func (f Foreign) Fix() string { return Chown(f.Daemon, f.File) }

// Chown is the command that gives a file to a user, and to his group if he has a name.
func Chown(user, file string) string {
	if _, err := strconv.ParseUint(user, 10, 32); err != nil {
		user += ":"
	}
	return "chown " + user + " " + file
}

// Foreign returns the private files that do not belong to the owner of the store. Nothing
// is known of the daemon's user where there is no store yet, or root has made it.
func (c *Config) Foreign() (list []Foreign) {
	store, err := os.Stat(c.Store.Path)
	if err != nil || Owner(store) == 0 {
		return nil
	}
	for _, f := range c.secrets() {
		if st, err := os.Stat(f.path); err == nil && Owner(st) != Owner(store) {
			list = append(list, Foreign{f.key, f.path, UserName(Owner(st)), UserName(Owner(store))})
		}
	}
	return list
}

// CheckOwners is an error that tells of all files that Foreign finds.
func (c *Config) CheckOwners() error {
	var p Problems
	for _, f := range c.Foreign() {
		o := c.origins[f.Key]
		p.add(o.File, o.Line, f.Key, f.What(), f.Fix())
	}
	return p.err()
}

// A secret is a file that whoever uses it refuses if others may read it.
type secret struct{ key, what, path string }

// secrets are those that the configuration names.
func (c *Config) secrets() (list []secret) {
	k, next := c.Signer.Key, c.Signer.Next.Key
	for _, s := range []secret{
		{"signer.key", "the signing key", k.Key}, {"signer.pkcs12", "the signing key", k.PKCS12},
		{"signer.password_file", "the key's password", k.PasswordFile}, {"signer.pin_file", "the module's PIN", k.PINFile},
		{"signer.next.key", "the next signing key", next.Key}, {"signer.next.pkcs12", "the next signing key", next.PKCS12},
		{"signer.next.password_file", "the next key's password", next.PasswordFile}, {"signer.next.pin_file", "the next module's PIN", next.PINFile},
		{"directory.client_key", "the directory's client key", c.Directory.ClientKey},
		{"seal.tsa_password_file", "the time stamp's password", c.Seal.TSAPasswordFile},
		{"canary.credentials", "the canary's password", c.Canary.Credentials},
	} {
		if s.path != "" {
			list = append(list, s)
		}
	}
	return list
}

// Owner is the user whom a file belongs to.
func Owner(i fs.FileInfo) uint32 {
	if s, ok := i.Sys().(*syscall.Stat_t); ok {
		return s.Uid
	}
	return 0
}

// UserName is the name of a user, or the number of one who has none.
func UserName(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(number); err == nil {
		return u.Username
	}
	return number
}
