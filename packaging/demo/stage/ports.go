package stage

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
)

// freePorts returns n different free ports of 127.0.0.1. They lie below the
// range from which the kernel takes the ports of outgoing connections: a port
// that it hands out itself (":0") may be some client's when the server that
// owns it is started again.
func freePorts(n int) ([]int, error) {
	const low = 10240
	high := 32768
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		var first int
		if _, err := fmt.Sscan(string(b), &first); err == nil && first > low+1000 {
			high = first
		}
	}
	var ports []int
	var held []net.Listener // until all are found, so that they differ
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	for tries := 0; len(ports) < n; tries++ {
		if tries > 100*n {
			return nil, fmt.Errorf("stage: no free ports on 127.0.0.1 between %d and %d", low, high)
		}
		p := low + rand.IntN(high-low)
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			continue // somebody has it
		}
		held, ports = append(held, l), append(ports, p)
	}
	return ports, nil
}
