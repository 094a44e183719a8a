package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/logstore"
	"pecd/logstore/seal"
)

// retentionMonths is how long the register must be kept (RFC 6109, 2.3).
const retentionMonths = 30

// keepFree is how much free space the store keeps for entries to come, in octets.
const keepFree = 64 << 20

// logArchiveCmd is pecd log archive.
type logArchiveCmd struct {
	configFlag
	Month  string `arg:"" help:"The month, such as 2026-03; all its days must be sealed."`
	Output string `short:"o" required:"" help:"File to write, a tar; it must not exist." placeholder:"FILE"`
	JSON   bool   `name:"json" help:"A JSON object."`
}

// Run packs a month of sealed days for a preservation system (docs/rules.md, L3).
func (c *logArchiveCmd) Run(ctx context.Context, std streams) error {
	cfg, verifier, err := sealingConfig(c.Config)
	if err != nil {
		return err
	}
	extra, err := anchorFiles(cfg)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(c.Output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("%w: --output: %w", errUsage, err)
	}
	pack, err := verifier.Archive(ctx, os.DirFS(cfg.Seal.Path), c.Month, extra, f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(c.Output))
	}
	if c.JSON {
		return json.NewEncoder(std.out).Encode(pack)
	}
	_, err = fmt.Fprintf(std.out, "%s: %s to %s, entries %d to %d, %d octets, SHA-256 %s\n", c.Output, pack.FirstDay, pack.LastDay, pack.First, pack.Last, pack.Size, pack.SHA256)
	return err
}

// sealingConfig is the configuration and the verifier of what it seals.
func sealingConfig(file string) (*config.Config, *seal.Verifier, error) {
	cfg, err := config.Load(file)
	if err != nil {
		return nil, nil, err
	}
	v, err := sealedBy(cfg)
	if err == nil && v == nil {
		err = cfg.Problem("seal.tsa", errNotSealed, "name an authority and its anchors")
	}
	return cfg, v, err
}

// anchorFiles are what a stranger needs to verify a package.
func anchorFiles(cfg *config.Config) (extra []seal.Extra, err error) {
	for _, f := range []struct{ name, file string }{{"providers.pem", cfg.Trust.Anchors}, {"tsa.pem", cfg.Seal.TSAAnchors}} {
		data, err := os.ReadFile(f.file)
		if err != nil {
			return nil, err
		}
		extra = append(extra, seal.Extra{Name: f.name, Data: data})
	}
	return extra, nil
}

// logPurgeCmd is pecd log purge.
type logPurgeCmd struct {
	configFlag
	Packages []string `arg:"" name:"package" help:"The packages of pecd log archive that hold what is to go, in their order. They are verified."`
	Months   int      `default:"30" help:"How long entries are kept, in months: 30 or more."`
	Apply    bool     `help:"Remove the entries; without it only say what would go."`
	JSON     bool     `name:"json" help:"A JSON object."`
}

// A purgeOrder is what the daemon is asked to remove.
type purgeOrder struct {
	First   int64           `json:"first"` // that the packages hold
	Through int64           `json:"through"`
	Chain   logstore.Digest `json:"chain"`
	Before  time.Time       `json:"before"`
	Proof   json.RawMessage `json:"proof"`
}

// A purgeReport is what pecd log purge prints as JSON.
type purgeReport struct {
	Through int64     `json:"through"`
	Entries int64     `json:"entries"`
	Before  time.Time `json:"before"`
	Applied bool      `json:"applied"`
	Freed   int64     `json:"freed"`          // octets given back to the file system
	Kept    int64     `json:"kept,omitempty"` // the entry that stands against more
}

// Run removes the oldest entries of the register, after their term, and only those
// that the packages hold.
func (c *logPurgeCmd) Run(ctx context.Context, std streams) error {
	if c.Months < retentionMonths {
		return fmt.Errorf("%w: --months %d: the register is kept for %d months at least (RFC 6109, 2.3)", errUsage, c.Months, retentionMonths)
	}
	cfg, verifier, err := sealingConfig(c.Config)
	if err != nil {
		return err
	}
	zone, err := time.LoadLocation(cfg.Provider.Timezone)
	if err != nil {
		return cfg.Problem("provider.timezone", err, "")
	}
	order, err := c.order(ctx, verifier, zone)
	if err != nil {
		return err
	}
	report, err := planPurge(ctx, cfg.Store.Path, order)
	if err == nil && c.Apply && report.Entries > 0 {
		if err = controlWork(ctx, cfg.Store.Path, "/purge", order, &report, progressOf(std.err, "entries")); errors.Is(err, errNoDaemon) {
			report, err = purgeAlone(ctx, cfg, order)
		}
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(std.out).Encode(report)
	}
	return report.print(std.out, zone)
}

func (r purgeReport) print(w io.Writer, zone *time.Location) (err error) {
	switch {
	case r.Applied:
		_, err = fmt.Fprintf(w, "%d entries removed, through %d; %d octets given back\n", r.Entries, r.Through, r.Freed)
	case r.Entries == 0:
		_, err = fmt.Fprintf(w, "nothing can go: all that the packages hold is gone already, or from after %s\n", r.Before.In(zone).Format(time.DateOnly))
	default:
		_, err = fmt.Fprintf(w, "%d entries would go, through %d; --apply removes them\n", r.Entries, r.Through)
	}
	return err
}

// termBegan is when a term of months that ends now began, in legal time: neither the
// zone of the shell nor that of the daemon counts, and months may differ by an hour.
func termBegan(now time.Time, months int, zone *time.Location) time.Time {
	return now.In(zone).AddDate(0, -months, 0)
}

// order verifies the packages and says what they allow to remove: a run of months
// without a gap, all of them over.
func (c *logPurgeCmd) order(ctx context.Context, v *seal.Verifier, zone *time.Location) (o purgeOrder, err error) {
	var packs []seal.Pack
	o.Before = termBegan(clock(), c.Months, zone)
	for _, name := range c.Packages {
		p, until, err := readPack(ctx, v, name)
		if err != nil {
			return o, fmt.Errorf("%s: %w", name, err)
		}
		if n := len(packs); n > 0 && (packs[n-1].Last+1 != p.First || packs[n-1].ChainAfter != p.ChainBefore) {
			return o, fmt.Errorf("%w: %s does not follow from the package before it", errUsage, name)
		}
		if until.After(o.Before) {
			return o, fmt.Errorf("%w: %s: %s ended less than %d months ago", errUsage, name, p.Month, c.Months)
		}
		packs = append(packs, p)
	}
	last := packs[len(packs)-1]
	o.First, o.Through, o.Chain = packs[0].First, last.Last, last.ChainAfter
	o.Proof, err = json.Marshal(packs)
	return o, err
}

// readPack verifies a package, and returns it with the end of its last day.
func readPack(ctx context.Context, v *seal.Verifier, name string) (p seal.Pack, until time.Time, err error) {
	f, err := os.Open(filepath.Clean(name))
	if err != nil {
		return p, until, err
	}
	defer f.Close()
	digest := sha256.New()
	if p.Size, err = io.Copy(digest, f); err != nil {
		return p, until, err
	}
	digest.Sum(p.SHA256[:0])
	var result seal.Result
	if p.Package, result, err = v.VerifyArchive(ctx, f, p.Size, nil); err != nil {
		return p, until, err
	}
	return p, result.Days[len(result.Days)-1].Seal.Manifest.Until, nil
}

// planPurge says what a purge would do, and changes nothing.
func planPurge(ctx context.Context, dir string, o purgeOrder) (purgeReport, error) {
	r := purgeReport{Before: o.Before}
	store, err := logstore.OpenReadOnly(ctx, dir)
	if err != nil {
		return r, err
	}
	defer store.Close()
	gone, err := store.PurgedThrough(ctx)
	if err != nil {
		return r, err
	}
	if o.Through <= gone.Seq { // nothing, or what was broken off
		r.Through = gone.Seq
		r.Entries, err = store.Unfinished(ctx)
		return r, err
	}
	if o.First > gone.Seq+1 {
		return r, fmt.Errorf("%w: entries %d to %d are in none of these packages", errUsage, gone.Seq+1, o.First-1)
	}
	p, err := store.Purgeable(ctx, o.Before)
	if err != nil {
		return r, err
	}
	l, err := store.LinkAt(ctx, o.Through)
	switch {
	case err != nil:
		return r, err
	case l.Chain != o.Chain:
		return r, fmt.Errorf("entry %d of the register is not the one of the package: pecd log verify", o.Through)
	case o.Through > p.Through.Seq:
		return r, fmt.Errorf("entry %d must stay: it is not old enough, or a message in the outbox or the virus store belongs to it", p.Kept)
	}
	r.Through, r.Entries = o.Through, o.Through-gone.Seq
	return r, nil
}

// purgeAlone is for when no daemon runs. Whoever calls it sees what day it is by the
// dry run; so only a clock that is known to be wrong is refused.
func purgeAlone(ctx context.Context, cfg *config.Config, o purgeOrder) (purgeReport, error) {
	dir := cfg.Store.Path
	if err := asOwner(dir); err != nil {
		return purgeReport{}, err
	}
	guard := newClockGuard(cfg.Time, slog.New(slog.DiscardHandler))
	if guard.watch.Look(ctx); guard.doubted() {
		return purgeReport{}, errUnsure
	}
	store, err := logstore.Open(ctx, logstore.Options{Dir: dir, Now: clock, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return purgeReport{}, err
	}
	r, err := purge(ctx, store, o, nil)
	return r, errors.Join(err, store.Close())
}

// purge removes what o names, or finishes what an earlier one began to remove, and
// gives the space back.
func purge(ctx context.Context, s *logstore.SQLite, o purgeOrder, progress func(done, total int64)) (purgeReport, error) {
	r := purgeReport{Through: o.Through, Before: o.Before, Applied: true}
	gone, err := s.PurgedThrough(ctx)
	if err != nil {
		return r, err
	}
	if o.Through <= gone.Seq {
		r.Through = gone.Seq
		r.Entries, err = s.FinishPurge(ctx, progress)
	} else {
		r.Entries, err = s.PurgeEntries(ctx, logstore.Purge{First: o.First, Through: o.Through, Chain: o.Chain, Before: o.Before, At: clock(), Proof: bytes.Clone(o.Proof), Progress: progress})
	}
	if err != nil {
		return r, err
	}
	r.Freed, err = s.Reclaim(ctx, keepFree, nil)
	return r, err
}

// purgeNow is what the daemon does for pecd log purge.
func (d *daemon) purgeNow(w http.ResponseWriter, r *http.Request) {
	var o purgeOrder
	if err := json.NewDecoder(io.LimitReader(r.Body, 2<<20)).Decode(&o); err != nil {
		http.Error(w, "not an order: "+err.Error(), http.StatusBadRequest)
		return
	}
	if d.time.unsure() {
		http.Error(w, errUnsure.Error(), http.StatusServiceUnavailable)
		return
	}
	if o.Before.After(termBegan(clock(), retentionMonths, d.office.Load().location)) {
		http.Error(w, "the register is kept for 30 months at least", http.StatusBadRequest)
		return
	}
	d.work(w, r, func(ctx context.Context, progress func(done, total int64)) (any, error) {
		report, err := purge(ctx, d.store, o, progress)
		if err != nil {
			d.log.Error("entries could not be removed", "through", o.Through, "err", err)
			return nil, err
		}
		d.log.Info("entries of the register removed, their term is over", "through", o.Through, "entries", report.Entries, "freed", report.Freed)
		return report, nil
	})
}

// finishPurge goes on with a purge that was broken off.
func (d *daemon) finishPurge(ctx context.Context) {
	if n, err := d.store.FinishPurge(ctx, nil); err != nil && ctx.Err() == nil {
		d.log.Error("a purge of the register that was broken off could not be finished", "err", err)
	} else if n > 0 {
		d.log.Info("a purge of the register that was broken off is finished", "entries", n)
	}
}
