package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"pecd/packaging/demo/stage"
)

// recoveryEvery is after how many faults those that come pause until both providers have
// shown that they are well again.
const recoveryEvery = 20

// recovered wants each provider to take a message for the other, and its delivery receipt
// in the sender's mailbox within the bound. Nothing is broken meanwhile, and nobody is
// started again: the next kill would hide a pecd that never comes back by itself.
func (w *world) recovered(ctx context.Context) error {
	pids := [2]int{w.stage.Alfa.Pecd.PID(), w.stage.Beta.Pecd.PID()}
	begin := time.Now()
	bounded, cancel := context.WithTimeout(ctx, w.recovery)
	defer cancel()
	g, gctx := errgroup.WithContext(bounded)
	for _, way := range [][2]string{{"alice@alfa.example", "bob@beta.example"}, {"bob@beta.example", "alice@alfa.example"}} {
		g.Go(func() error { return w.thereAndBack(gctx, way[0], way[1]) })
	}
	err := g.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		w.violated(fmt.Sprintf("after %d faults, with nothing broken for %s, from %s: %v", w.broken.Load(), w.recovery, begin.Format(time.TimeOnly), err))
		fmt.Fprintf(w.log, "chaos: not well again after %d faults: %v\n", w.broken.Load(), err)
		return nil
	case pids != [2]int{w.stage.Alfa.Pecd.PID(), w.stage.Beta.Pecd.PID()}:
		return errors.New("a pecd was started again while the faults paused")
	}
	w.slowest = max(w.slowest, time.Since(begin))
	w.recoveries++
	return nil
}

// violated notes a violation that the judge cannot see.
func (w *world) violated(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, text)
}

// thereAndBack sends a message and waits for its delivery receipt.
func (w *world) thereAndBack(ctx context.Context, from, to string) error {
	begin := time.Now()
	n := w.numbers.Add(1)
	s := sending{MsgID: fmt.Sprintf("<caos-%d-%d@client.example>", w.seed, n), From: from, To: []string{to}, File: filepath.Join(w.dir, "sent", fmt.Sprint(n))}
	text := fmt.Sprintf("Message-ID: %s\r\nFrom: %s\r\nTo: %s\r\nSubject: caos %d\r\n\r\nVa di nuovo?\r\n", s.MsgID, from, to, n)
	if err := os.WriteFile(s.File, []byte(text), 0o644); err != nil {
		return err
	}
	if err := w.deliver(ctx, &s, nil); err != nil {
		return fmt.Errorf("%s was not accepted: %w; its client heard: %s", s.MsgID, err, strings.Join(s.Heard, "; "))
	}
	for {
		found, err := w.receiptOf(s, begin)
		if err != nil || found {
			return err
		}
		if !pause(ctx, 200*time.Millisecond) {
			return fmt.Errorf("%s was accepted, and no delivery receipt came: %w", s.MsgID, ctx.Err())
		}
	}
}

// receiptOf looks for the delivery receipt of s among the mails that came since then.
func (w *world) receiptOf(s sending, since time.Time) (bool, error) {
	folder := filepath.Join(w.boxes()[s.From], "new")
	files, err := os.ReadDir(folder)
	if err != nil {
		return false, err
	}
	for _, f := range files {
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.ModTime().Before(since.Add(-time.Second)) {
			continue
		}
		if err != nil {
			return false, err
		}
		raw, err := os.ReadFile(filepath.Join(folder, f.Name()))
		if err != nil {
			return false, err
		}
		header, _, _ := bytes.Cut(raw, []byte("\n\n"))
		if bytes.Contains(header, []byte("X-Ricevuta: avvenuta-consegna\n")) && bytes.Contains(header, []byte("X-Riferimento-Message-ID: "+s.MsgID)) {
			return true, nil
		}
	}
	return false, nil
}

// boxes are the folders of all mailboxes.
func (w *world) boxes() map[string]string {
	boxes := map[string]string{}
	for _, m := range []*stage.MailServer{&w.stage.Alfa.MailServer, &w.stage.Beta.MailServer, &w.stage.Ordinary.MailServer} {
		for _, u := range append(append([]stage.User{}, m.Users...), m.Service...) {
			name := u.Address[:len(u.Address)-len(m.Domain)-1]
			boxes[u.Address] = filepath.Join(m.Dir, "mail", name, "Maildir")
		}
	}
	return boxes
}
