//go:build amd64 || arm64

package host

import (
	endian "encoding/binary" // binary is the plugin
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// TestFilter runs the filter on calls, those too that this kernel or the C library
// does not make.
func TestFilter(t *testing.T) {
	var raw []bpf.RawInstruction
	for _, f := range filterOf(slices.Concat(refused, refusedHere), slices.Concat(openings, openingsHere)) {
		raw = append(raw, bpf.RawInstruction{Op: f.Code, Jt: f.Jt, Jf: f.Jf, K: f.K})
	}
	list, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatalf("not understood: %v", list)
	}
	vm, err := bpf.NewVM(list)
	if err != nil {
		t.Fatal(err)
	}
	run := func(machine, number uint32, arguments ...uint64) uint32 {
		data := make([]byte, 64) // struct seccomp_data, each half of 32 bits as the machine reads it
		put := func(at int, v uint32) { endian.BigEndian.PutUint32(data[at:], v) }
		put(0, number)
		put(4, machine)
		for i, a := range arguments {
			put(16+8*i, uint32(a))
			put(20+8*i, uint32(a>>32))
		}
		got, err := vm.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(got)
	}
	const allowed, eperm, enosys = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	for _, number := range slices.Concat(refused, refusedHere) {
		if got := run(architecture, number); got != eperm {
			t.Errorf("call %d: %#x", number, got)
		}
	}
	const unused, high = 0, 1 << 32 // the kernel looks at no more than the low half of flags
	for _, o := range slices.Concat(openings, openingsHere) {
		for flags, want := range map[uint64]uint32{
			unix.O_RDONLY: allowed, unix.O_RDONLY | unix.O_CLOEXEC: allowed, unix.O_WRONLY | unix.O_TRUNC: allowed, unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC: allowed,
			unix.O_PATH: allowed, unix.O_RDONLY | unix.O_DIRECTORY | high: allowed,
			3: eperm, 3 | unix.O_TRUNC: eperm, 3 | unix.O_TRUNC | high: eperm, 3 | unix.O_CLOEXEC: eperm,
			unix.O_RDONLY | unix.O_TRUNC: eperm, unix.O_RDONLY | unix.O_TRUNC | unix.O_CREAT: eperm, unix.O_RDONLY | unix.O_TRUNC | unix.O_CLOEXEC: eperm,
		} {
			arguments := slices.Repeat([]uint64{unused}, int(o.flags))
			if got := run(architecture, o.call, append(arguments, flags)...); got != want {
				t.Errorf("call %d, flags %#o: %#x, want %#x", o.call, flags, got, want)
			}
		}
	}
	for _, c := range []struct {
		machine, number uint32
		argument        uint64
		want            uint32
	}{
		{architecture, unix.SYS_READ, 0, allowed},
		{architecture, unix.SYS_OPENAT2, 0, enosys},
		{architecture, unix.SYS_PRLIMIT64, 0, allowed},
		{architecture, unix.SYS_PRLIMIT64, 1, eperm},
		{architecture, otherABI | unix.SYS_READ, 0, eperm},
		{unix.AUDIT_ARCH_I386, unix.SYS_READ, 0, unix.SECCOMP_RET_KILL_PROCESS},
	} {
		if got := run(c.machine, c.number, c.argument); got != c.want {
			t.Errorf("machine %#x, call %d, argument %d: %#x, want %#x", c.machine, c.number, c.argument, got, c.want)
		}
	}
}
