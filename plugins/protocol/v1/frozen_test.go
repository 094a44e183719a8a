package pluginv1

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// frozen is a line for everything of the protocol that a plugin may rely on.
func frozen() (lines []string) {
	f := File_plugin_proto
	for i := range f.Services().Len() {
		s := f.Services().Get(i)
		for j := range s.Methods().Len() {
			m := s.Methods().Get(j)
			lines = append(lines, fmt.Sprintf("rpc %s(%s) %s", m.FullName(), m.Input().FullName(), m.Output().FullName()))
		}
	}
	for i := range f.Enums().Len() {
		e := f.Enums().Get(i)
		for j := range e.Values().Len() {
			lines = append(lines, fmt.Sprintf("enum %s %s = %d", e.FullName(), e.Values().Get(j).Name(), e.Values().Get(j).Number()))
		}
	}
	for i := range f.Messages().Len() {
		m := f.Messages().Get(i)
		lines = append(lines, fmt.Sprintf("message %s", m.FullName()))
		for j := range m.Fields().Len() {
			lines = append(lines, field(m, m.Fields().Get(j)))
		}
	}
	sort.Strings(lines)
	return lines
}

func field(m protoreflect.MessageDescriptor, d protoreflect.FieldDescriptor) string {
	of := d.Kind().String()
	if d.Message() != nil {
		of = string(d.Message().FullName())
	}
	if d.Enum() != nil {
		of = string(d.Enum().FullName())
	}
	if d.ContainingOneof() != nil {
		of += " of " + string(d.ContainingOneof().Name())
	}
	return fmt.Sprintf("field %s.%s = %d %s %s", m.FullName(), d.Name(), d.Number(), d.Cardinality(), of)
}

// TestFrozen: what version 1 of the protocol once had, it keeps, with its name,
// number and type. New lines are added to the file with the release that brings
// them.
func TestFrozen(t *testing.T) {
	got := make(map[string]bool)
	for _, line := range frozen() {
		got[line] = true
	}
	b, err := os.ReadFile("testdata/frozen")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(b)), "\n")
	for _, line := range want {
		if !got[line] {
			t.Errorf("the protocol no longer has: %s", line)
		}
		delete(got, line)
	}
	for line := range got {
		t.Errorf("testdata/frozen does not have yet: %s", line)
	}
	if len(want) < 150 {
		t.Errorf("only %d lines are frozen", len(want))
	}
}

// TestCommented: the protocol's file is its manual, so everything in it has a
// comment.
func TestCommented(t *testing.T) {
	b, err := os.ReadFile("plugin.proto")
	if err != nil {
		t.Fatal(err)
	}
	before := ""
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		thing := strings.HasPrefix(line, "message ") || strings.HasPrefix(line, "enum ") || strings.HasPrefix(line, "service ") ||
			strings.HasPrefix(line, "rpc ") || strings.Contains(line, " = ") && strings.HasSuffix(line, ";") && !strings.HasPrefix(line, "option") && !strings.HasPrefix(line, "syntax")
		if thing && !strings.HasPrefix(before, "//") {
			t.Errorf("plugin.proto:%d: no comment before %s", i+1, line)
		}
		before = line
	}
}
