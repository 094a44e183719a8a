package stage

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
)

// blockSize is how many ports lie in a block; a stage has a block to itself.
const blockSize = 32

// freePorts returns n free ports of 127.0.0.1, and a claim on them that keeps
// other stages from taking them while no server listens there yet, or is just
// being started again. It lasts until it is closed or the process ends. The ports
// lie below the range from which the kernel takes those of outgoing connections:
// a port that it hands out itself (":0") may be some client's when the server
// that owns it is started again.
func freePorts(n int) ([]int, io.Closer, error) {
	const low = 10240
	high := 32768
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		var first int
		if _, err := fmt.Sscan(string(b), &first); err == nil && first > low+1000 {
			high = first
		}
	}
	if n > blockSize {
		return nil, nil, fmt.Errorf("stage: %d ports, a block has %d", n, blockSize)
	}
	for range 1000 {
		base := low + rand.IntN((high-low)/blockSize)*blockSize
		claim, err := claimBlock(base, n)
		if err != nil {
			continue // somebody has it, or a port of it
		}
		ports := make([]int, n)
		for i := range ports {
			ports[i] = base + i
		}
		return ports, claim, nil
	}
	return nil, nil, fmt.Errorf("stage: no free ports on 127.0.0.1 between %d and %d", low, high)
}

// claimBlock takes the block that begins at base, if its first n ports are free.
// The claim is an abstract socket: it leaves no file behind and ends with its
// process.
func claimBlock(base, n int) (io.Closer, error) {
	claim, err := net.Listen("unix", fmt.Sprintf("@pecd-stage-ports-%d", base))
	if err != nil {
		return nil, err
	}
	for p := base; p < base+n; p++ {
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			return nil, errors.Join(err, claim.Close())
		}
		if err := l.Close(); err != nil {
			return nil, errors.Join(err, claim.Close())
		}
	}
	return claim, nil
}
