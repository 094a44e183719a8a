package socket

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// Peer returns the process that opened c and its user, as the kernel noted them then. An
// error says that the kernel does not tell, or that c is closed.
func Peer(c *net.UnixConn) (pid, user int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var peer *unix.Ucred
	controlErr := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(controlErr, err); err != nil {
		return 0, 0, err
	}
	return int(peer.Pid), int(peer.Uid), nil
}
