package socket

import (
	"net"

	"golang.org/x/sys/unix"
)

// calledBy reports whether a process of user opened c. If the kernel cannot say it is
// nobody: file modes still keep others out.
func calledBy(c *net.UnixConn, user int) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false // it is closed already, as the first Read tells
	}
	called := false
	err = raw.Control(func(fd uintptr) {
		peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		called = err == nil && int(peer.Uid) == user
	})
	return err == nil && called
}
