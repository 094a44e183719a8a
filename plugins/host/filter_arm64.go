package host

import "golang.org/x/sys/unix"

const architecture = unix.AUDIT_ARCH_AARCH64

// There are none: this architecture has no older calls.
var (
	refusedHere  []uint32
	openingsHere []opening
)
