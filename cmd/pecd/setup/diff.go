package setup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// configFiles are what postconf(1) writes.
var configFiles = []string{"main.cf", "master.cf"}

// maxDiff is the most lines of which differences are worked out; tables that are new
// are shown in part only.
const (
	maxDiff = 5000
	maxNew  = 20
)

// rehearse makes the plan's changes to main.cf and master.cf on a copy of what was read,
// by the same commands that a person would use, and returns the new contents. The plan
// keeps them: what is put in place is what was shown.
func (p *Postfix) rehearse(ctx context.Context, plan *Plan) (after map[string][]byte, err error) {
	if plan.after != nil {
		return plan.after, nil
	}
	dir, err := os.MkdirTemp("", "pecd-setup-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, name := range configFiles {
		b := p.files[name]
		if len(b) > 0 && b[len(b)-1] != '\n' {
			b = append(slices.Clip(b), '\n') // postconf(1) would write on into the last line
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return nil, err
		}
	}
	if err := plan.write(ctx, dir); err != nil {
		return nil, err
	}
	plan.after, err = contents(dir)
	return plan.after, err
}

// write makes the changes in dir by postconf(1). What main.cf has keeps its place.
func (p *Plan) write(ctx context.Context, dir string) error {
	main := filepath.Join(dir, "main.cf")
	had, err := os.ReadFile(main)
	if err != nil {
		return err
	}
	var added, there, services []string
	for _, c := range p.Params {
		if change := c.Name + "=" + c.New; c.Had {
			there = append(there, change)
		} else {
			added = append(added, change)
		}
	}
	for _, e := range p.Services {
		services = append(services, e.Key+"="+e.New)
	}
	edit := func(flag string, args []string) error {
		if len(args) == 0 {
			return nil
		}
		_, err := run(ctx, "postconf", append([]string{"-c", dir, flag}, args...)...)
		return err
	}
	if err := edit("-e", added); err != nil {
		return err
	}
	if err := p.sort(main, had); err != nil {
		return err
	}
	if err := edit("-e", there); err != nil {
		return err
	}
	return edit("-M", services)
}

// sort puts the lines that postconf(1) has added behind those that main.cf had into the
// plan's order: Postfix 3.7 and later add them in one that differs each time.
func (p *Plan) sort(file string, had []byte) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	added, ok := bytes.CutPrefix(b, had)
	if !ok {
		return nil // it did more than add, and the order is its own
	}
	place := func(line string) int {
		name, _, _ := strings.Cut(line, "=")
		return slices.IndexFunc(p.Params, func(c Param) bool { return c.Name == strings.TrimSpace(name) })
	}
	list := slices.SortedStableFunc(strings.Lines(string(added)), func(a, b string) int { return cmp.Compare(place(a), place(b)) })
	return os.WriteFile(file, slices.Concat(had, []byte(strings.Join(list, ""))), 0o600)
}

// contents reads main.cf and master.cf of a directory.
func contents(dir string) (map[string][]byte, error) {
	m := map[string][]byte{}
	for _, name := range configFiles {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		m[name] = b
	}
	return m, nil
}

// Diff writes what the plan changes as a unified diff without context, each change
// after its reason. patch(1) takes it.
func (p *Postfix) Diff(ctx context.Context, plan *Plan, to io.Writer) error {
	after, err := p.rehearse(ctx, plan)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for _, name := range configFiles {
		file := filepath.Join(p.Dir, name)
		hunks := diff(lines(p.files[name]), lines(after[name]))
		if len(hunks) > 0 {
			fmt.Fprintf(&out, "--- %s\n+++ %s\n", file, file)
		}
		for _, h := range hunks {
			h.print(&out, plan.reasons(name, h))
		}
	}
	for _, f := range plan.Files {
		f.print(&out, p.Dir)
	}
	_, err = to.Write(out.Bytes())
	return err
}

// print shows a table that is written.
func (f File) print(out io.Writer, dir string) {
	file := filepath.Join(dir, f.Name)
	now := lines([]byte(f.Content))
	old, was := "/dev/null", 0
	if b, err := os.ReadFile(file); err == nil {
		old, was = file, len(lines(b))
	}
	fmt.Fprintf(out, "# %s\n--- %s\n+++ %s\n", f.Reason, old, file)
	if len(now) > maxNew || was > 0 {
		fmt.Fprintf(out, "# the whole table: %d lines in place of %d\n", len(now), was)
		return
	}
	(&hunk{from: 1, to: 1, added: now}).print(out, nil)
}

// reasons finds why a hunk is there.
func (p *Plan) reasons(file string, h *hunk) (list []string) {
	add := func(name, why string) {
		if why != "" {
			list = append(list, name+": "+why)
		}
	}
	text := strings.Join(append(append([]string{}, h.added...), h.removed...), "\n")
	if file == "main.cf" {
		for _, c := range p.Params {
			if strings.HasPrefix(text, c.Name+" ") || strings.HasPrefix(text, c.Name+"=") {
				add(c.Name, c.Reason)
			}
		}
		return list
	}
	for _, e := range p.Services {
		name, kind, _ := strings.Cut(e.Key, "/")
		for _, l := range h.added {
			if f := strings.Fields(l); len(f) < 2 || f[0] != name || f[1] != kind {
				continue
			}
			add(e.Key, e.Reasons[""])
			for _, arg := range e.service.args {
				n, _ := option(arg)
				add("  "+n, e.Reasons[n])
			}
		}
	}
	return list
}

// A hunk is one change: lines removed at from, lines added at to, counted from 1.
type hunk struct {
	from, to       int
	removed, added []string
}

func (h *hunk) print(out io.Writer, reasons []string) {
	for _, r := range reasons {
		fmt.Fprintf(out, "# %s\n", r)
	}
	at := func(line, n int) string {
		if n == 0 {
			line-- // the line after which it stands
		}
		return fmt.Sprintf("%d,%d", line, n)
	}
	fmt.Fprintf(out, "@@ -%s +%s @@\n", at(h.from, len(h.removed)), at(h.to, len(h.added)))
	for _, l := range h.removed {
		fmt.Fprintf(out, "-%s\n", l)
	}
	for _, l := range h.added {
		fmt.Fprintf(out, "+%s\n", l)
	}
}

func lines(b []byte) []string {
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// diff finds the changes from a to b. Each logical line, with those that continue it,
// is a hunk of its own, so that it can have its own reason.
func diff(a, b []string) (hunks []*hunk) {
	common := longest(a, b)
	i, j := 0, 0
	for _, c := range append(common, [2]int{len(a), len(b)}) {
		if i < c[0] || j < c[1] {
			hunks = append(hunks, parts(a, b, i, c[0], j, c[1])...)
		}
		i, j = c[0]+1, c[1]+1
	}
	return hunks
}

// parts makes hunks of a[i:ii] replaced by b[j:jj]: single lines one by one, and each
// entry that follows them is its own; where some take several lines, what is removed
// goes with the first entry.
func parts(a, b []string, i, ii, j, jj int) (hunks []*hunk) {
	n := ii - i
	if n <= jj-j && !slices.ContainsFunc(slices.Concat(a[i:ii], b[j:j+n]), continues) && (j+n == jj || !continues(b[j+n])) {
		for k := range n {
			hunks = append(hunks, &hunk{from: i + k + 1, to: j + k + 1, removed: a[i+k : i+k+1], added: b[j+k : j+k+1]})
		}
		if i, j = ii, j+n; j == jj {
			return hunks
		}
	}
	h := &hunk{from: i + 1, to: j + 1, removed: a[i:ii]}
	for ; j < jj; j++ {
		if len(h.added) > 0 && !continues(b[j]) {
			hunks = append(hunks, h)
			h = &hunk{from: ii + 1, to: j + 1}
		}
		h.added = append(h.added, b[j])
	}
	return append(hunks, h)
}

// continues reports whether a line belongs to the one before it.
func continues(line string) bool {
	return strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
}

// longest finds the longest common lines of a and b, as pairs of indexes.
func longest(a, b []string) (pairs [][2]int) {
	lead := 0
	for lead < len(a) && lead < len(b) && a[lead] == b[lead] {
		pairs = append(pairs, [2]int{lead, lead})
		lead++
	}
	a, b = a[lead:], b[lead:]
	if len(a) > maxDiff || len(b) > maxDiff {
		return pairs // one large hunk
	}
	t := make([][]int32, len(a)+1)
	for i := range t {
		t[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				t[i][j] = t[i+1][j+1] + 1
			} else {
				t[i][j] = max(t[i+1][j], t[i][j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] == b[j]:
			pairs = append(pairs, [2]int{lead + i, lead + j})
			i, j = i+1, j+1
		case t[i+1][j] >= t[i][j+1]:
			i++
		default:
			j++
		}
	}
	return pairs
}
