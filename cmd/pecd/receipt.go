package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"pecd/logstore"
	"pecd/pec"
	"pecd/points/act"
	"pecd/signer"
)

// receiptRebuildCmd is pecd receipt rebuild.
type receiptRebuildCmd struct {
	configFlag
	Identifier string `arg:"" help:"Provider's identifier of the message."`
	Kind       string `help:"Only receipts of this kind: accettazione, avvenuta-consegna and so on." placeholder:"KIND"`
	Recipient  string `help:"Only those about this recipient." placeholder:"ADDRESS"`
	Output     string `short:"o" default:"." help:"Directory for the files, one for each receipt; none is overwritten." placeholder:"DIR"`
	JSON       bool   `name:"json" help:"One JSON object a line."`
}

// A rebuilt is a receipt that was rendered once more.
type rebuilt struct {
	Kind      pec.Kind    `json:"kind"`
	Recipient pec.Address `json:"recipient,omitempty"`
	MessageID string      `json:"message_id"`
	Content   []byte      `json:"content,omitempty"`
	File      string      `json:"file,omitempty"`
}

// Run has the running daemon render receipts once more, or does so itself if none
// runs: the register says that it was done.
func (c *receiptRebuildCmd) Run(ctx context.Context, std streams) (err error) {
	in, err := load(ctx, c.Config, look)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	w := act.Wanted{Identifier: pec.Identifier(strings.Trim(c.Identifier, "<>")), Kind: pec.Kind(c.Kind), Recipient: pec.Address(c.Recipient)}
	if c.Kind != "" && !w.Kind.Valid() {
		return fmt.Errorf("%w: --kind %s: no such kind", errUsage, c.Kind)
	}
	var list []rebuilt
	err = control(ctx, in.config.Store.Path, "/rebuild", w, &list)
	if errors.Is(err, errNoDaemon) {
		list, err = rebuildAlone(ctx, in, w)
	}
	if err != nil {
		return err
	}
	for i := range list {
		if err := c.save(&list[i], i, std); err != nil {
			return err
		}
	}
	return nil
}

// save writes one receipt, and says where.
func (c *receiptRebuildCmd) save(r *rebuilt, i int, std streams) error {
	local, _, _ := strings.Cut(strings.Trim(c.Identifier, "<>"), "@")
	r.File = filepath.Join(c.Output, fmt.Sprintf("%s-%s-%d.eml", filepath.Base(local), r.Kind, i+1))
	f, err := os.OpenFile(r.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(r.Content)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if c.JSON {
		r.Content = nil
		return json.NewEncoder(std.out).Encode(r)
	}
	_, err = fmt.Fprintf(std.out, "%s  %s %s\n", r.File, r.Kind, r.Recipient)
	return err
}

// rebuildAlone opens the store, which no daemon has open.
func rebuildAlone(ctx context.Context, in *installation, w act.Wanted) ([]rebuilt, error) {
	if err := asOwner(in.config.Store.Path); err != nil {
		return nil, err
	}
	store, err := logstore.Open(ctx, logstore.Options{Dir: in.config.Store.Path, Now: clock, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	clerk := &act.Clerk{Issuer: in.issuer, Signer: in.signer, Store: store, Now: clock, Location: in.location, Rand: rand.Reader}
	list, err := rebuild(ctx, clerk, in, w)
	return list, errors.Join(err, store.Close())
}

func rebuild(ctx context.Context, clerk *act.Clerk, in *installation, w act.Wanted) ([]rebuilt, error) {
	signed, err := clerk.Duplicate(ctx, w, in.serviceMailbox)
	if err != nil {
		return nil, err
	}
	return rebuiltOf(signed)
}

func rebuiltOf(signed []*signer.Signed) (list []rebuilt, err error) {
	for _, s := range signed {
		var b bytes.Buffer
		if _, err := s.Content().WriteTo(&b); err != nil {
			return nil, err
		}
		ev := s.Event()
		list = append(list, rebuilt{Kind: ev.Kind, Recipient: ev.Recipient, MessageID: s.MessageID(), Content: b.Bytes()})
	}
	return list, nil
}

// serviceMailbox is where take-charge receipts of a provider go; empty if the
// directory does not know it.
func (in *installation) serviceMailbox(provider string) pec.Address {
	for _, p := range in.directory.Providers() {
		if p.Name == provider {
			return p.ServiceMailbox
		}
	}
	return ""
}

// rebuildNow is what the daemon does for pecd receipt rebuild.
func (d *daemon) rebuildNow(w http.ResponseWriter, r *http.Request) {
	var wanted act.Wanted
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&wanted); err != nil {
		http.Error(w, "not what is wanted: "+err.Error(), http.StatusBadRequest)
		return
	}
	o := d.office.Load()
	list, err := rebuild(r.Context(), o.clerk, o.installation, wanted)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	answer(w, d.log, list)
}
