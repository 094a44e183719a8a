//go:build !linux

package socket

import (
	"errors"
	"net"
)

// Peer returns errors.ErrUnsupported.
func Peer(*net.UnixConn) (pid, user int, err error) { return 0, 0, errors.ErrUnsupported }
