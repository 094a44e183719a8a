package conform

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"pecd/plugins/host"
)

// childName is the name under which this program is started to be the pecd that
// is killed, instead of an argument that users could give.
const childName = "pecd: plugin check, to be killed"

// ChildIfAsked turns this process into a host of a plugin if the kit started it
// for that, and does not return then. It must be called first thing in main,
// after host.LaunchIfAsked, and in TestMain of tests that call Run.
func ChildIfAsked() {
	if len(os.Args) != 2 || os.Args[0] != childName {
		return
	}
	if err := child(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1)
}

// An order is what the child is told.
type order struct {
	Spec host.Spec
	Dir  string
}

// child runs the plugin and says its process id, until its standard input ends:
// if the kit is gone, so is the child.
func child(argument string) error {
	var b order
	if err := json.Unmarshal([]byte(argument), &b); err != nil {
		return err
	}
	o, err := places(b.Dir)
	if err != nil {
		return err
	}
	o.Log, o.Now = slog.New(slog.DiscardHandler), time.Now
	ctx := context.Background()
	h, err := host.Start(ctx, []host.Spec{b.Spec}, o)
	if err != nil {
		return err
	}
	fmt.Println(h.Status()[0].Pid)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return errors.Join(err, h.Close(ctx))
	}
	return h.Close(ctx)
}

func hostKilled(ctx context.Context, k *kit) error {
	pid, kill, err := k.child(ctx)
	if err != nil {
		return err
	}
	if gone(pid) {
		return errors.Join(errors.New("it was gone before"), kill())
	}
	if err := kill(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	for !gone(pid) {
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("after %v it is still there", endTime), syscall.Kill(pid, syscall.SIGKILL))
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// child starts a process of this program that runs the plugin; kill kills it.
func (k *kit) child(ctx context.Context) (pid int, kill func() error, err error) {
	b := order{Spec: k.spec, Dir: filepath.Join(k.dir, "k")}
	if err := os.Mkdir(b.Dir, 0o700); err != nil {
		return 0, nil, err
	}
	argument, err := json.Marshal(b)
	if err != nil {
		return 0, nil, err
	}
	var errs strings.Builder
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args, cmd.Stderr, cmd.WaitDelay = []string{childName, string(argument)}, &errs, time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	kill = func() error {
		err := cmd.Process.Kill()
		cmd.Wait() // says that it was killed
		in.Close()
		return err
	}
	if _, err := fmt.Fscan(bufio.NewReader(out), &pid); err != nil {
		kill()
		return 0, nil, fmt.Errorf("the pecd that was to be killed did not start: %s", strings.TrimSpace(errs.String()))
	}
	return pid, kill, nil
}
