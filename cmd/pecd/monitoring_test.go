package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v2"
)

// described are all figures that the daemon can show, as Prometheus writes them.
func described() (list []string) {
	d := &daemon{metrics: newMetrics(nil)}
	d.health = d.newHealth()
	ch := make(chan *prometheus.Desc)
	go func() {
		defer close(ch)
		for _, c := range append(d.collectors(), d.metrics.collectors()...) {
			c.Describe(ch)
		}
	}()
	for desc := range ch {
		list = append(list, desc.String())
	}
	return list
}

// exported are the names of these figures.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	names, fqName := map[string]bool{}, regexp.MustCompile(`fqName: "([a-z_]+)"`)
	for _, desc := range described() {
		m := fqName.FindStringSubmatch(desc)
		if m == nil {
			continue // those of the Go collector have expressions
		}
		names[m[1]] = true
	}
	return names
}

// unseen are the figures that the dashboard leaves out: they are for programs.
var unseen = map[string]bool{"pecd_crl_entries": true, "pecd_witness_entry": true}

// TestMonitoring: the alert rules and the dashboard that the packages carry can be
// read, ask for figures that there are, and leave none out; each alert has its section in
// docs/operating.md.
func TestMonitoring(t *testing.T) {
	names := exported(t)
	rules, err := os.ReadFile("../../packaging/monitoring/pecd.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalStrict(rules, &file); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{}
	for _, r := range file.Groups[0].Rules {
		if r.Alert == "" || r.Expr == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" {
			t.Errorf("the rule %q is not whole", r.Alert)
		}
		if !strings.Contains(string(page), "\n### "+r.Alert+"\n") {
			t.Errorf("docs/operating.md does not say what %s means", r.Alert)
		}
		lookFor(t, r.Alert, r.Expr, names, asked)
	}
	if n := strings.Count(string(page), "\n### Pecd"); n != len(file.Groups[0].Rules) {
		t.Errorf("docs/operating.md has %d alerts, the rules have %d", n, len(file.Groups[0].Rules))
	}
	board, err := os.ReadFile("../../packaging/monitoring/pecd-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(board, &dashboard); err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			lookFor(t, p.Title, target.Expr, names, shown)
		}
	}
	for name := range names {
		if strings.HasPrefix(name, "pecd_") && !shown[name] && !unseen[name] {
			t.Errorf("the dashboard does not show %s", name)
		}
		if asked[name] && unseen[name] {
			t.Errorf("an alert asks for %s, which the dashboard does not show", name)
		}
	}
}

var figure = regexp.MustCompile(`\b(pecd_[a-z_]+|process_[a-z_]+)\b`)

// lookFor wants each figure of an expression among names.
func lookFor(t *testing.T, where, expr string, names, asked map[string]bool) {
	t.Helper()
	found := figure.FindAllString(expr, -1)
	if len(found) == 0 && !strings.Contains(expr, "up{") && !strings.Contains(expr, "go_") {
		t.Errorf("%s asks for nothing of pecd: %s", where, expr)
	}
	for _, name := range found {
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			if base := strings.TrimSuffix(name, suffix); names[base] {
				name = base
			}
		}
		asked[name] = true
		if !names[name] {
			t.Errorf("%s asks for %s, which pecd does not export", where, name)
		}
	}
}
