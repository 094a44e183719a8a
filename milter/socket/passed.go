package socket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

// firstPassed is the descriptor at which those of systemd begin; sd_listen_fds(3).
const firstPassed = 3

// maxPassed bounds how many there may be.
const maxPassed = 64

// Passed are listening sockets that systemd opened for this process and keeps
// open while it restarts: whoever calls meanwhile waits and is not refused. A nil
// Passed has none.
type Passed struct{ listeners []net.Listener }

// FromSystemd takes over the sockets that systemd passed to this process, with
// the environment that getenv reads: LISTEN_PID must be pid. It may be called
// once only, and not after descriptors were opened that nobody knows of.
func FromSystemd(getenv func(string) string, pid int) (*Passed, error) {
	if getenv("LISTEN_PID") != strconv.Itoa(pid) {
		return nil, nil
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n < 0 || n > maxPassed {
		return nil, fmt.Errorf("LISTEN_FDS=%q: no number of sockets", getenv("LISTEN_FDS"))
	}
	p := &Passed{}
	for fd := firstPassed; fd < firstPassed+n; fd++ {
		l, err := passed(fd)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("socket %d of systemd: %w", fd-firstPassed+1, err), p.Close())
		}
		p.listeners = append(p.listeners, l)
	}
	return p, nil
}

// passed makes the descriptor a listener, and keeps it from programs that this
// one starts.
func passed(fd int) (net.Listener, error) {
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "passed")
	defer f.Close() // the listener has a descriptor of its own
	return net.FileListener(f)
}

// Take returns the socket that listens at addr, nil if none was passed that does.
// Each is taken once. Its mode and group are systemd's to set; closing it leaves
// it open in systemd.
func (p *Passed) Take(addr string) (net.Listener, error) {
	network, address, err := Parse(addr)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, nil
	}
	for i, l := range p.listeners {
		if at(l.Addr(), network, address) {
			p.listeners = append(p.listeners[:i:i], p.listeners[i+1:]...)
			return l, nil
		}
	}
	return nil, nil
}

// at reports whether a socket with this address is what the configuration names.
func at(have net.Addr, network, address string) bool {
	switch a := have.(type) {
	case *net.UnixAddr:
		return network == "unix" && a.Name == address
	case *net.TCPAddr:
		want, err := net.ResolveTCPAddr("tcp", address)
		if network != "tcp" || err != nil || want.Port != a.Port {
			return false
		}
		return want.IP.Equal(a.IP) || len(want.IP) == 0 && a.IP.IsUnspecified()
	}
	return false
}

// Rest are the addresses that nobody took.
func (p *Passed) Rest() (addrs []string) {
	if p == nil {
		return nil
	}
	for _, l := range p.listeners {
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// Close closes those that nobody took.
func (p *Passed) Close() (err error) {
	if p == nil {
		return nil
	}
	for _, l := range p.listeners {
		err = errors.Join(err, l.Close())
	}
	p.listeners = nil
	return err
}
