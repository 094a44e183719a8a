// Package sdktest is for the tests of plugins made with package sdk: it opens them
// without pecd, and holds what people read about their settings against the program.
package sdktest

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pecd/plugins/protocol"
	"pecd/plugins/sdk"
)

// Open opens a check as pecd starts it, with the given table, a JSON object.
func Open(t testing.TB, p sdk.Plugin, table string) *sdk.Checker {
	t.Helper()
	s, err := open(t, p, table, false)
	if err != nil {
		t.Fatal(err)
	}
	c, ok := s.(*sdk.Checker)
	if !ok {
		t.Fatalf("%T is no check", s)
	}
	return c
}

func open(t testing.TB, p sdk.Plugin, table string, dry bool) (sdk.Service, error) {
	t.Helper()
	c, err := sdk.NewConfig(table, dry)
	if err != nil {
		t.Fatalf("%s: %v", table, err)
	}
	return p.Open(t.Context(), c)
}

// Settings opens p with each table, dry or not, and wants an error about the setting
// that stands with it, or none where that is empty.
func Settings(t testing.TB, p sdk.Plugin, dry bool, tables map[string]string) {
	t.Helper()
	for table, key := range tables {
		_, err := open(t, p, table, dry)
		var wrong sdk.Problem
		if errors.As(err, &wrong); wrong.Key != key || (err == nil) != (key == "") {
			t.Errorf("%s: %v", table, err)
		}
	}
}

// Defaults wants the defaults of p's keys, which people read, to be those of the
// program, and what is said about the keys to fit the protocol. Settings is a pointer
// to the zero value of what p's table is decoded into, want what it is by default.
func Defaults(t testing.TB, p sdk.Plugin, settings, want any) {
	t.Helper()
	table := make([]string, 0, len(p.Keys))
	for _, k := range p.Keys {
		table = append(table, fmt.Sprintf("%q:%s", k.Name, k.Default))
		if len(k.About) > protocol.MaxText {
			t.Errorf("%s: %d octets are too long", k.Name, len(k.About))
		}
	}
	c, err := sdk.NewConfig("{"+strings.Join(table, ",")+"}", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Decode(settings); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(reflect.ValueOf(settings).Elem().Interface()) // so that no list is as good as an empty one
	if want := fmt.Sprint(want); got != want {
		t.Errorf("the keys say %s, the program %s", got, want)
	}
}
