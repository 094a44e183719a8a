package verify

import (
	"fmt"
	"io"
	"os"
	"time"
)

// A progress tells on a terminal how far the work is. It is for one goroutine.
type progress struct {
	to    io.Writer // nil: nobody looks
	clock func() time.Time
	last  time.Time
	total int64 // octets, 0 if that is not known
	done  int64
	count int
	shown bool
}

// pause is between two lines of progress.
const pause = 500 * time.Millisecond

// newProgress knows the whole of paths if they are all files.
func newProgress(to io.Writer, clock func() time.Time, paths []string) *progress {
	p := &progress{to: to, clock: clock}
	if to == nil {
		return p
	}
	p.last = clock()
	for _, path := range paths {
		st, err := os.Stat(path)
		if err != nil || !st.Mode().IsRegular() {
			p.total = 0
			break
		}
		p.total += st.Size()
	}
	return p
}

// message counts it.
func (p *progress) message(it item) {
	p.count++
	if it.src != nil {
		p.done += it.src.Size()
	}
	if p.to == nil {
		return
	}
	now := p.clock()
	if now.Sub(p.last) < pause {
		return
	}
	p.last, p.shown = now, true
	share := ""
	if p.total > 0 {
		share = fmt.Sprintf(", %d %%", min(p.done*100/p.total, 100))
	}
	_, _ = fmt.Fprintf(p.to, "\r%d messages, %d MB%s\x1b[K", p.count, p.done>>20, share) // nobody misses it
}

// clear takes the line away.
func (p *progress) clear() {
	if p.shown {
		_, _ = fmt.Fprint(p.to, "\r\x1b[K")
		p.shown = false
	}
}
