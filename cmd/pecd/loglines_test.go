package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestLogLines holds docs/log-lines.md against all calls of log/slog in the source: no
// line is missing there, and none is there that nobody writes.
func TestLogLines(t *testing.T) {
	written := logCalls(t, "../..")
	if len(written) < 100 {
		t.Fatalf("only %d lines found in the source", len(written))
	}
	page, err := os.ReadFile("../../docs/log-lines.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| (info|warn|error) \\| `([^`]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		line := m[1] + " " + m[2]
		if told[line] {
			t.Errorf("twice on the page: %s", line)
		}
		told[line] = true
		if written[line] == "" {
			t.Errorf("nobody writes it, but it is on the page: %s", line)
		}
	}
	for line, where := range written {
		if !told[line] {
			t.Errorf("%s: not on the page: %s", where, line)
		}
	}
}

// logLevels are the methods of slog.Logger that the page is about.
var logLevels = map[string]string{"Info": "info", "InfoContext": "info", "Warn": "warn", "WarnContext": "warn", "Error": "error", "ErrorContext": "error"}

// notLoggers are what else has methods of these names, by the name before the dot.
var notLoggers = map[string]bool{"t": true, "b": true, "http": true, "status": true}

// logCalls are the lines that the program can write, "level text", and where. What is
// put together has a sign of ellipsis in place of what is not constant.
func logCalls(t *testing.T, root string) map[string]string {
	t.Helper()
	lines := map[string]string{}
	files := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch name := e.Name(); {
		case err != nil:
			return err
		case e.IsDir() && (name == "testdata" || strings.HasPrefix(name, ".") && path != root):
			return fs.SkipDir
		case e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || logLevels[method.Sel.Name] == "" || len(call.Args) == 0 {
				return true // Error() without arguments is of an error
			}
			where := files.Position(call.Pos()).String()
			of := lastName(method.X)
			if notLoggers[of] {
				return true
			}
			text := constantText(call.Args[min(len(call.Args)-1, strings.Count(method.Sel.Name, "Context"))])
			if of != "log" && of != "Log" || text == "" {
				t.Errorf("%s: is %s.%s a line of the log? Its text must begin with a constant", where, of, method.Sel.Name)
			}
			lines[logLevels[method.Sel.Name]+" "+text] = where
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// lastName is log in d.opts.log.
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.CallExpr:
		return lastName(e.Fun)
	}
	return ""
}

func constantText(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if s, err := strconv.Unquote(e.Value); err == nil {
			return s
		}
	case *ast.BinaryExpr:
		if s := constantText(e.X); s != "" {
			return s + "…"
		}
	}
	return ""
}
