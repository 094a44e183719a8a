package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/packaging/demo/stage"
	"pecd/pec"
)

// register returns what pecd log search says of a message, the way an admin asks.
func register(t testing.TB, p *stage.Provider, args ...string) []logstore.Entry {
	t.Helper()
	cmd := exec.Command(p.Pecd.Bin, append([]string{"log", "search", "--json", "--config", p.Pecd.ConfigFile}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ee, ok := err.(*exec.ExitError); ok && ee.ExitCode() == 1 && len(out) == 0 {
		return nil // nothing matches
	}
	if err != nil {
		t.Fatalf("log search: %v\n%s", err, stderr.Bytes())
	}
	var list []logstore.Entry
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var e logstore.Entry
		if err := dec.Decode(&e); err == io.EOF {
			return list
		} else if err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		list = append(list, e)
	}
}

// registered sums up the entries about a message: types in order, with their
// number where it is not one.
func registered(t testing.TB, p *stage.Provider, id pec.Identifier) string {
	t.Helper()
	counts := map[string]int{}
	for _, e := range register(t, p, "--identifier", string(id)) {
		counts[string(e.Type)]++
	}
	var list []string
	for kind, n := range counts {
		if n > 1 {
			kind += "*" + strconv.Itoa(n)
		}
		list = append(list, kind)
	}
	sort.Strings(list)
	return strings.Join(list, " ")
}

// metrics reads all figures without labels.
func metrics(t testing.TB, ctx context.Context, p *stage.Provider) map[string]float64 {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Pecd.Config.Metrics.Listen+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	figures := map[string]float64{}
	for sc := bufio.NewScanner(res.Body); sc.Scan(); {
		var name string
		var value float64
		if n, err := fmt.Sscan(sc.Text(), &name, &value); err == nil && n == 2 {
			figures[name] = value
		}
	}
	return figures
}

// waitQueue waits until each of n messages has been tried and put off.
func waitQueue(t *testing.T, p *stage.Provider, n int) []string {
	t.Helper()
	ctx := within(t)
	for {
		queue, err := p.Queue(ctx)
		if err != nil {
			t.Fatal(err)
		}
		tried := 0
		for _, q := range queue {
			if p.PutOff(q) {
				tried++
			}
		}
		if tried == n && len(queue) == n {
			return queue
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d of %d messages were put off: %s", tried, n, queue)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
