package sdk

import (
	"io"
	"os"
	"time"
)

// parentInterval is how often the parent is looked for. The pipe tells sooner;
// this is for hosts that gave none.
const parentInterval = 500 * time.Millisecond

// watch calls gone, once, when the process that started this one is no more:
// it held the other end of the pipe that is our standard input. The goroutines
// end with the process.
func watch(stdin *os.File, gone func()) {
	ended := make(chan struct{}, 2)
	if fi, err := stdin.Stat(); err == nil && fi.Mode()&os.ModeNamedPipe != 0 {
		go func() {
			io.Copy(io.Discard, stdin) // whatever ends it, nobody is there any more
			ended <- struct{}{}
		}()
	}
	parent := os.Getppid()
	go func() {
		for tick := time.NewTicker(parentInterval); os.Getppid() == parent; {
			<-tick.C
		}
		ended <- struct{}{}
	}()
	go func() {
		<-ended
		gone()
	}()
}
