package sdk

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"pecd/plugins/protocol"
	pluginv1 "pecd/plugins/protocol/v1"
)

// Exit codes of a plugin.
const (
	exitDone  = 0
	exitWrong = 1 // the plugin or what started it is broken
	exitUsage = 2 // started by hand, or with words that it does not know
)

// Main serves p until pecd ends it or is no more, and then ends the process.
// Started as `PLUGIN describe` it says what it is, for people, with --json for
// programs; started by hand it says how to use it.
func Main(p Plugin) {
	os.Exit(p.main(os.Args[1:], os.Stdout, os.Stderr))
}

func (p Plugin) main(args []string, out, errs io.Writer) int {
	started := os.Getenv(protocol.Handshake.MagicCookieKey) == protocol.Handshake.MagicCookieValue
	switch {
	case len(args) == 1 && args[0] == "describe":
		return p.print(out)
	case len(args) == 2 && args[0] == "describe" && args[1] == "--json":
		return p.printJSON(out)
	case len(args) > 0 || !started:
		fmt.Fprintf(errs, usage, p.Name, p.Version, p.About)
		return exitUsage
	}
	log := newLog(os.Stderr)
	slog.SetDefault(log)
	return p.serve(log)
}

const usage = `%s %s is a plugin of pecd: %s.

pecd starts it. To use it, name it in pecd's configuration (pecd.toml; see
docs/plugins.md), and try it with: pecd plugin check THIS-FILE

THIS-FILE describe [--json]   says what it is and which settings it has
`

// print writes what p is for people.
func (p Plugin) print(out io.Writer) int {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "%s %s: %s\nprotocol %d, SDK go %s\n", p.Name, p.Version, p.About, Protocol, Version)
	if len(p.Keys) > 0 {
		fmt.Fprintln(w, "\nSETTING\tTYPE\tDEFAULT\tWHAT IT DOES")
	}
	for _, k := range p.Keys {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", k.Name, k.Type, k.Default, k.About)
	}
	if w.Flush() != nil {
		return exitWrong
	}
	return exitDone
}

// printJSON writes what p is for programs.
func (p Plugin) printJSON(out io.Writer) int {
	type key struct {
		Name    string `json:"name"`
		Type    string `json:"type"`
		Default string `json:"default"`
		About   string `json:"about"`
	}
	d := struct {
		Name     string `json:"name"`
		Version  string `json:"version"`
		About    string `json:"about"`
		SDK      string `json:"sdk"`
		Protocol []int  `json:"protocol"`
		Keys     []key  `json:"keys"`
	}{p.Name, p.Version, p.About, "go " + Version, []int{Protocol}, []key{}}
	for _, k := range p.Keys {
		d.Keys = append(d.Keys, key(k))
	}
	if json.NewEncoder(out).Encode(d) != nil {
		return exitWrong
	}
	return exitDone
}

// closeTime is how long a service may take to close: the host kills the process
// two seconds after it said that it is enough.
const closeTime = time.Second

// serve answers calls until the host says that it is enough.
func (p Plugin) serve(log *slog.Logger) int {
	// The host tells people about it when it does not understand the plugin.
	log.Debug("plugin starts", "name", p.Name, "version", p.Version, "sdk", "go "+Version, "protocol", Protocol)
	s := &server{plugin: p, log: log}
	watch(os.Stdin, func() { s.end(log); os.Exit(exitDone) })
	set := plugin.PluginSet{protocol.Name: registration{server: s}}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  protocol.Handshake,
		VersionedPlugins: map[int]plugin.PluginSet{Protocol: set},
		GRPCServer:       s.grpcServer,
		Logger:           hclog.New(&hclog.LoggerOptions{Output: os.Stderr, JSONFormat: true, Level: hclog.Warn}),
	})
	s.end(log)
	return exitDone
}

// end closes the service, once, within closeTime. Whoever comes second waits for
// the first.
func (s *server) end(log *slog.Logger) {
	s.ending.Do(func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := caught(log, "Close", func() (struct{}, error) { return struct{}{}, s.close() }); err != nil {
				log.Error("the plugin could not be closed", "error", err)
			}
		}()
		select {
		case <-done:
		case <-time.After(closeTime):
			log.Error("the plugin takes too long to close")
		}
	})
}

// grpcServer makes the server. Without the limits it would refuse requests over
// 4 MiB, which many recipients can make; without a window of its own it would
// measure the line with a ping for every call.
func (s *server) grpcServer(opts []grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(math.MaxInt32), grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.InitialWindowSize(protocol.Window), grpc.InitialConnWindowSize(protocol.Window),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			return caught(s.log, info.FullMethod, func() (any, error) { return handler(ctx, req) })
		}))...)
}

// registration is the plugin in go-plugin's terms.
type registration struct {
	plugin.NetRPCUnsupportedPlugin
	server *server
}

// GRPCServer implements plugin.GRPCPlugin.
func (r registration) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error {
	pluginv1.RegisterPluginServer(g, r.server)
	pluginv1.RegisterCheckServer(g, checkServer{server: r.server})
	pluginv1.RegisterAccessPointServer(g, accessServer{server: r.server})
	pluginv1.RegisterReceptionPointServer(g, receptionServer{server: r.server})
	pluginv1.RegisterDeliveryPointServer(g, deliveryServer{server: r.server})
	return nil
}

// GRPCClient implements plugin.GRPCPlugin; a plugin calls nobody.
func (registration) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, fmt.Errorf("%s: a plugin is no client", strings.ToLower(protocol.Name))
}
