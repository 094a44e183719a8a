package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/logstore"
	"pecd/pec"
)

// virusListCmd is pecd virus list.
type virusListCmd struct {
	configFlag
	Identifier string `help:"Only of the message with this identifier." placeholder:"ID"`
	JSON       bool   `name:"json" help:"One JSON object a line."`
}

// virusExportCmd is pecd virus export.
type virusExportCmd struct {
	configFlag
	Number int64  `arg:"" help:"The number that pecd virus list shows."`
	Output string `short:"o" required:"" help:"File to write; it must not exist. - is standard output." placeholder:"FILE"`
}

// Run lists the infected messages that are kept (RFC 6109, 2.2.4).
func (c *virusListCmd) Run(ctx context.Context, std streams) error {
	dir, zone, err := storeAndZone(c.Config, "")
	if err != nil {
		return err
	}
	store, err := logstore.OpenReadOnly(ctx, dir)
	if err != nil {
		return err
	}
	defer store.Close()
	list, err := store.Infected(ctx, logstore.InfectedQuery{Identifier: pec.Identifier(c.Identifier)})
	if err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(std.out)
		for _, m := range list {
			if err := enc.Encode(m); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(std.out, "no infected message is kept")
		return err
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NO\tFOUND\tAT\tSENDER\tVIRUS\tOCTETS\tKEPT UNTIL\tIDENTIFIER")
	for _, m := range list {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", m.ID, m.At.In(zone).Format(time.DateTime), m.Source, m.Sender, m.Virus, m.Size,
			m.Until.In(zone).Format(time.DateOnly), m.Identifier)
	}
	return w.Flush()
}

// Run writes an infected message to a file, for the authority or for whoever has
// to find out why it was not seen before.
func (c *virusExportCmd) Run(ctx context.Context, std streams) (err error) {
	store, err := openReader(ctx, c.Config)
	if err != nil {
		return err
	}
	defer store.Close()
	src, err := store.OpenInfected(ctx, c.Number)
	if errors.Is(err, logstore.ErrNotKept) {
		return fmt.Errorf("no infected message has the number %d; see pecd virus list", c.Number)
	}
	if err != nil {
		return err
	}
	defer src.Close()
	if c.Output == "-" {
		_, err := io.Copy(std.out, src)
		return err
	}
	f, err := os.OpenFile(c.Output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s exists already", errUsage, c.Output)
	}
	if err != nil {
		return err
	}
	n, err := io.Copy(f, src)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(c.Output))
	}
	_, err = fmt.Fprintf(std.err, "%s: %d octets, infected: open it in no mail client\n", c.Output, n)
	return err
}

// openReader opens the store that a configuration names, beside the daemon.
func openReader(ctx context.Context, file string) (*logstore.Reader, error) {
	cfg, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	return logstore.OpenReadOnly(ctx, cfg.Store.Path)
}
