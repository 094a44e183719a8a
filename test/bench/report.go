package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// figures makes a result.
func figures(n int, accepted, done time.Duration, before, after map[string]time.Duration, took []time.Duration) result {
	r := result{accepted: float64(n) / accepted.Seconds(), done: float64(n) / done.Seconds(), cpu: map[string]float64{}}
	for server := range after {
		r.cpu[server] = (after[server] - before[server]).Seconds() * 1000 / float64(n)
		r.total += r.cpu[server]
	}
	slices.Sort(took)
	r.p50 = took[len(took)/2].Seconds() * 1000
	r.p99 = took[(len(took)*99)/100].Seconds() * 1000
	return r
}

// String is a result in one line.
func (r result) String() string {
	return fmt.Sprintf("%.0f accepted/s, %.0f done/s, p50 %.1f ms, p99 %.1f ms, cpu %.2f ms %v", r.accepted, r.done, r.p50, r.p99, r.total, r.servers())
}

func (r result) servers() string {
	var parts []string
	for server, ms := range r.cpu {
		parts = append(parts, fmt.Sprintf("%s %.2f", server, ms))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// A figure is a column of a table; ratio says whether one with its ratio to the
// base follows.
type figure struct {
	name  string
	value func(result) float64
	ratio bool
}

var (
	acceptedPerSecond = figure{"accepted/s", func(r result) float64 { return r.accepted }, true}
	donePerSecond     = figure{"done/s", func(r result) float64 { return r.done }, true}
	cpuPerMessage     = figure{"CPU ms/message", func(r result) float64 { return r.total }, true}
	middle            = figure{"p50 ms", func(r result) float64 { return r.p50 }, false}
	tail99            = figure{"p99 ms", func(r result) float64 { return r.p99 }, false}
)

// print prints the table of one measurement.
func (j job) print(results [][]result) {
	fmt.Printf("\n### %s\n\n| |", j.name)
	for _, f := range j.show {
		fmt.Printf(" %s |", f.name)
		if f.ratio && j.base != nil {
			fmt.Printf(" to %s |", j.base.name)
		}
	}
	fmt.Printf(" of which, CPU ms |\n|---|")
	for _, f := range j.show {
		fmt.Print("---|")
		if f.ratio && j.base != nil {
			fmt.Print("---|")
		}
	}
	fmt.Println("---|")
	base := slices.Index(j.lanes, j.base)
	for i, l := range j.lanes {
		fmt.Printf("| %s |", l.name)
		for _, f := range j.show {
			fmt.Printf(" %s |", spread(results[i], f.value))
			if f.ratio && base >= 0 {
				ratios := make([]result, len(results[i]))
				for r := range ratios {
					ratios[r].done = f.value(results[i][r]) / f.value(results[base][r])
				}
				fmt.Printf(" %s |", spread(ratios, func(r result) float64 { return r.done }))
			}
		}
		fmt.Printf(" %s |\n", typical(results[i]).servers())
	}
}

// spread is median (least, most).
func spread(list []result, value func(result) float64) string {
	v := make([]float64, len(list))
	for i, r := range list {
		v[i] = value(r)
	}
	slices.Sort(v)
	digits := 0
	switch m := v[len(v)/2]; {
	case m < 10:
		digits = 2
	case m < 100:
		digits = 1
	}
	return fmt.Sprintf("%.*f (%.*f, %.*f)", digits, v[len(v)/2], digits, v[0], digits, v[len(v)-1])
}

// typical is the round with the median of the processor time.
func typical(list []result) result {
	s := slices.SortedFunc(slices.Values(list), func(a, b result) int {
		switch {
		case a.total < b.total:
			return -1
		case a.total > b.total:
			return 1
		}
		return 0
	})
	return s[len(s)/2]
}
