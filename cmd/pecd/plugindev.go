package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/BurntSushi/toml"

	"pecd/plugins/conform"
	"pecd/plugins/scaffold"
)

// pluginNewCmd is pecd plugin new.
type pluginNewCmd struct {
	Name string `arg:"" help:"The plugin's name: lower case letters, digits and hyphens."`
	Dir  string `help:"Directory to write; it must be empty or not exist. Default: the name." placeholder:"DIR"`
	Kind string `default:"check" enum:"check,access,reception,delivery" help:"A check, or what takes the place of a point: access, reception, delivery."`
}

// Run writes the project and says what to do next.
func (c *pluginNewCmd) Run(std streams) error {
	dir := c.Dir
	if dir == "" {
		dir = c.Name
	}
	if err := scaffold.New(dir, c.Name, c.Kind); err != nil {
		return err
	}
	_, err := fmt.Fprintf(std.out, "%s: a project for a plugin of the kind %s\n  cd %s && make test   builds it and runs its tests\n  make check           tries it with pecd plugin check\n", dir, c.Kind, dir)
	return err
}

// pluginCheckCmd is pecd plugin check.
type pluginCheckCmd struct {
	Binary  string        `arg:"" type:"path" help:"The program."`
	Set     []string      `sep:"none" help:"A setting, as in its table: --set 'max = 50'; may be given several times." placeholder:"KEY=VALUE"`
	Table   string        `help:"File with its settings, TOML." placeholder:"FILE"`
	Read    []string      `help:"More files that it may read." placeholder:"PATH"`
	Write   []string      `help:"More files that it may read and write." placeholder:"PATH"`
	Timeout time.Duration `default:"30s" help:"How long one call may take."`
	Verbose bool          `short:"v" help:"Show what the plugin logs."`
	JSON    bool          `name:"json" help:"One JSON object a line."`
}

// Run tries the program and reports each thing that was looked at.
func (c *pluginCheckCmd) Run(ctx context.Context, std streams) error {
	o := conform.Options{Table: map[string]any{}, Timeout: c.Timeout, Now: time.Now}
	if c.Table != "" {
		if _, err := toml.DecodeFile(c.Table, &o.Table); err != nil {
			return fmt.Errorf("%w: %s: %w", errUsage, c.Table, err)
		}
	}
	for _, s := range c.Set {
		if err := conform.Set(o.Table, s); err != nil {
			return fmt.Errorf("%w: --set: %w", errUsage, err)
		}
	}
	var err error
	if o.Read, err = absolute(c.Read); err != nil {
		return err
	}
	if o.Write, err = absolute(c.Write); err != nil {
		return err
	}
	if c.Verbose {
		o.Log = func(line string) { fmt.Fprintln(std.err, line) }
	}
	report := conform.Human(std.out)
	if c.JSON {
		enc := json.NewEncoder(std.out)
		report = func(r conform.Result) { err = enc.Encode(r) }
	}
	ok, runErr := conform.Run(ctx, c.Binary, o, report)
	switch {
	case runErr != nil:
		return runErr
	case err != nil:
		return err
	case !ok:
		return errNo
	}
	return nil
}

func absolute(list []string) (out []string, err error) {
	for _, p := range list {
		if p, err = filepath.Abs(p); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}
