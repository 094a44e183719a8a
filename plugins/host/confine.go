package host

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsyscall "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// readable is what every plugin may read and execute: programs, libraries and
// what the C library and interpreters look up. Of /etc only what is named: the
// rest is not for plugins, and keys may lie beside certificates.
var readable = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64",
	"/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/openssl.cnf", "/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/pki/tls/cert.pem",
	"/etc/pki/tls/openssl.cnf", "/etc/ca-certificates", "/etc/alternatives", "/etc/python*", "/etc/ld.so.cache", "/etc/ld.so.conf",
	"/etc/ld.so.conf.d", "/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf",
	"/etc/localtime", "/etc/timezone", "/etc/services", "/etc/protocols", "/etc/passwd", "/etc/group", "/etc/mime.types", "/etc/magic",
	"/run/systemd/resolve", "/sys/devices/system/cpu", "/sys/kernel/mm/transparent_hugepage",
	"/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/kernel", "/proc/sys/vm", "/proc/filesystems",
	"/dev/urandom", "/dev/random", "/dev/zero",
}

// writable are the devices that every plugin may write to.
var writable = []string{"/dev/null", "/dev/full"}

// rules is the Landlock that plugins are confined by: files as of version 5, and
// no signals to others and no connections to abstract sockets of others as of 6.
// Version 9 would forbid connections to unix sockets by path too, that of a virus
// scanner among them; the network stays open for the same reason.
var rules = landlock.MustConfig(landlock.V8.HandledAccessFS, landlock.V8.Scoped)

// whole is the version of Landlock as of which nothing of rules is missing.
const whole = 6

// confine gives up everything but what l and readable allow, for good, and
// returns the version of the kernel's Landlock, 0 if there is none, and whether
// the calls are refused that Landlock does not know. Landlock also keeps a plugin
// from tracing processes outside of it, such as the daemon.
func confine(p *program, l launch) (abi int, filtered bool, err error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, false, fmt.Errorf("no_new_privs: %w", err)
	}
	if abi, err = restrict(p, l); err != nil {
		return 0, false, fmt.Errorf("landlock: %w", err)
	}
	filtered, err = filter()
	return abi, filtered, err
}

// restrict is the part of confine that Landlock does.
func restrict(p *program, l launch) (abi int, err error) {
	abi, err = llsyscall.LandlockGetABIVersion()
	if err != nil {
		return 0, nil // a kernel without Landlock; the status says so
	}
	var allowed []landlock.Rule
	read := append([]string{filepath.Dir(p.path)}, l.Read...)
	for _, path := range append(read, glob(readable)...) {
		allowed = append(allowed, rule(path, landlock.RODirs, landlock.ROFiles))
	}
	for _, path := range append(glob(writable), l.Write...) {
		allowed = append(allowed, rule(path, landlock.RWDirs, landlock.RWFiles))
	}
	return abi, rules.BestEffort().Restrict(allowed...)
}

// rule allows a directory with what is in it, or a file.
func rule(path string, dirs, files func(...string) landlock.FSRule) landlock.Rule {
	if fi, err := os.Stat(path); err == nil && !fi.IsDir() {
		return files(path).IgnoreIfMissing()
	}
	return dirs(path).IgnoreIfMissing()
}

// glob are the paths that patterns name.
func glob(patterns []string) (paths []string) {
	for _, p := range patterns {
		found, _ := filepath.Glob(p) // only a bad pattern is an error
		paths = append(paths, found...)
	}
	return paths
}
