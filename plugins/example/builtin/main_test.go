package main

import (
	"context"
	"strings"
	"testing"

	"pecd/plugins/sdk"
)

// TestOpen: the setting kind names the point; without it there is none.
func TestOpen(t *testing.T) {
	for table, want := range map[string]sdk.Kind{
		`{"kind": "access"}`: sdk.KindAccess, `{"kind": "reception"}`: sdk.KindReception, `{"kind": "delivery"}`: sdk.KindDelivery,
	} {
		if s, err := opened(t, table); err != nil || s.Kind() != want {
			t.Errorf("%s: %v, %v", table, s, err)
		}
	}
	for table, want := range map[string]string{
		``: "kind: it is none", `{"kind": "check"}`: "kind: it is none", `{"kind": 3}`: "kind: it holds a number",
		`{"sort": "access"}`: "sort: there is no such setting",
	} {
		if s, err := opened(t, table); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %q", table, s, err, want)
		}
	}
}

func opened(t *testing.T, table string) (sdk.Service, error) {
	c, err := sdk.NewConfig(table, false)
	if err != nil {
		t.Fatal(err)
	}
	return open(context.Background(), c)
}
