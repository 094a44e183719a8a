package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// memory prints how much memory each pecd holds at most while twenty messages of
// 30 MB are under way at the same time, each to a user of the same provider.
func (h *hall) memory(ctx context.Context) error {
	const name, messages, octets = "memory/20 of 30 MB", 20, 30_000_000
	if !strings.HasPrefix(name, h.only) {
		return nil
	}
	fmt.Printf("\n### %s\n\n| | resident at most, MB |\n|---|---|\n", name)
	for _, l := range h.pecd {
		pid := l.stage.Alfa.Pecd.PID()
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
			return err
		}
		_, err := l.carry(ctx, exchange(messages, messages, octets, neighbour))
		if err != nil {
			return err
		}
		peak, err := peakMemory(pid)
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %.0f |\n", l.name, float64(peak)/1e6)
	}
	return nil
}

// peakMemory is the highest resident memory since the peak was reset, in octets.
func peakMemory(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := bytes.Cut(status, []byte("\nVmHWM:"))
	fields := strings.Fields(string(after))
	if len(fields) < 2 || fields[1] != "kB" {
		return 0, fmt.Errorf("no VmHWM of process %d", pid)
	}
	n, err := strconv.ParseInt(fields[0], 10, 64)
	return n << 10, err
}
