package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A usage counts the processor time of servers: each in a control group of its
// own, in which their children are born, so that those that have ended count too.
type usage struct {
	groups map[string]string // server -> directory
	dir    string
}

// The hierarchies of control groups where processor time is counted, and the file
// that says how much.
var hierarchies = []struct {
	root, file string
	read       func(text string) (time.Duration, error)
}{
	{"/sys/fs/cgroup/cpuacct", "cpuacct.usage", func(text string) (time.Duration, error) { // version 1, nanoseconds
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		return time.Duration(n), err
	}},
	{"/sys/fs/cgroup", "cpu.stat", func(text string) (time.Duration, error) { // version 2, microseconds
		for line := range strings.Lines(text) {
			if rest, ok := strings.CutPrefix(line, "usage_usec "); ok {
				n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
				return time.Duration(n) * time.Microsecond, err
			}
		}
		return 0, errors.New("no usage_usec")
	}},
}

// hierarchy is the index of the one that this machine has; -1: none.
func hierarchy() int {
	for i, h := range hierarchies {
		if _, err := os.Stat(filepath.Join(h.root, h.file)); err == nil {
			return i
		}
	}
	return -1
}

func accounting() string {
	if i := hierarchy(); i >= 0 {
		return "processor time from control groups (" + hierarchies[i].file + ")"
	}
	return "no control groups: no processor time"
}

// watch makes the groups and puts the servers with all their children into them.
func watch(masters map[string][]int) (*usage, error) {
	u := &usage{groups: map[string]string{}}
	i := hierarchy()
	if i < 0 {
		return nil, errors.New("this machine has no control groups that count processor time")
	}
	dir, err := os.MkdirTemp(hierarchies[i].root, "pecd-bench-")
	if err != nil {
		return nil, err
	}
	u.dir = dir
	for server := range masters {
		u.groups[server] = filepath.Join(dir, server)
		if err := os.Mkdir(u.groups[server], 0o755); err != nil {
			return u, err
		}
	}
	return u, u.adopt(masters)
}

// adopt puts the servers into their groups, also those that were started anew.
func (u *usage) adopt(masters map[string][]int) error {
	parents := map[int]int{}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if len(fields) > 1 {
			parents[pid], _ = strconv.Atoi(fields[1])
		}
	}
	for server, pids := range masters {
		for pid := range parents {
			for _, m := range pids {
				if pid == m || parents[pid] == m || parents[parents[pid]] == m {
					// One that has just ended cannot be moved, and need not.
					_ = os.WriteFile(filepath.Join(u.groups[server], "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644)
				}
			}
		}
	}
	return nil
}

// read returns what each server has used so far.
func (u *usage) read() map[string]time.Duration {
	h := hierarchies[hierarchy()]
	used := map[string]time.Duration{}
	for server, dir := range u.groups {
		text, err := os.ReadFile(filepath.Join(dir, h.file))
		if err == nil {
			used[server], err = h.read(string(text))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
	return used
}

func (u *usage) close() {
	for _, dir := range u.groups {
		_ = os.Remove(dir) // what still runs in it keeps it
	}
	_ = os.Remove(u.dir)
}
