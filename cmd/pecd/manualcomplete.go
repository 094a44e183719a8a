package main

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// Completions are written out, command by command: a shell needs no answer of
// pecd to complete a line.

// words are what may follow a command: commands, options. File names are the
// shell's own.
func words(n *kong.Node) []string {
	var list []string
	for _, c := range n.Children {
		if !c.Hidden {
			list = append(list, c.Name)
		}
	}
	for _, f := range flagsOf(n) {
		list = append(list, "--"+f.Name)
	}
	return list
}

// choices are the values of options that have a few only, by option.
func choices(n *kong.Node) map[string]string {
	m := map[string]string{}
	for _, f := range flagsOf(n) {
		if f.Enum != "" {
			m["--"+f.Name] = strings.Join(f.EnumSlice(), " ")
		}
	}
	return m
}

// allCommands are the root and all commands that are shown.
func allCommands(root *kong.Node) []*kong.Node {
	list := []*kong.Node{root}
	walkCommands(root, func(n *kong.Node) { list = append(list, n) })
	return list
}

const bashHead = `# bash completion for pecd; written by pecd manual
_pecd() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} path=pecd word next
	COMPREPLY=()
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		next=$path/$word
		case $next in
		%s) path=$next ;;
		esac
	done
	[[ $cur == = ]] && cur=
	[[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD-2]}
	case $path:$prev in
%s	esac
	case $path in
%s	esac
}
complete -o default -F _pecd pecd
`

func bashCompletion(root *kong.Node) string {
	var paths []string
	var values, follow strings.Builder
	for _, n := range allCommands(root) {
		path := strings.ReplaceAll(commandLine(n), " ", "/")
		if n.Parent != nil {
			paths = append(paths, path)
		}
		for _, f := range flagsOf(n) {
			if v := choices(n)["--"+f.Name]; v != "" {
				fmt.Fprintf(&values, "\t%s:--%s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n", path, f.Name, v)
			}
		}
		fmt.Fprintf(&follow, "\t%s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")) ;;\n", path, strings.Join(words(n), " "))
	}
	return fmt.Sprintf(bashHead, strings.Join(paths, " | "), values.String(), follow.String())
}

const zshHead = `#compdef pecd
# zsh completion for pecd; written by pecd manual
_pecd() {
	local path_=pecd word
	local -a list
	for word in ${words[2,CURRENT-1]}; do
		case $path_/$word in
		%s) path_=$path_/$word ;;
		esac
	done
	case $path_:${words[CURRENT]%%%%=*} in
%s	esac
	case $path_ in
%s	esac
	[[ ${words[CURRENT]} == -* ]] || _files
	_describe 'pecd' list
}
_pecd "$@"
`

func zshCompletion(root *kong.Node) string {
	var paths []string
	var values, follow strings.Builder
	for _, n := range allCommands(root) {
		path := strings.ReplaceAll(commandLine(n), " ", "/")
		if n.Parent != nil {
			paths = append(paths, path)
		}
		fmt.Fprintf(&follow, "\t%s) list=(", path)
		for _, c := range n.Children {
			if !c.Hidden {
				fmt.Fprintf(&follow, " %s", shellWord(zshText(c.Name, c.Help)))
			}
		}
		for _, f := range flagsOf(n) {
			fmt.Fprintf(&follow, " %s", shellWord(zshText("--"+f.Name, f.Help)))
			if v := choices(n)["--"+f.Name]; v != "" {
				fmt.Fprintf(&values, "\t%s:--%s) compset -P '*='; compadd -- %s; return ;;\n", path, f.Name, v)
			}
		}
		follow.WriteString(" ) ;;\n")
	}
	return fmt.Sprintf(zshHead, strings.Join(paths, " | "), values.String(), follow.String())
}

// zshText is a word with what it is, as _describe wants it.
func zshText(word, help string) string { return word + ":" + strings.ReplaceAll(help, ":", `\:`) }

func fishCompletion(root *kong.Node) string {
	var b strings.Builder
	b.WriteString("# fish completion for pecd; written by pecd manual\n")
	b.WriteString(`function __pecd_at
    set -l path
    for word in (commandline -opc)[2..-1]
        string match -q -- '-*' $word; and continue
        contains -- (string join / $path $word) $__pecd_commands; and set path $path $word
    end
    test (string join / $path)x = $argv[1]x
end
`)
	var paths []string
	walkCommands(root, func(n *kong.Node) { paths = append(paths, fishPath(n)) })
	fmt.Fprintf(&b, "set -g __pecd_commands %s\n", strings.Join(paths, " "))
	for _, n := range allCommands(root) {
		at := fmt.Sprintf("complete -c pecd -n %s", shellWord("__pecd_at "+shellWord(fishPath(n))))
		for _, c := range n.Children {
			if !c.Hidden {
				fmt.Fprintf(&b, "%s -f -a %s -d %s\n", at, c.Name, fishWord(c.Help))
			}
		}
		for _, f := range flagsOf(n) {
			fmt.Fprintf(&b, "%s -l %s -d %s", at, f.Name, fishWord(f.Help))
			if v := choices(n)["--"+f.Name]; v != "" {
				fmt.Fprintf(&b, " -x -a %s", fishWord(v))
			} else if !f.IsBool() && !f.IsCounter() {
				b.WriteString(" -r")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// fishPath is a command without pecd, its words parted by slashes.
func fishPath(n *kong.Node) string {
	_, path, _ := strings.Cut(strings.ReplaceAll(commandLine(n), " ", "/"), "/")
	return path
}

// shellWord is a text as one word of bash and zsh.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// fishWord is a text as one word of fish.
func fishWord(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
