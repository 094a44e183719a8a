package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/net/netutil"

	"pecd/cmd/pecd/doctor"
	"pecd/logstore"
	"pecd/plugins/host"
)

// The control socket lies in the store's directory, which is open to the
// daemon's user and root only; plugins, which run as that user, are turned away.
// Commands that change something while the daemon runs speak to it there: only the
// daemon writes the register.
func controlSocket(storeDir string) string { return filepath.Join(storeDir, "control.sock") }

// serveControl answers commands on l until ctx is done.
func (d *daemon) serveControl(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /policy", func(w http.ResponseWriter, r *http.Request) {
		var p logstore.Policy
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&p); err != nil {
			http.Error(w, "not a policy: "+err.Error(), http.StatusBadRequest)
			return
		}
		if err := checkPolicy(p, d.office.Load().provider.Manages); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := d.office.Load().clerk.SetPolicy(r.Context(), p); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /plugins", func(w http.ResponseWriter, _ *http.Request) {
		list := []host.Status{}
		if d.plugins != nil {
			list = d.plugins.Status()
		}
		answer(w, d.log, list)
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		answer(w, d.log, d.health.ask(context.WithoutCancel(r.Context())))
	})
	mux.HandleFunc("GET /clock", func(w http.ResponseWriter, _ *http.Request) {
		st := d.time.watch.Status()
		answer(w, d.log, doctor.WatchedClock{Doubt: st.Doubt, Offset: st.Offset, By: st.By})
	})
	mux.HandleFunc("GET /evidence", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, d.log, d.proof())
	})
	mux.HandleFunc("POST /directory/update", d.updateDirectory)
	mux.HandleFunc("POST /seal", d.sealNow)
	mux.HandleFunc("POST /rebuild", d.rebuildNow)
	mux.HandleFunc("POST /backup", d.backupNow)
	mux.HandleFunc("POST /purge", d.purgeNow)
	// A ReadTimeout would end the context of a request that takes longer, since the
	// server goes on reading to see whether the client is still there.
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: 5 * time.Minute, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	// Within the limit: who is turned away takes no place.
	l = newCommandListener(l, func(pid int) {
		d.log.Warn("a command was turned away: it may be a plugin's", "pid", pid)
	})
	if err := srv.Serve(netutil.LimitListener(l, maxAskers)); ctx.Err() == nil {
		return err
	}
	return nil
}

// errNoDaemon says that nobody answers at the control socket.
var errNoDaemon = errors.New("the daemon does not run")

// control asks the running daemon: it sends in, unless that is nil, and reads the
// answer into out, unless that is nil.
func control(ctx context.Context, storeDir, path string, in, out any) error {
	return controlFor(ctx, 5*time.Minute, storeDir, path, in, out)
}

// noDeadline is none.
var noDeadline time.Time

// controlFor is control with another patience; 0: that of ctx.
func controlFor(ctx context.Context, patience time.Duration, storeDir, path string, in, out any) error {
	method, body := http.MethodGet, io.Reader(nil)
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		method, body = http.MethodPost, bytes.NewReader(b)
	}
	client := http.Client{Timeout: patience, Transport: controlTransport(storeDir)}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://pecd"+path, body)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return unanswered(err, os.Geteuid())
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		if out == nil {
			return nil
		}
		return json.NewDecoder(io.LimitReader(res.Body, 64<<20)).Decode(out)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return err
	}
	return errors.New(string(bytes.TrimSpace(text)))
}

func controlTransport(storeDir string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", controlSocket(storeDir))
	}}
}

// unanswered is err, as errNoDaemon if nobody was there, and as errTurnedAway if who was
// may not have wanted to hear a process of user.
func unanswered(err error, user int) error {
	var op *net.OpError
	var network net.Error
	switch {
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("%w: %w", errNoDaemon, op.Err)
	case user == 0 || errors.Is(err, context.Canceled) || errors.As(err, &network) && network.Timeout():
		return err
	}
	return fmt.Errorf("%w: %w", errTurnedAway, err)
}
