package logstore_test

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// Tests that end a process, or take its rights away, run their part in a child:
// the test binary once more, with the name of a child in its environment.
const (
	childName = "PECD_STORE_CHILD"
	childDir  = "PECD_STORE_DIR"
	childArg  = "PECD_STORE_ARG"
)

// children are run with the directory of the store and an argument.
var children = map[string]func(t testing.TB, dir, arg string){
	"crash":    crashChild,
	"full":     fullChild,
	"readonly": readOnlyChild,
	"hold":     holdChild,
	"tight":    tightChild,
}

// TestChild is the child; it does nothing in a usual run.
func TestChild(t *testing.T) {
	if run := children[os.Getenv(childName)]; run != nil {
		run(t, os.Getenv(childDir), os.Getenv(childArg))
	}
}

func childCommand(t *testing.T, name, dir, arg string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.count=1")
	// A child that is killed leaves its temporary folders: within those of the test.
	cmd.Env = append(os.Environ(), childName+"="+name, childDir+"="+dir, childArg+"="+arg, "TMPDIR="+t.TempDir())
	return cmd
}

// runChild runs a child that must succeed.
func runChild(t *testing.T, name, dir, arg string) {
	t.Helper()
	if out, err := childCommand(t, name, dir, arg).CombinedOutput(); err != nil {
		t.Fatalf("child %s %s: %v\n%s", name, arg, err, out)
	}
}

// runKilledChild runs a child that must kill itself.
func runKilledChild(t *testing.T, name, dir, arg string) {
	t.Helper()
	out, err := childCommand(t, name, dir, arg).CombinedOutput()
	var status syscall.WaitStatus
	if exit, ok := err.(*exec.ExitError); ok {
		status = exit.Sys().(syscall.WaitStatus)
	}
	if !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Fatalf("child %s %s was not killed: %v\n%s", name, arg, err, out)
	}
}

// killSelf ends the process at once, as a crash does. It does not return.
func killSelf() {
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		fmt.Println(err)
	}
	select {}
}
