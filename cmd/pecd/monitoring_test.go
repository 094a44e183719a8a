package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v2"

	"pecd/courier"
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

// ruleExprs are the expressions of the alert rules, by name.
func ruleExprs(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../packaging/monitoring/pecd.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	exprs := map[string]string{}
	for _, r := range file.Groups[0].Rules {
		exprs[r.Alert] = r.Expr
	}
	return exprs
}

// constants are the values of the constants of a source file whose names begin so.
func constants(t *testing.T, file, prefix string) (values []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\t`+prefix+`[A-Z]\w*\s+= "([a-z-]+)"`).FindAllStringSubmatch(string(text), -1) {
		values = append(values, m[1])
	}
	if len(values) == 0 {
		t.Fatalf("%s has no constant %s…", file, prefix)
	}
	return values
}

// counted are the series that the sources count, by figure: each with its labels.
func counted(t *testing.T) map[string][]map[string]string {
	t.Helper()
	doors := func(door string, events []string) (list []map[string]string) {
		for _, e := range events {
			list = append(list, map[string]string{"door": door, "event": e})
		}
		return list
	}
	of := func(label string, values []string) (list []map[string]string) {
		for _, v := range values {
			list = append(list, map[string]string{label: v})
		}
		return list
	}
	milters := constants(t, "../../milter/milter.go", "Event")
	return map[string][]map[string]string{
		"pecd_door_events_total": slices.Concat(doors("milter", milters), doors("gate", milters), doors("gate", constants(t, "metrics.go", "event")),
			doors("lmtp", constants(t, "../../lmtp/server.go", "Event")), doors("direct", []string{"panic"})),
		"pecd_infected_total":  of("what", constants(t, "metrics.go", "infected")),
		"pecd_handovers_total": of("outcome", constants(t, "../../courier/courier.go", "Outcome")),
	}
}

// series are those of a fresh daemon, as text.
func series(t *testing.T) map[string]bool {
	t.Helper()
	m, r := newMetrics(nil), prometheus.NewRegistry()
	r.MustRegister(m.doors, m.infected, m.handovers)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range families {
		for _, s := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range s.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			found[fmt.Sprint(f.GetName(), labels)] = true
		}
	}
	return found
}

// selects reports whether the matchers of an expression select these labels.
func selects(t *testing.T, matchers string, labels map[string]string) bool {
	t.Helper()
	for _, m := range regexp.MustCompile(`(\w+)(=~|!~|!=|=)"([^"]*)"`).FindAllStringSubmatch(matchers, -1) {
		value := labels[m[1]]
		whole, err := regexp.Compile("^(?:" + m[3] + ")$")
		if err != nil {
			t.Fatal(err)
		}
		if equal := value == m[3]; m[2] == "=" && !equal || m[2] == "!=" && equal ||
			m[2] == "=~" && !whole.MatchString(value) || m[2] == "!~" && whole.MatchString(value) {
			return false
		}
	}
	return true
}

// TestFirstEvent: increase() does not see the event with which a series begins, so each
// series that an alert looks at so is there from the start.
func TestFirstEvent(t *testing.T) {
	there, all := series(t), counted(t)
	asked := 0
	for alert, expr := range ruleExprs(t) {
		for _, m := range regexp.MustCompile(`increase\((pecd_\w+)(?:\{([^}]*)\})?\[`).FindAllStringSubmatch(expr, -1) {
			asked++
			some := false
			for _, labels := range all[m[1]] {
				if !selects(t, m[2], labels) {
					continue
				}
				some = true
				if !there[fmt.Sprint(m[1], labels)] {
					t.Errorf("%s does not see the first event of %s%v: the series is not there at the start", alert, m[1], labels)
				}
			}
			if !some {
				t.Errorf("%s looks at %s{%s}, which nothing counts", alert, m[1], m[2])
			}
		}
	}
	if asked == 0 {
		t.Error("no alert asks for an increase")
	}
	for _, door := range constants(t, "metrics.go", "door") {
		if !slices.ContainsFunc(all["pecd_door_events_total"], func(labels map[string]string) bool { return labels["door"] == door }) {
			t.Errorf("what does the door %s count?", door)
		}
	}
	// A name that is written beside a counter would not be among the constants.
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if m := regexp.MustCompile(`(?:doors|infected|handovers)\.WithLabelValues\([^)]*"[^)]*\)|doorEvent\("`).FindString(string(text)); m != "" && !strings.HasSuffix(file, "_test.go") {
			t.Errorf("%s: %s: use a constant", file, m)
		}
	}
}

// handedOver says of each outcome of the courier's whether the message was taken at once.
var handedOver = map[string]bool{courier.OutcomeTaken: true, courier.OutcomeDirect: true,
	courier.OutcomePartial: false, courier.OutcomeRefused: false, courier.OutcomeFailed: false, courier.OutcomeUnreachable: false}

// TestHandoverAlert: the alert fires for the outcomes that are bad, and for no other.
func TestHandoverAlert(t *testing.T) {
	expr := ruleExprs(t)["PecdHandoverFailing"]
	m := regexp.MustCompile(`pecd_handovers_total\{([^}]*)\}`).FindStringSubmatch(expr)
	if m == nil {
		t.Fatalf("the alert asks for something else: %s", expr)
	}
	there := series(t)
	for _, outcome := range constants(t, "../../courier/courier.go", "Outcome") {
		good, known := handedOver[outcome]
		if !known {
			t.Errorf("is the new outcome %q of the courier's good or bad?", outcome)
		}
		labels := map[string]string{"outcome": outcome}
		if fires := selects(t, m[1], labels); fires == good {
			t.Errorf("the outcome %q: good %v, and the alert fires: %v", outcome, good, fires)
		}
		if !there[fmt.Sprint("pecd_handovers_total", labels)] {
			t.Errorf("no series of the outcome %q at the start", outcome)
		}
	}
}
