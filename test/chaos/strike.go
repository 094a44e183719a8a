package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pecd/packaging/demo/stage"
)

// startAgain starts pecd until it runs. Only where its key is away may it fail to:
// what happens to pecd itself is over by then.
func (w *world) startAgain(ctx context.Context, p *stage.Provider) error {
	defer w.down.Delete(p)
	for {
		begin := time.Now()
		err := p.Pecd.Start(ctx)
		if err == nil {
			return nil
		}
		if !w.met("token "+p.Label, begin) {
			return fmt.Errorf("nothing that is broken accounts for it: %w", err)
		}
		if !pause(ctx, 500*time.Millisecond) {
			return errors.Join(err, ctx.Err())
		}
	}
}

func (w *world) again(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		if !pause(ctx, 500*time.Millisecond) {
			return errors.Join(err, ctx.Err())
		}
	}
}

// ballast is the file that fills a store's disk.
const ballast = "ballast"

func fill(store string) error {
	f, err := os.Create(filepath.Join(store, ballast))
	if err != nil {
		return err
	}
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// limitFiles limits the files that the running pecd may write.
func limitFiles(ctx context.Context, p *stage.Provider, limit string) error {
	pid, err := running(p)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "prlimit", "--pid", strconv.Itoa(pid), "--fsize="+limit+":unlimited").CombinedOutput()
	if err != nil {
		return fmt.Errorf("prlimit: %w: %s", err, out)
	}
	return nil
}

// running is the pid of a pecd that must run: 0 would be ourselves to some, and to
// others whatever the kernel has started.
func running(p *stage.Provider) (int, error) {
	pid := p.Pecd.PID()
	if pid == 0 {
		return 0, fmt.Errorf("pecd %s does not run", p.Label)
	}
	return pid, nil
}

// signalServer signals a server's master, by the pid in its master.pid, and the
// children of it, and returns all their pids. No other fault of that server is under
// way, so it must run.
func signalServer(p *stage.Provider, name, folder string, sig syscall.Signal) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(p.Dir, folder, "master.pid"))
	if err != nil {
		return nil, fmt.Errorf("%s of %s does not run: %w", name, p.Label, err)
	}
	master, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || master <= 1 {
		return nil, fmt.Errorf("%s of %s: master.pid says %q", name, p.Label, text)
	}
	children := childrenOf(master)
	if err := syscall.Kill(master, sig); err != nil {
		return nil, fmt.Errorf("%s of %s had ended by itself: %w", name, p.Label, err)
	}
	return append(children, master), signalAll(children, sig)
}

// untilEnded waits until killed processes have ended: a loaded machine lets them live for
// a while, and whoever starts the server again would find that it runs.
func untilEnded(ctx context.Context, pids []int) error {
	for slices.ContainsFunc(pids, func(pid int) bool { s := statOf(pid); return len(s) > 0 && s[0] != "Z" }) {
		if !pause(ctx, 10*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}

// signalAll signals processes; one that has ended since is no error.
func signalAll(pids []int, sig syscall.Signal) error {
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

// childrenOf are the children of a process that have not ended.
func childrenOf(parent int) (list []int) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	for _, f := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			continue
		}
		if s := statOf(pid); len(s) > 1 && s[0] != "Z" && s[1] == strconv.Itoa(parent) {
			list = append(list, pid)
		}
	}
	return list
}

// statOf is what /proc says of a process, from its state and its parent on; nothing
// if it has ended and was collected.
func statOf(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// signalPlugin signals the programs that pecd has started. The fault before this may
// have ended them, and pecd starts them again: a fault that meets nobody is none.
func (w *world) signalPlugin(ctx context.Context, p *stage.Provider, sig syscall.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		n, err := signalChildren(p, sig)
		if err != nil || n > 0 {
			return err
		}
		if !pause(ctx, 100*time.Millisecond) {
			return fmt.Errorf("pecd %s runs no plugin: %w", p.Label, ctx.Err())
		}
	}
}

// signalChildren signals the programs that pecd has started, and says how many.
func signalChildren(p *stage.Provider, sig syscall.Signal) (int, error) {
	pid, err := running(p)
	if err != nil {
		return 0, err
	}
	children := childrenOf(pid)
	return len(children), signalAll(children, sig)
}
