package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/pec/directory"
	"pecd/signer/index"
)

// directoryShowCmd is pecd directory show.
type directoryShowCmd struct {
	configFlag
	Name string `arg:"" optional:"" help:"A domain, or the name of a provider; without it all providers."`
	JSON bool   `name:"json" help:"One JSON object a line."`
}

// directoryUpdateCmd is pecd directory update.
type directoryUpdateCmd struct {
	configFlag
	Force bool `help:"Take it even if it is older or much smaller; never without our own record and certificate."`
	JSON  bool `name:"json" help:"Print the change as a JSON object."`
}

// directoryExportCmd is pecd directory export.
type directoryExportCmd struct {
	configFlag
	Output string `short:"o" required:"" help:"File to write: our own records, signed, for the authority. - is standard output." placeholder:"FILE"`
}

// Run shows the directory that is in force.
func (c *directoryShowCmd) Run(ctx context.Context, std streams) (err error) {
	in, err := load(ctx, c.Config, look)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	list := in.directory.Providers()
	if c.Name != "" {
		list = find(in.directory, c.Name)
	}
	if len(list) == 0 {
		fmt.Fprintf(std.err, "pecd: the directory knows neither a domain nor a provider %q: mail to it is ordinary mail\n", c.Name)
		return errNo
	}
	if c.JSON {
		enc := json.NewEncoder(std.out)
		for _, p := range list {
			if err := enc.Encode(recordOf(p)); err != nil {
				return err
			}
		}
		return nil
	}
	if c.Name != "" {
		return showRecords(std.out, list)
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROVIDER\tUNIT\tDOMAINS\tSERVICE MAILBOX\tCERTIFICATE UNTIL")
	for _, p := range list {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", p.Name, p.Unit, len(p.Domains), p.ServiceMailbox, until(p))
	}
	return w.Flush()
}

// find returns the provider of a domain, or the records of a provider's name.
func find(d *directory.Directory, name string) []*directory.Provider {
	if p, ok := d.ProviderOf(strings.ToLower(name)); ok {
		return []*directory.Provider{p}
	}
	return d.Named(name)
}

// until is when the last of a provider's certificates ends.
func until(p *directory.Provider) string {
	var last time.Time
	for _, c := range recordOf(p).Certificates {
		if c.Until.After(last) {
			last = c.Until
		}
	}
	return last.Format(time.DateOnly)
}

// A record is a provider of the directory, for programs.
type record struct {
	Provider     string        `json:"provider"`
	Unit         string        `json:"unit,omitempty"`
	Service      string        `json:"service_mailbox"`
	Domains      []string      `json:"domains"`
	Certificates []certificate `json:"certificates"`
}

type certificate struct {
	Subject string    `json:"subject"`
	Serial  string    `json:"serial"`
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
}

func recordOf(p *directory.Provider) record {
	r := record{Provider: p.Name, Unit: p.Unit, Service: string(p.ServiceMailbox), Domains: p.Domains}
	for _, der := range p.Certificates {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			r.Certificates = append(r.Certificates, certificate{Subject: "not readable: " + err.Error()})
			continue
		}
		r.Certificates = append(r.Certificates, certificate{c.Subject.String(), c.SerialNumber.Text(16), c.NotBefore, c.NotAfter})
	}
	return r
}

func showRecords(to io.Writer, list []*directory.Provider) error {
	for _, p := range list {
		r := recordOf(p)
		fmt.Fprintf(to, "provider         %s\n", r.Provider)
		if r.Unit != "" {
			fmt.Fprintf(to, "unit             %s\n", r.Unit)
		}
		fmt.Fprintf(to, "service mailbox  %s\n", r.Service)
		for _, c := range r.Certificates {
			fmt.Fprintf(to, "certificate      %s, serial %s, from %s until %s\n", c.Subject, c.Serial, c.From.Format(time.DateOnly), c.Until.Format(time.DateOnly))
		}
		if _, err := fmt.Fprintf(to, "domains          %s\n", strings.Join(r.Domains, ", ")); err != nil {
			return err
		}
	}
	return nil
}

// updateRequest asks the daemon for a new directory.
type updateRequest struct {
	Force bool `json:"force"`
}

// Run has the daemon look for a new directory, or does so itself if none runs.
func (c *directoryUpdateCmd) Run(ctx context.Context, std streams) error {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	var change index.Change
	err = control(ctx, cfg.Store.Path, "/directory/update", updateRequest{c.Force}, &change)
	if errors.Is(err, errNoDaemon) {
		change, err = updateAlone(ctx, cfg, c.Config, c.Force)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(std.out).Encode(change)
	}
	if f := cfg.Directory.File; f != "" && !change.Taken {
		return stillTheFile(std.out, f)
	}
	if !change.Taken {
		_, err := fmt.Fprintln(std.out, "the directory in use is the current one")
		return err
	}
	_, err = fmt.Fprintf(std.out, "a new directory is in use: %d domains added, %d removed, %d moved\n", len(change.Added), len(change.Removed), len(change.Moved))
	for _, part := range []struct {
		what string
		list []string
	}{{"added", change.Added}, {"removed", change.Removed}, {"moved", change.Moved}} {
		for _, d := range part.list {
			fmt.Fprintf(std.out, "  %-8s %s\n", part.what, d)
		}
	}
	return err
}

// stillTheFile tells that a file holds what is in use. That says nothing about how
// current it is: when it was written does.
func stillTheFile(to io.Writer, file string) error {
	st, err := os.Stat(file)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to, "the directory in use is that of %s, which was last written on %s\n", file, st.ModTime().Format(time.DateTime))
	return err
}

// updateAlone updates what the daemon will find when it starts.
func updateAlone(ctx context.Context, cfg *config.Config, file string, force bool) (index.Change, error) {
	// What is fetched is kept, and the daemon must be able to keep the next one.
	if err := asOwner(cfg.Store.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return index.Change{}, err
	}
	in, err := load(ctx, file, loading{now: time.Now, live: true, log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return index.Change{}, err
	}
	change, err := in.trust.index.Update(ctx, force)
	if err != nil {
		return index.Change{}, errors.Join(advised(err), in.close())
	}
	return *change, in.close()
}

// Run writes our own records, signed with the provider's key (RFC 6109, 4.5).
func (c *directoryExportCmd) Run(ctx context.Context, std streams) (err error) {
	in, err := load(ctx, c.Config, look)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	var own []directory.Provider
	for _, p := range in.directory.Named(in.provider.Name) {
		own = append(own, *p)
	}
	p7m, err := index.Export(ctx, in.signer, time.Now(), own...)
	if err != nil {
		return err
	}
	if c.Output == "-" {
		_, err = std.out.Write(p7m)
		return err
	}
	return os.WriteFile(c.Output, p7m, 0o644)
}

// updateDirectory answers pecd directory update.
func (d *daemon) updateDirectory(w http.ResponseWriter, r *http.Request) {
	var u updateRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<10)).Decode(&u); err != nil {
		http.Error(w, "not a request: "+err.Error(), http.StatusBadRequest)
		return
	}
	change, err := d.office.Load().trust.index.Update(r.Context(), u.Force)
	if err != nil {
		http.Error(w, advised(err).Error(), http.StatusConflict)
		return
	}
	answer(w, d.log, change)
}

// advised is why a directory was not taken, with what to do if it is right.
func advised(err error) error {
	switch {
	case errors.Is(err, index.ErrOlder), errors.Is(err, index.ErrShrunk):
		return fmt.Errorf("%w; if it is right all the same: pecd directory update --force", err)
	case errors.Is(err, index.ErrOwn):
		return fmt.Errorf("%w; if it is right all the same: write provider.name and signer.certificate as the directory has them, then systemctl reload pecd", err)
	}
	return err
}

// answer sends v as JSON.
func answer(w http.ResponseWriter, log *slog.Logger, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		log.Warn("control", "err", err)
	}
}
