package host

import (
	"fmt"
	"slices"
	"time"

	"pecd/plugins/protocol"
	"pecd/points"
)

// A Description is what a plugin says that it is.
type Description struct {
	Name    string         `json:"name"`
	Version string         `json:"version"`
	About   string         `json:"about"`
	SDK     string         `json:"sdk"`
	Kind    protocol.Kind  `json:"kind"`
	Stages  []points.Stage `json:"stages,omitempty"`
	Keys    []Key          `json:"keys,omitempty"`
	Engine  string         `json:"engine,omitempty"`
}

// A Key is one setting of a plugin.
type Key struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Default string `json:"default"`
	About   string `json:"about"`
}

// A Problem is one thing that is wrong with a plugin's settings.
type Problem struct {
	Key string `json:"key"` // empty if it is not about one
	Why string `json:"why"`
	Fix string `json:"fix,omitempty"`
}

func (p Problem) String() string {
	s := p.Why
	if p.Key != "" {
		s = p.Key + ": " + s
	}
	if p.Fix != "" {
		s += "; " + p.Fix
	}
	return s
}

// A State is how a plugin is.
type State string

// The states.
const (
	Starting   State = "starting"
	Running    State = "running"
	BackingOff State = "backing off" // it failed, and is started again soon
	Failed     State = "failed"      // what is wrong does not go away by itself; it is tried seldom
	Closed     State = "closed"
)

// A Status says how a plugin is and what it has done since the host started.
type Status struct {
	Plugin      string      `json:"plugin"` // its name in the configuration
	Path        string      `json:"path"`
	SHA256      string      `json:"sha256"` // of the program that runs
	Pinned      bool        `json:"pinned"` // the checksum is configured
	Description Description `json:"description"`
	State       State       `json:"state"`
	Since       time.Time   `json:"since"` // when it came into that state
	Pid         int         `json:"pid"`   // 0 if it does not run
	// Confined says that nothing is missing of what a plugin is confined by.
	Confined bool `json:"confined"`
	// Landlock is the version of the kernel's Landlock, 0 if it has none.
	Landlock int `json:"landlock"`
	// Filtered says that the calls are refused that Landlock does not know.
	Filtered  bool          `json:"filtered"`
	Calls     int64         `json:"calls"`
	Failures  int64         `json:"failures"` // calls without an answer that counts
	Restarts  int64         `json:"restarts"`
	Mean      time.Duration `json:"mean"` // of the latest calls
	P99       time.Duration `json:"p99"`
	LastError string        `json:"last_error,omitempty"`
}

// Confinement says in words how far the plugin is confined.
func (s Status) Confinement() string {
	switch {
	case s.Confined:
		return "yes"
	case s.Landlock == 0:
		return "no"
	case !s.Filtered:
		return fmt.Sprintf("partly (Landlock %d, no seccomp)", s.Landlock)
	}
	return fmt.Sprintf("partly (Landlock %d)", s.Landlock)
}

// latencies are those of the latest calls.
type latencies struct {
	ring [512]time.Duration
	n    int // all that were added
}

func (l *latencies) add(d time.Duration) {
	l.ring[l.n%len(l.ring)] = d
	l.n++
}

func (l *latencies) summary() (mean, p99 time.Duration) {
	n := min(l.n, len(l.ring))
	if n == 0 {
		return 0, 0
	}
	list := slices.Clone(l.ring[:n])
	slices.Sort(list)
	var sum time.Duration
	for _, d := range list {
		sum += d
	}
	return sum / time.Duration(n), list[(n*99+99)/100-1]
}
