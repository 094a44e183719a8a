package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"pecd/cmd/pecd/roff"
)

// configPage is pecd.toml(5), from the comments of package config: the comment of
// a field is its manual.
func configPage(dir, day, version string) (string, error) {
	structs, err := parseStructs(dir)
	if err != nil {
		return "", err
	}
	top, ok := structs["Config"]
	if !ok {
		return "", fmt.Errorf("%s: there is no type Config", dir)
	}
	p := roff.New("pecd.toml", "5", day, version, "configuration of pecd, for certified mail")
	p.Section("SYNOPSIS")
	p.Paragraph("`/etc/pecd/pecd.toml`, `/etc/pecd/conf.d/*.toml`")
	p.Section("DESCRIPTION")
	p.Paragraph("One file in TOML, and those of conf.d beside it in the order of their names. A key may be set once only. A key that " +
		"is not known, a value of a wrong type and one that cannot work are errors; `pecd config check` tells file and line, and what to do.")
	p.Paragraph("`systemctl reload pecd` takes changes into use, but for sockets, store, courier and plugins, which need a restart.")
	p.Section("TABLES")
	for _, f := range top.fields {
		section(p, structs, f, "")
	}
	p.Section("EXAMPLE")
	p.Paragraph("/usr/share/doc/pecd/examples/pecd.toml has every key.")
	p.Section("SEE ALSO")
	p.Paragraph("`pecd`(8), `pecd-config-check`(8), `pecd-plugin`(7)")
	return p.String(), nil
}

// A structure is a type of package config.
type structure struct {
	about  string
	fields []field
}

// A field is a key, or an embedded structure if it has no key.
type field struct{ name, key, of, about string }

// parseStructs reads the types of a package.
func parseStructs(dir string) (map[string]structure, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	structs := map[string]structure{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, s := range g.Specs {
				t := s.(*ast.TypeSpec)
				if st, ok := t.Type.(*ast.StructType); ok {
					structs[t.Name.Name] = structure{prose(g.Doc.Text()), fieldsOf(st)}
				}
			}
		}
	}
	return structs, nil
}

func fieldsOf(st *ast.StructType) (list []field) {
	for _, f := range st.Fields.List {
		of := typeName(f.Type)
		if len(f.Names) == 0 {
			list = append(list, field{of: of})
			continue
		}
		if f.Tag == nil {
			continue
		}
		tag, err := strconv.Unquote(f.Tag.Value)
		key, _, _ := strings.Cut(reflect.StructTag(tag).Get("toml"), ",")
		if err == nil && key != "" && key != "-" {
			list = append(list, field{f.Names[0].Name, key, of, prose(f.Doc.Text())})
		}
	}
	return list
}

// typeName is the type of a field, of its elements if it is a list.
func typeName(e ast.Expr) string {
	switch t := e.(type) {
	case *ast.Ident:
		return t.Name
	case *ast.StarExpr:
		return typeName(t.X)
	case *ast.ArrayType:
		return typeName(t.Elt)
	}
	return ""
}

func prose(comment string) string { return strings.Join(strings.Fields(comment), " ") }

// section shows a table with its keys, and then the tables in it.
func section(p *roff.Page, structs map[string]structure, f field, above string) {
	st := structs[f.of]
	title := above + f.key
	if f.of == "Plugin" {
		p.Subsection("[[" + title + "]]")
	} else {
		p.Subsection("[" + title + "]")
	}
	about := f.about
	if about == "" {
		about = capital(after(st.about, f.of))
	}
	p.Paragraph(keyed(about, f, nil))
	fields := flat(structs, st)
	for i := 0; i < len(fields); i++ {
		if _, table := structs[fields[i].of]; table {
			continue
		}
		// A key without a comment is told about in the one above it.
		term, about := "`"+fields[i].key+"`", keyed(fields[i].about, fields[i], fields)
		for i+1 < len(fields) && fields[i+1].about == "" {
			i++
			term += ", `" + fields[i].key + "`"
		}
		p.Item(term, about)
	}
	for _, sub := range fields {
		if _, table := structs[sub.of]; table {
			section(p, structs, sub, title+".")
		}
	}
}

// flat are the fields of a structure with those of what it embeds.
func flat(structs map[string]structure, st structure) (list []field) {
	for _, f := range st.fields {
		if f.key == "" {
			list = append(list, flat(structs, structs[f.of])...)
		} else {
			list = append(list, f)
		}
	}
	return list
}

// keyed writes a comment with the names of keys in place of those of Go: its own
// where it begins, those of others everywhere.
func keyed(about string, own field, all []field) string {
	for _, f := range all {
		if f.name != own.name {
			about = regexp.MustCompile(`\b`+f.name+`\b`).ReplaceAllString(about, "`"+f.key+"`")
		}
	}
	if rest, ok := strings.CutPrefix(about, own.name+" "); ok {
		return "`" + own.key + "` " + rest
	}
	return about
}

// after is a comment without the name that it begins with: "is ...".
func after(about, name string) string {
	for _, article := range []string{"A ", "An ", ""} {
		if rest, ok := strings.CutPrefix(about, article+name+" "); ok {
			return rest
		}
	}
	return about
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
