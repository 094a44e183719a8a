package host

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
)

// A spawner starts processes from one thread that lives as long as it does: the
// kernel kills the plugins when the thread that started them ends
// (PR_SET_PDEATHSIG), and with any other thread of Go's that could be at any
// time.
type spawner struct {
	requests chan request
	once     sync.Once
	quit     chan struct{}
	ended    chan struct{}
}

type request struct {
	cmd    *exec.Cmd
	result chan error
}

var errClosed = errors.New("the host is closed")

func newSpawner() *spawner {
	s := &spawner{requests: make(chan request), quit: make(chan struct{}), ended: make(chan struct{})}
	go s.run()
	return s
}

func (s *spawner) run() {
	defer close(s.ended)
	// It is not unlocked: the thread ends with the goroutine.
	runtime.LockOSThread()
	for {
		select {
		case r := <-s.requests:
			r.result <- r.cmd.Start()
		case <-s.quit:
			return
		}
	}
}

// start starts cmd.
func (s *spawner) start(cmd *exec.Cmd) error {
	r := request{cmd, make(chan error, 1)}
	select {
	case s.requests <- r:
		return <-r.result
	case <-s.ended:
		return errClosed
	}
}

// close ends the thread, and with it every process that it started.
func (s *spawner) close() {
	s.once.Do(func() { close(s.quit) })
	<-s.ended
}
