package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"pecd/cmd/pecd/roff"
)

// manualCmd is pecd manual: it writes the manual pages of all commands, and their
// completions, from the very texts that --help shows. Packages are built with it.
type manualCmd struct {
	Dir string `required:"" help:"Where to write man/ and completion/." placeholder:"DIR"`
	Day string `required:"" help:"The day that the pages carry, YYYY-MM-DD." placeholder:"DAY"`
}

// Run writes one page per command and one file per shell.
func (c *manualCmd) Run(k *kong.Context) error {
	if _, err := time.Parse(time.DateOnly, c.Day); err != nil {
		return fmt.Errorf("%w: --day %q is no day like 2026-12-01", errUsage, c.Day)
	}
	files := manualPages(k.Model.Node, c.Day)
	files["completion/pecd.bash"] = bashCompletion(k.Model.Node)
	files["completion/_pecd"] = zshCompletion(k.Model.Node)
	files["completion/pecd.fish"] = fishCompletion(k.Model.Node)
	for name, text := range files {
		path := filepath.Join(c.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// manualPages are the pages by file name: pecd.8, and one for each command, those
// that only hold others too.
func manualPages(root *kong.Node, day string) map[string]string {
	files := map[string]string{"man/pecd.8": mainPage(root, day)}
	walkCommands(root, func(n *kong.Node) {
		files["man/"+pageName(n)+".8"] = commandPage(n, day)
	})
	return files
}

// walkCommands visits all commands that are shown, from the top.
func walkCommands(n *kong.Node, visit func(*kong.Node)) {
	for _, c := range n.Children {
		if !c.Hidden {
			visit(c)
			walkCommands(c, visit)
		}
	}
}

// pageName is what man is asked for: pecd-log-search.
func pageName(n *kong.Node) string { return strings.ReplaceAll(commandLine(n), " ", "-") }

// commandLine is the command as it is typed.
func commandLine(n *kong.Node) string {
	if n.Parent == nil {
		return n.Name
	}
	return commandLine(n.Parent) + " " + n.Name
}

func mainPage(root *kong.Node, day string) string {
	p := roff.New("pecd", "8", day, version, "certified mail (PEC) for Postfix and Sendmail")
	p.Section("SYNOPSIS")
	p.Paragraph("`pecd` COMMAND [ARGUMENT...]")
	p.Section("DESCRIPTION")
	p.Paragraph(root.Help)
	p.Paragraph("`pecd serve` is the daemon. It takes messages of the provider's users from the mail server, issues the receipts of " +
		"certified mail (RFC 6109), and delivers what other providers send. All other commands look at what it did, set something, or " +
		"help to set it up. Each has a page of its own, and the option `--help`.")
	p.Section("COMMANDS")
	walkCommands(root, func(n *kong.Node) {
		if n.Leaf() {
			p.Item("`"+commandLine(n)+"`", n.Help)
		}
	})
	exitSection(p)
	p.Section("FILES")
	p.Item("`/etc/pecd/pecd.toml`", "The configuration, with the files of conf.d beside it.")
	p.Item("`/var/lib/pecd`", "The register, the messages that are on their way, and the virus store. The register is to be kept by law.")
	p.Item("`/run/pecd`", "The sockets at which the mail server calls.")
	p.Item("`/usr/lib/pecd/plugins`", "Plugins.")
	p.Section("SIGNALS")
	p.Item("SIGHUP", "`pecd serve` reads its configuration anew; what cannot be read leaves everything as it was.")
	p.Item("SIGTERM", "`pecd serve` finishes the messages under way and ends.")
	seeAlso(p, root)
	return p.String()
}

func commandPage(n *kong.Node, day string) string {
	p := roff.New(pageName(n), "8", day, version, n.Help)
	p.Section("SYNOPSIS")
	p.Paragraph("`" + commandLine(n) + "`" + synopsis(n))
	p.Section("DESCRIPTION")
	p.Paragraph(n.Help)
	for _, part := range strings.Split(n.Detail, "\n\n") {
		if part != "" {
			p.Paragraph(part)
		}
	}
	if len(n.Children) > 0 {
		p.Section("COMMANDS")
		walkCommands(n, func(c *kong.Node) { p.Item("`"+commandLine(c)+"`", c.Help) })
	}
	if len(n.Positional) > 0 {
		p.Section("ARGUMENTS")
		for _, a := range n.Positional {
			p.Item(a.Summary(), a.Help)
		}
	}
	p.Section("OPTIONS")
	for _, f := range flagsOf(n) {
		p.Item(flagTerm(f), f.Help)
	}
	exitSection(p)
	seeAlso(p, n)
	return p.String()
}

// synopsis is what follows the command: options that it must have, arguments.
func synopsis(n *kong.Node) string {
	if len(n.Children) > 0 {
		return " COMMAND"
	}
	var b strings.Builder
	for _, f := range flagsOf(n) {
		if f.Required {
			b.WriteString(" " + flagTerm(f))
		}
	}
	b.WriteString(" [OPTION...]")
	for _, a := range n.Positional {
		b.WriteString(" " + a.Summary())
	}
	return b.String()
}

// flagsOf are the options of a command that are shown, its parents' first.
func flagsOf(n *kong.Node) (flags []*kong.Flag) {
	for _, group := range n.AllFlags(true) {
		flags = append(flags, group...)
	}
	return flags
}

// flagTerm is an option as it is typed, with the name of its value.
func flagTerm(f *kong.Flag) string {
	term := "`--" + f.Name + "`"
	if f.Short != 0 {
		term = "`-" + string(f.Short) + "`, " + term
	}
	if !f.IsBool() && !f.IsCounter() {
		term += "=" + f.FormatPlaceHolder()
	}
	return term
}

func exitSection(p *roff.Page) {
	p.Section("EXIT STATUS")
	p.Item("0", "The work is done; where something was asked, the answer is yes.")
	p.Item(fmt.Sprint(exitNo), "The answer is no, or the work failed.")
	p.Item(fmt.Sprint(exitUsage), "The command line is wrong.")
	p.Item(fmt.Sprint(exitConfig), "The configuration is wrong.")
}

func seeAlso(p *roff.Page, n *kong.Node) {
	p.Section("SEE ALSO")
	var pages []string
	if n.Parent != nil {
		pages = append(pages, "`pecd`(8)")
	}
	for _, c := range n.Children {
		if !c.Hidden {
			pages = append(pages, "`"+pageName(c)+"`(8)")
		}
	}
	p.Paragraph(strings.Join(append(pages, "`pecd.toml`(5)", "`pecd-plugin`(7)"), ", "))
}
