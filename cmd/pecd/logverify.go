package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"pecd/cmd/pecd/config"
	"pecd/logstore"
	"pecd/logstore/seal"
	"pecd/signer"
	"pecd/signer/timestamp"
)

// logVerifyCmd is pecd log verify.
type logVerifyCmd struct {
	configFlag
	Store string   `help:"Store directory; default: the one of the configuration, with its sealed days. With --days alone no store is looked at." placeholder:"DIR"`
	Days  string   `help:"Folder with sealed days and witnesses: they are verified, and vouch for the register." placeholder:"DIR"`
	Heads []string `help:"Files of others that name heads of the register, such as the log of a witness: they vouch for the register too." placeholder:"FILE" sep:"none"`
	CA    string   `name:"ca" help:"CAs of the provider's certificate in the seals, PEM." placeholder:"FILE"`
	TSACA string   `name:"tsa-ca" help:"CAs of the time-stamping authorities, PEM." placeholder:"FILE"`
	Quick bool     `help:"The chain only, without the tables by which the register is searched."`
	JSON  bool     `name:"json" help:"A JSON object."`
}

// A logVerdict is what pecd log verify prints as JSON.
type logVerdict struct {
	Days     *seal.Result     `json:"days,omitempty"`
	Anchors  []seal.Anchor    `json:"anchors,omitempty"`
	Problems []*seal.Problem  `json:"problems,omitempty"`
	Register *logstore.Result `json:"register,omitempty"`
	Sound    bool             `json:"sound"`

	zone *time.Location // of what is printed
}

// Run verifies exported days, the register, or the register against the days and
// what others heard of it.
func (c *logVerifyCmd) Run(ctx context.Context, std streams) error {
	v, store := logVerdict{Sound: true}, c.Store
	_, zone, err := storeAndZone(c.Config, cmp.Or(c.Store, c.Days))
	v.zone = zone
	switch {
	case err != nil:
	case c.Days != "":
		err = c.days(ctx, &v)
	case store == "":
		store, err = c.installed(ctx, &v)
	}
	if err == nil {
		err = c.heads(&v)
	}
	if err == nil && store != "" {
		err = c.register(ctx, std, store, &v)
	}
	if err != nil {
		return err
	}
	print := v.print
	if c.JSON {
		print = func(w io.Writer) error { return json.NewEncoder(w).Encode(v) }
	}
	if err := print(std.out); err != nil {
		return err
	}
	if !v.Sound {
		return errNo
	}
	return nil
}

// days verifies what was exported.
func (c *logVerifyCmd) days(ctx context.Context, v *logVerdict) error {
	if c.CA == "" || c.TSACA == "" {
		return fmt.Errorf("%w: --days needs --ca and --tsa-ca: whose signatures and time stamps count", errUsage)
	}
	provider, _, err := signer.LoadAnchors(c.CA)
	if err != nil {
		return fmt.Errorf("%w: --ca: %w", errUsage, err)
	}
	stamps, _, err := signer.LoadAnchors(c.TSACA)
	if err != nil {
		return fmt.Errorf("%w: --tsa-ca: %w", errUsage, err)
	}
	return v.verifyDays(ctx, seal.NewVerifier(signer.NewVerifier(provider), timestamp.NewVerifier(stamps)), c.Days)
}

// installed verifies what the installation has sealed, and returns its store.
func (c *logVerifyCmd) installed(ctx context.Context, v *logVerdict) (store string, err error) {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return "", err
	}
	verifier, err := sealedBy(cfg)
	if err != nil || verifier == nil {
		return cfg.Store.Path, err
	}
	files := os.DirFS(cfg.Seal.Path)
	days, err := seal.Days(files)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return cfg.Store.Path, nil // neither seal nor witness yet
	case err != nil:
		return "", err
	case len(days) == 0: // nothing is sealed yet, but witnesses may have heard
		if v.Anchors, v.Problems, err = verifier.Anchors(ctx, files); err != nil {
			return "", err
		}
		v.Sound = len(v.Problems) == 0
		return cfg.Store.Path, nil
	}
	return cfg.Store.Path, v.verifyDays(ctx, verifier, cfg.Seal.Path)
}

func (v *logVerdict) verifyDays(ctx context.Context, verifier *seal.Verifier, dir string) error {
	files := os.DirFS(dir)
	result, err := verifier.VerifyDays(ctx, files, nil)
	if err != nil {
		return err
	}
	if v.Anchors, v.Problems, err = verifier.Anchors(ctx, files); err != nil {
		return err
	}
	v.Days = &result
	v.Sound = result.OK() && len(v.Problems) == 0
	return nil
}

// heads reads what others heard: who vouches for it is the file.
func (c *logVerifyCmd) heads(v *logVerdict) error {
	for _, name := range c.Heads {
		n := len(v.Anchors)
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("%w: --heads: %w", errUsage, err)
		}
		err = seal.ReadHeads(f, func(h seal.Head) error {
			// It is proved by where the caller got the file from.
			v.Anchors = append(v.Anchors, seal.Anchor{Anchor: logstore.Anchor{Seq: h.Seq, Chain: h.Chain}, By: name, Proved: true})
			if len(v.Anchors) > maxHeads {
				return fmt.Errorf("more than %d heads; give it a part of the file", maxHeads)
			}
			return nil
		})
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("--heads: %s: %w", name, err)
		}
		if len(v.Anchors) == n {
			return fmt.Errorf("%w: --heads: %s names no head of a register: a line of it would have \"seq=123; chain=\" and 64 digits", errUsage, name)
		}
	}
	return nil
}

// maxHeads bounds what is held of files of others.
const maxHeads = 1_000_000

// register verifies the chain of a store against what vouches for it.
func (c *logVerifyCmd) register(ctx context.Context, std streams, dir string, v *logVerdict) error {
	store, err := logstore.OpenReadOnly(ctx, dir)
	if err != nil {
		return err
	}
	defer store.Close()
	o := logstore.VerifyOptions{ChainOnly: c.Quick, Progress: progress(std.err)}
	for _, a := range v.Anchors {
		if a.Proved {
			o.Known = append(o.Known, a.Anchor)
		}
	}
	result, err := store.Verify(ctx, o)
	if err != nil {
		return err
	}
	if err := v.compareHeard(ctx, store); err != nil {
		return err
	}
	v.Register = &result
	v.Sound = v.Sound && result.Sound()
	return nil
}

// compareHeard compares the register with what witnesses heard by our own files.
// They lie beside the store, so they vouch for nothing; but who rewrites one may
// forget the other.
func (v *logVerdict) compareHeard(ctx context.Context, store *logstore.Reader) error {
	gone, err := store.PurgedThrough(ctx)
	if err != nil {
		return err
	}
	for _, a := range v.Anchors {
		if a.Proved || a.Seq < gone.Seq { // what has gone after its term is compared with nothing
			continue
		}
		l, err := gone, error(nil)
		if a.Seq > gone.Seq {
			l, err = store.LinkAt(ctx, a.Seq)
		}
		switch {
		case err != nil && !errors.Is(err, logstore.ErrNoEntry):
			return err
		case err != nil || l.Chain != a.Chain:
			v.Problems = append(v.Problems, &seal.Problem{Seq: a.Seq, Text: fmt.Sprintf("%s heard another chain for entry %d at %s", a.By, a.Seq, a.At.UTC().Format(time.RFC3339))})
			v.Sound = false
		}
	}
	return nil
}

// progress tells a person at a terminal how far it is; nobody else.
func progress(to io.Writer) func(done, total int64) { return progressOf(to, "entries") }

// progressOf is progress of things with another name.
func progressOf(to io.Writer, things string) func(done, total int64) {
	f, ok := to.(*os.File)
	if !ok {
		return nil
	}
	if st, err := f.Stat(); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return func(done, total int64) {
		if total > 0 {
			fmt.Fprintf(f, "\r%d of %d %s (%d %%)", done, total, things, done*100/total)
		}
		if done == total {
			fmt.Fprint(f, "\r\x1b[K")
		}
	}
}

// print writes v for people.
func (v logVerdict) print(w io.Writer) error {
	if v.Days != nil {
		if err := v.Days.WriteText(w); err != nil {
			return err
		}
	}
	for _, p := range v.Problems {
		fmt.Fprintln(w, p.Error())
	}
	if v.Register == nil {
		return nil
	}
	return printRegister(w, *v.Register, v.zone)
}

func printRegister(w io.Writer, r logstore.Result, loc *time.Location) error {
	if r.Entries == 0 {
		_, err := fmt.Fprintln(w, "the register is empty")
		return err
	}
	fmt.Fprintf(w, "entries        %d to %d, %d octets\n", r.First, r.Last, r.Octets)
	if r.Purged > 0 {
		fmt.Fprintf(w, "removed        up to %d, after their term\n", r.Purged)
	}
	for _, b := range r.Broken {
		fmt.Fprintf(w, "BROKEN         %s\n", b)
	}
	if r.More > 0 {
		fmt.Fprintf(w, "               and %d more\n", r.More)
	}
	word := "whole"
	if !r.Sound() {
		word = fmt.Sprintf("broken; good up to %d", r.Good)
	}
	fmt.Fprintf(w, "chain          %s\n", word)
	if r.Covered.Seq > 0 {
		fmt.Fprintf(w, "vouched for    up to %d, by what stands outside of the store\n", r.Covered.Seq)
	}
	if u := r.Uncovered; u.Last > 0 {
		_, err := fmt.Fprintf(w, "not covered    %d to %d, %s to %s: whoever can write to the store could have written them anew\n",
			u.First, u.Last, u.Since.In(loc).Format(time.DateTime), u.Until.In(loc).Format(time.DateTime))
		return err
	}
	return nil
}
