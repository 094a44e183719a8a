// Package socket opens the sockets at which the MTA calls, and calls the sockets
// of the MTA and the mailbox store. An address is "unix:/absolute/path" or
// "inet:host:port", as Postfix writes them. It never removes what is not a
// socket, nor a socket at which somebody answers.
package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

var (
	// ErrAddress is wrapped by errors about an address that is none.
	ErrAddress = errors.New("not an address like unix:/path or inet:host:port")
	// ErrInUse is wrapped when another process serves the socket, or when the
	// path holds something else.
	ErrInUse = errors.New("in use")
)

// maxPath is the longest path of a Unix socket in octets, on Linux. A longer one
// could be opened here and then not be called.
const maxPath = 107

// Parse returns the network and address for package net.
func Parse(addr string) (network, address string, err error) {
	kind, rest, _ := strings.Cut(addr, ":")
	switch {
	case kind == "unix" && filepath.IsAbs(rest) && !strings.ContainsRune(rest, 0):
		return "unix", filepath.Clean(rest), nil
	case kind == "inet":
		_, port, err := net.SplitHostPort(rest)
		if err != nil {
			return "", "", fmt.Errorf("%q: %w: %v", addr, ErrAddress, err)
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return "", "", fmt.Errorf("%q: %w: the port is not a number", addr, ErrAddress)
		}
		return "tcp", rest, nil
	}
	return "", "", fmt.Errorf("%q: %w", addr, ErrAddress)
}

// Dial connects to addr.
func Dial(ctx context.Context, addr string) (net.Conn, error) {
	network, address, err := Parse(addr)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// Listen opens addr. A Unix socket gets mode, and group if it is not empty (a
// name or a number), before anybody can connect to it; one that nobody serves any
// more is replaced. Closing the listener removes it.
func Listen(ctx context.Context, addr string, mode fs.FileMode, group string) (net.Listener, error) {
	network, address, err := Parse(addr)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		return listenUnix(ctx, address, mode, group)
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, network, address)
}

// listenUnix makes the socket in a directory that only this user may enter, and
// moves it to its place when its mode and group are right. The umask would do
// too, but it belongs to all threads of the process.
func listenUnix(ctx context.Context, path string, mode fs.FileMode, group string) (_ net.Listener, err error) {
	gid, err := groupID(group)
	if err != nil {
		return nil, err
	}
	if err := checkFree(ctx, path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	temp := filepath.Join(dir, "s")
	if max(len(temp), len(path)) > maxPath {
		return nil, fmt.Errorf("%s: %w: the path is too long", path, ErrAddress)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", temp)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	info, err := place(temp, path, mode, gid)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &unixListener{Listener: l, path: path, info: info}, nil
}

// place gives the socket its mode and group, and then its name.
func place(temp, path string, mode fs.FileMode, gid int) (fs.FileInfo, error) {
	if err := os.Chmod(temp, mode.Perm()); err != nil {
		return nil, err
	}
	if gid >= 0 {
		if err := os.Lchown(temp, -1, gid); err != nil {
			return nil, err
		}
	}
	info, err := os.Lstat(temp)
	if err != nil {
		return nil, err
	}
	return info, os.Rename(temp, path)
}

func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// checkFree returns nil if nothing is at path, or a socket without a server.
func checkFree(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s: %w: it is not a socket", path, ErrInUse)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close()
	}
	if err == nil || !refused(err) {
		return fmt.Errorf("%s: %w: another process answers there", path, ErrInUse)
	}
	return nil
}

// A unixListener removes its socket when it closes, if it is still its own.
type unixListener struct {
	net.Listener
	path string
	info fs.FileInfo
}

// Addr returns the address at which the socket can be called.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.info) {
		if err := os.Remove(l.path); err != nil {
			return errors.Join(err, l.Listener.Close())
		}
	}
	return l.Listener.Close()
}
