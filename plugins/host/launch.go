package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// launcherName is the name under which this program is started to become a
// plugin, instead of an argument that users could give.
const launcherName = "pecd: plugin launcher"

// A launch is what the launcher is told.
type launch struct {
	Host   int      `json:"host"` // process id
	Name   string   `json:"name"`
	Path   string   `json:"path"`
	SHA256 string   `json:"sha256"`
	Read   []string `json:"read"`
	Write  []string `json:"write"`
}

// A launched is what the launcher tells: first where it stands, and once more
// with a Failure if it could not go on.
type launched struct {
	SHA256   string `json:"sha256,omitempty"`
	Landlock int    `json:"landlock,omitempty"`
	Filtered bool   `json:"filtered,omitempty"`
	Failure  string `json:"failure,omitempty"`
	Cause    string `json:"cause,omitempty"`
}

// causes are the failures that programs tell apart.
var causes = map[string]error{"checksum": ErrChecksum, "unsafe": ErrUnsafe, "missing": os.ErrNotExist}

func (l launched) err() error {
	switch {
	case l.Failure == "":
		return nil
	case causes[l.Cause] != nil:
		return fmt.Errorf("%w: %s", causes[l.Cause], l.Failure)
	}
	return errors.New(l.Failure)
}

// reportFile is the descriptor on which the launcher tells the host; that it is
// closed without a failure means that the plugin runs.
const reportFile = 3

// LaunchIfAsked turns this process into a plugin if a Host started it for that,
// and does not return then. It must be called first thing in main, and in
// TestMain of tests that start a Host.
func LaunchIfAsked() {
	if len(os.Args) != 2 || os.Args[0] != launcherName {
		return
	}
	report := json.NewEncoder(os.NewFile(reportFile, "report"))
	err := become(os.Args[1], report)
	l := launched{Failure: err.Error()}
	for cause, sentinel := range causes {
		if errors.Is(err, sentinel) {
			l.Cause = cause
		}
	}
	if report.Encode(l) != nil {
		fmt.Fprintln(os.Stderr, l.Failure)
	}
	os.Exit(1)
}

// become checks the program, gives up what a plugin may not have, and executes
// the program. It returns only an error.
func become(argument string, report *json.Encoder) error {
	var l launch
	if err := json.Unmarshal([]byte(argument), &l); err != nil {
		return fmt.Errorf("the launcher was told nonsense: %w", err)
	}
	// What is asked of the kernel here is asked for a thread, and has to be the
	// one that executes the program.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("pdeathsig: %w", err)
	}
	if os.Getppid() != l.Host {
		return errors.New("the host is no more")
	}
	// Whatever this process got from the daemon ends with the execution; the
	// report too, which tells the host that it went well.
	if err := closeAtExec(); err != nil {
		return err
	}
	// A core would hold the message that the plugin looked at.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("setrlimit: %w", err)
	}
	p, err := openProgram(l.Path)
	if err != nil {
		return err
	}
	defer p.file.Close()
	if err := p.compare(l.SHA256); err != nil {
		return err
	}
	abi, filtered, err := confine(p, l)
	if err != nil {
		return err
	}
	if err := report.Encode(launched{SHA256: p.sum, Landlock: abi, Filtered: filtered}); err != nil {
		return fmt.Errorf("the report cannot be written: %w", err)
	}
	err = syscall.Exec(p.executable(), []string{l.Path}, os.Environ())
	return fmt.Errorf("%s cannot be executed: %w", l.Path, err)
}

// closeAtExec has all descriptors from the report's on end with the execution.
func closeAtExec() error {
	err := unix.CloseRange(reportFile, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		return closeEachAtExec() // before Linux 5.11
	}
	if err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	return nil
}

// closeEachAtExec does the same without the call for it.
func closeEachAtExec() error {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range open {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= reportFile {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
