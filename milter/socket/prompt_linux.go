package socket

import "syscall"

// acknowledge has the kernel acknowledge what comes next at once. Where it does not, all
// is only slower.
func acknowledge(fd int) { _ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1) }
