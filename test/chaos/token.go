package main

import (
	"context"
	"math/rand/v2"
	"os"
	"time"

	"pecd/packaging/demo/stage"
)

// keyInFile gives a provider a new key in a file, and a certificate for it. The
// stage puts the keys of both providers into tokens or of none; a run wants one of
// each, so that what a token does is told from what pecd does.
func (w *world) keyInFile(ctx context.Context, p *stage.Provider) error {
	ca, err := w.stage.Authority()
	if err != nil {
		return err
	}
	leaf, err := ca.Issue(p.Name, p.Service[1].Address)
	if err != nil {
		return err
	}
	if err := leaf.Write(p.Certificate, p.Key, ca); err != nil {
		return err
	}
	p.Pecd.Config.Signer = stage.SignerConfig{KeyConfig: stage.KeyConfig{Key: p.Key, Certificate: p.Certificate}}
	if err := p.Pecd.WriteConfig(); err != nil {
		return err
	}
	// Nobody believes a certificate that is not in the directory.
	return w.stage.SignDirectory(ctx, w.stage.LDIF())
}

// troublesOfToken are what happens to the module with p's key: nothing can be
// signed meanwhile, and pecd cannot start.
func (w *world) troublesOfToken(p *stage.Provider, add func(trouble)) {
	away := p.Tokens() + ".away"
	add(saidBy(p, trouble{kind: "token away", target: "token " + p.Label, weight: 7, hold: 4 * time.Second,
		begin: func(context.Context, *rand.Rand) error { return os.Rename(p.Tokens(), away) },
		end:   func(context.Context) error { return os.Rename(away, p.Tokens()) }}, "hsm:"))
}
