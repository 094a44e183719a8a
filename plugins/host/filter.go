package host

import (
	"errors"
	"fmt"
	"runtime"
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

// An opening is a call that opens files, with the place of its flags among its
// arguments.
type opening struct{ call, flags uint32 }

// openings are those of every architecture. Where Landlock does not know of cutting
// files, before its version 3, it lets flags pass that ask for neither reading nor
// writing, or for reading alone, and yet empty the file (O_TRUNC). Of openat2 a filter
// cannot see the flags: programs hear that the kernel has no such call, and do
// without.
var openings = []opening{{unix.SYS_OPENAT, 2}}

// filter has the kernel refuse those calls to this thread, and to what it executes,
// for good. It reports false where the kernel, or pecd on this architecture, has no
// filters. no_new_privs must be set.
func filter() (bool, error) {
	if architecture == 0 {
		return false, nil
	}
	f := filterOf(slices.Concat(refused, refusedHere), slices.Concat(openings, openingsHere))
	err := install(f)
	if errors.Is(err, unix.EINVAL) {
		return false, nil // a kernel without filters; the status says so
	}
	if err != nil {
		return false, fmt.Errorf("seccomp: %w", err)
	}
	return true, nil
}

// install puts f in force. The kernel is given addresses that the collector does not
// see as such: what is there must neither move, as on a stack, nor go.
func install(f []unix.SockFilter) error {
	prog := &unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	var pins runtime.Pinner
	defer pins.Unpin()
	pins.Pin(&f[0])
	pins.Pin(prog)
	_, _, errno := unix.Syscall6(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(prog)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Where struct seccomp_data has what the filter looks at. pecd's architectures are
// little-endian: of an argument of 64 bits the low half comes first, which is all
// that the kernel looks at of flags.
const (
	dataNumber   = 0
	dataMachine  = 4
	dataArgument = 16
	sizeArgument = 8
)

// otherABI is the bit of the numbers of calls that amd64 takes from programs of
// its x32 ABI.
const otherABI = 0x40000000

func load(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}

func mask(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: k}
}

func jump(test uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | test, K: k, Jt: yes, Jf: no}
}

func end(action uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
}

// What a filter ends in.
var (
	allow  = end(unix.SECCOMP_RET_ALLOW)
	refuse = end(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	absent = end(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))
)

// filterOf is the filter that refuses the calls of numbers, and opens where flags cut
// a file past Landlock.
func filterOf(numbers []uint32, opens []opening) []unix.SockFilter {
	f := []unix.SockFilter{
		load(dataMachine),
		// The numbers of another architecture mean other calls.
		jump(unix.BPF_JEQ, architecture, 1, 0), end(unix.SECCOMP_RET_KILL_PROCESS),
		load(dataNumber),
		jump(unix.BPF_JGE, otherABI, 0, 1), refuse,
		jump(unix.BPF_JEQ, unix.SYS_OPENAT2, 0, 1), absent,
	}
	for _, number := range numbers {
		f = append(f, jump(unix.BPF_JEQ, number, 0, 1), refuse)
	}
	for _, o := range opens {
		f = append(f, jump(unix.BPF_JEQ, o.call, 0, 7),
			load(dataArgument+sizeArgument*o.flags), mask(unix.O_ACCMODE|unix.O_TRUNC),
			// 3 is for programs that only control a device.
			jump(unix.BPF_JEQ, unix.O_ACCMODE, 3, 0),
			jump(unix.BPF_JEQ, unix.O_ACCMODE|unix.O_TRUNC, 2, 0),
			jump(unix.BPF_JEQ, unix.O_RDONLY|unix.O_TRUNC, 1, 0),
			allow, refuse)
	}
	return append(f,
		// A process may set its own limits, which it names by 0, but not pecd's.
		jump(unix.BPF_JEQ, unix.SYS_PRLIMIT64, 0, 3), load(dataArgument), jump(unix.BPF_JEQ, 0, 1, 0), refuse,
		allow)
}
