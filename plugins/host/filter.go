package host

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refused are the system calls that no plugin may make, on every architecture.
// pecd's user owns what they could spoil, and Landlock restricts none of them, or
// not on each kernel that has it: a plugin that cannot open the store could still
// take away its mode, or empty it by its name. io_uring does the same past a
// filter.
var refused = []uint32{
	unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT,
	unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, unix.SYS_SETXATTRAT,
	unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR, unix.SYS_REMOVEXATTRAT,
	unix.SYS_TRUNCATE, unix.SYS_IO_URING_SETUP,
}

// filter has the kernel refuse those calls to this thread, and to what it executes,
// for good. It reports false where the kernel, or pecd on this architecture, has no
// filters. no_new_privs must be set.
func filter() (bool, error) {
	if architecture == 0 {
		return false, nil
	}
	f := filterOf(slices.Concat(refused, refusedHere))
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER,
		uintptr(unsafe.Pointer(&unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]})), 0, 0)
	if errors.Is(err, unix.EINVAL) {
		return false, nil // a kernel without filters; the status says so
	}
	if err != nil {
		return false, fmt.Errorf("seccomp: %w", err)
	}
	return true, nil
}

// Where struct seccomp_data has what the filter looks at. pecd's architectures are
// little-endian: of an argument of 64 bits the low half comes first.
const (
	dataNumber   = 0
	dataMachine  = 4
	dataArgument = 16
)

// otherABI is the bit of the numbers of calls that amd64 takes from programs of
// its x32 ABI.
const otherABI = 0x40000000

// filterOf is the filter that refuses the calls of numbers.
func filterOf(numbers []uint32) []unix.SockFilter {
	n := len(numbers)
	load := func(off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
	}
	jump := func(test uint16, k uint32, yes, no int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | test, K: k, Jt: uint8(yes), Jf: uint8(no)}
	}
	end := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	f := []unix.SockFilter{
		load(dataMachine),
		// The numbers of another architecture mean other calls.
		jump(unix.BPF_JEQ, architecture, 1, 0),
		end(unix.SECCOMP_RET_KILL_PROCESS),
		load(dataNumber),
		jump(unix.BPF_JGE, otherABI, n+4, 0),
		// A process may set its own limits, which it names by 0, but not pecd's.
		jump(unix.BPF_JEQ, unix.SYS_PRLIMIT64, 0, 2),
		load(dataArgument),
		jump(unix.BPF_JEQ, 0, n, n+1),
	}
	for i, number := range numbers {
		f = append(f, jump(unix.BPF_JEQ, number, n-i, 0))
	}
	return append(f, end(unix.SECCOMP_RET_ALLOW), end(unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM)))
}
