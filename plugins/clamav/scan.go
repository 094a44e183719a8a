package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"pecd/plugins/sdk"
	"pecd/points"
)

// A scanner is the check. It may be used concurrently.
type scanner struct {
	settings settings
	log      *slog.Logger
	temp     string        // directory for decoded messages while they are looked at; that of the system if empty
	slots    chan struct{} // one for each connection that is in use
}

func newScanner(s settings, temp string, log *slog.Logger) *scanner {
	return &scanner{settings: s, log: log, temp: temp, slots: make(chan struct{}, s.Connections)}
}

// check has clamd look at m; RFC 6109, 2.2.1 and 2.2.2. Its errors are doubt.
func (k *scanner) check(ctx context.Context, m *sdk.Message) (points.Finding, error) {
	if m.Size+int64(len(mark)) > k.settings.MaxSize {
		return k.notWhole(m, k.settings.TooLarge, errors.New("it is over max_size"))
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(k.settings.Timeout))
	defer cancel()
	select {
	case k.slots <- struct{}{}:
		defer func() { <-k.slots }()
	case <-ctx.Done():
		return points.Finding{}, fmt.Errorf("clamd is busy with other messages: %w", ctx.Err())
	}
	virus, err := k.scan(ctx, m)
	switch {
	case ctx.Err() != nil && err != nil:
		return points.Finding{}, fmt.Errorf("%w: %v", ctx.Err(), err)
	case errors.Is(err, errTooLarge):
		return k.notWhole(m, k.settings.TooLarge, err)
	case errors.Is(err, errComplex):
		return k.notWhole(m, k.settings.TooComplex, err)
	case err != nil:
		return points.Finding{}, err
	}
	return k.finding(m, virus)
}

// scan returns the name of the worst that clamd finds in m, empty if there is
// nothing.
func (k *scanner) scan(ctx context.Context, m *sdk.Message) (worst string, err error) {
	src, err := m.Open()
	if err != nil {
		return "", err
	}
	defer src.Close()
	s, err := dial(ctx, k.settings.Socket)
	if err != nil {
		return "", err
	}
	defer s.close()
	for piece, err := range pieces(src, k.temp) {
		if err != nil {
			// A guess is less than not to know; a virus was returned already.
			return "", err
		}
		found, err := s.scan(piece)
		if err != nil {
			return "", err
		}
		if found.virus != "" && !suspicion(found.virus) {
			return found.virus, nil
		}
		worst = worse(worst, found.virus)
	}
	return worst, nil
}

// worse is the one of two guesses that weighs more: that clamd left something
// out is more than that it suspects something.
func worse(a, b string) string {
	if a == "" || b != "" && exceeded(b) {
		return b
	}
	return a
}

// finding says what a name that clamd gave means.
func (k *scanner) finding(m *sdk.Message, virus string) (points.Finding, error) {
	switch {
	case virus == "":
		return sdk.Clean(), nil
	case exceeded(virus):
		return k.notWhole(m, k.settings.TooComplex, fmt.Errorf("clamd says %s", virus))
	case !suspicion(virus) || k.settings.Heuristics == answerInfected:
		return sdk.Infected(virus), nil
	case k.settings.Heuristics == answerClean:
		k.log.Info("a suspicion is let pass", "identifier", m.Identifier, "queue", m.QueueID, "name", virus)
		return sdk.Clean(), nil
	}
	return sdk.Refuse("L'antivirus giudica sospetto il contenuto del messaggio ("+virus+").",
		"The virus scanner takes the content of the message for suspicious ("+virus+")."), nil
}

// notWhole says what becomes of a message that clamd cannot look at whole.
func (k *scanner) notWhole(m *sdk.Message, what answer, why error) (points.Finding, error) {
	switch what {
	case answerClean:
		k.log.Warn("a message is let pass that was not looked at whole", "identifier", m.Identifier, "queue", m.QueueID,
			"size", m.Size, "why", why)
		return sdk.Clean(), nil
	case answerRefuse:
		return sdk.Refuse("Il messaggio e' troppo grande o troppo complesso per il controllo antivirus.",
			"The message is too large or too complex for the virus scanner."), nil
	}
	return points.Finding{}, fmt.Errorf("the message of %d octets cannot be looked at whole: %w", m.Size, why)
}

// askTime is how long clamd may take to say its version: `pecd plugin list` waits.
const askTime = time.Second

// engine says which clamd and which database answer, and of which date.
func (k *scanner) engine() string {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	v, err := version(ctx, k.settings.Socket)
	if err != nil {
		return "no clamd answers at " + k.settings.Socket
	}
	return v
}
