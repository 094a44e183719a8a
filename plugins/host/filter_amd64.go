package host

import "golang.org/x/sys/unix"

const architecture = unix.AUDIT_ARCH_X86_64

// refusedHere are the older calls that this architecture has beside those of
// refused.
var refusedHere = []uint32{unix.SYS_CHMOD, unix.SYS_CHOWN, unix.SYS_LCHOWN}

// openingsHere is beside openings.
var openingsHere = []opening{{unix.SYS_OPEN, 1}}
