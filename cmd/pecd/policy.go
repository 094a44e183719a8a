package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"pecd/logstore"
	"pecd/pec"
	"pecd/points/act"
)

// mailboxSetCmd is pecd mailbox set, domainSetCmd pecd domain set.
type (
	mailboxSetCmd struct {
		Address string `arg:"" help:"The mailbox's address."`
		policySet
	}
	domainSetCmd struct {
		Domain string `arg:"" help:"A domain that the provider manages."`
		policySet
	}
	mailboxShowCmd struct {
		Address string `arg:"" optional:"" help:"The mailbox's address; without it all that were set."`
		policyShow
	}
	domainShowCmd struct {
		Domain string `arg:"" optional:"" help:"The domain; without it all that were set."`
		policyShow
	}
)

type policySet struct {
	configFlag
	OrdinaryMail string `required:"" enum:"anomaly,refuse,default" help:"What becomes of ordinary mail: anomaly (delivered in an anomaly envelope), refuse (at SMTP), default (as the domain has it; for a domain: anomaly)." placeholder:"anomaly|refuse|default"`
}

type policyShow struct {
	configFlag
	JSON bool `name:"json" help:"One JSON object a line."`
}

func (c *mailboxSetCmd) Run(ctx context.Context, std streams) error {
	a := pec.Address(c.Address)
	if local, domain := a.Split(); local == "" || domain == "" {
		return fmt.Errorf("%w: %q is not an address; for a whole domain: pecd domain set", errUsage, c.Address)
	}
	return c.set(ctx, std, a.Key())
}

func (c *domainSetCmd) Run(ctx context.Context, std streams) error {
	if strings.Contains(c.Domain, "@") {
		return fmt.Errorf("%w: %q is not a domain; for one mailbox: pecd mailbox set", errUsage, c.Domain)
	}
	return c.set(ctx, std, strings.ToLower(c.Domain))
}

// set has the running daemon set the policy, or does so itself if none runs.
func (c *policySet) set(ctx context.Context, std streams, subject string) (err error) {
	in, err := load(ctx, c.Config, look)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	p := logstore.Policy{Subject: subject, Ordinary: strings.TrimPrefix(c.OrdinaryMail, "default")}
	if err := checkPolicy(p, in.provider.Manages); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	err = control(ctx, in.config.Store.Path, "/policy", p, nil)
	if errors.Is(err, errNoDaemon) {
		err = setAlone(ctx, in, p)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s: ordinary mail: %s\n", subject, c.OrdinaryMail)
	return err
}

// setAlone opens the store, which no daemon has open.
func setAlone(ctx context.Context, in *installation, p logstore.Policy) error {
	log := slog.New(slog.DiscardHandler)
	store, err := logstore.Open(ctx, logstore.Options{Dir: in.config.Store.Path, Now: time.Now, Rand: rand.Reader, Log: log})
	if err != nil {
		return err
	}
	clerk := &act.Clerk{Issuer: in.issuer, Store: store, Now: time.Now, Location: in.location, Rand: rand.Reader}
	return errors.Join(clerk.SetPolicy(ctx, p), store.Close())
}

// checkPolicy refuses what could have no effect.
func checkPolicy(p logstore.Policy, manages func(domain string) bool) error {
	domain := p.Subject
	if strings.Contains(p.Subject, "@") {
		domain = pec.Address(p.Subject).Domain()
	}
	if !manages(domain) {
		return fmt.Errorf("the domain %s is not managed here", domain)
	}
	switch p.Ordinary {
	case "", policyAnomaly, policyRefuse:
		return nil
	}
	return fmt.Errorf("%q is not known; write %s or %s", p.Ordinary, policyAnomaly, policyRefuse)
}

func (c *mailboxShowCmd) Run(ctx context.Context, std streams) error {
	return c.show(ctx, std, pec.Address(c.Address).Key(), true)
}

func (c *domainShowCmd) Run(ctx context.Context, std streams) error {
	return c.show(ctx, std, strings.ToLower(c.Domain), false)
}

// show prints what was set: for one subject, or all mailboxes or domains.
func (c *policyShow) show(ctx context.Context, std streams, subject string, mailboxes bool) error {
	store, err := openReader(ctx, c.Config)
	if err != nil {
		return err
	}
	defer store.Close()
	var subjects []string
	if subject != "" {
		subjects = []string{subject}
	}
	list, err := store.Policies(ctx, subjects...)
	if err != nil {
		return err
	}
	if subject != "" && len(list) == 0 {
		list = []logstore.Policy{{Subject: subject, Ordinary: "default"}}
	}
	for _, p := range list {
		if strings.Contains(p.Subject, "@") != mailboxes {
			continue
		}
		if err := c.print(std, p); err != nil {
			return err
		}
	}
	return nil
}

func (c *policyShow) print(std streams, p logstore.Policy) error {
	if c.JSON {
		return json.NewEncoder(std.out).Encode(struct {
			Subject      string `json:"subject"`
			OrdinaryMail string `json:"ordinary_mail"`
		}{p.Subject, p.Ordinary})
	}
	_, err := fmt.Fprintf(std.out, "%s: ordinary mail: %s\n", printable(p.Subject), p.Ordinary)
	return err
}
