package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"

	"pecd/plugins/protocol"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/plugins/protocol/wire"
	"pecd/points"
)

// A session is one life of a plugin: a process that was started, and the
// connection to it.
type session struct {
	spec   Spec
	client *plugin.Client
	proc   *process
	log    *logBridge
	plugin pluginv1.PluginClient
	check  pluginv1.CheckClient
	access pluginv1.AccessPointClient
	recept pluginv1.ReceptionPointClient
	deliv  pluginv1.DeliveryPointClient
}

// places are the directories of one plugin, and whose it is.
type places struct {
	sockets, messages, state string
	owner                    *syscall.Credential
}

// dial starts the plugin and connects to it. Nothing of it is left if there is an
// error.
func dial(ctx context.Context, spec Spec, at places, sp *spawner, log *slog.Logger) (*session, error) {
	s := &session{spec: spec, log: newLogBridge(spec.Name, log), proc: newProcess(ctx, spec, at, sp)}
	s.client = plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  protocol.Handshake,
		VersionedPlugins: versions(),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: at.sockets},
		Logger:           s.log,
		SyncStdout:       s.log.output("stdout"),
		SyncStderr:       s.log.output("stderr"),
		StartTimeout:     time.Hour, // ctx bounds it
		// A window of its own keeps gRPC from measuring the line with a ping for
		// every call, which on a socket tells nothing and costs much.
		GRPCDialOptions: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(protocol.MaxAnswer)),
			grpc.WithInitialWindowSize(protocol.Window), grpc.WithInitialConnWindowSize(protocol.Window)},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, dir string) (runner.Runner, error) {
			return s.proc, s.proc.listenIn(dir, cmd.Env)
		},
	})
	conn, err := s.connect(ctx)
	if err != nil {
		s.kill()
		return nil, curtail(s.explain(ctx, err))
	}
	s.plugin, s.check = pluginv1.NewPluginClient(conn), pluginv1.NewCheckClient(conn)
	s.access, s.recept, s.deliv = pluginv1.NewAccessPointClient(conn), pluginv1.NewReceptionPointClient(conn), pluginv1.NewDeliveryPointClient(conn)
	return s, nil
}

func newProcess(ctx context.Context, spec Spec, at places, sp *spawner) *process {
	l := launch{Host: os.Getpid(), Name: spec.Name, Path: spec.Path, SHA256: spec.SHA256, Read: slices.Clone(spec.Read), Write: slices.Clone(spec.Write)}
	env := []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", protocol.EnvName + "=" + spec.Name}
	if at.messages != "" {
		l.Read = append(l.Read, at.messages)
	}
	if at.state != "" {
		l.Write = append(l.Write, at.state)
		env = append(env, protocol.EnvState+"="+at.state, "HOME="+at.state, "TMPDIR="+at.state)
	}
	if tz, ok := os.LookupEnv("TZ"); ok {
		env = append(env, "TZ="+tz)
	}
	return &process{name: spec.Name, bound: ctx, launch: l, spawner: sp, owner: at.owner, env: env, done: make(chan struct{})}
}

func versions() map[int]plugin.PluginSet {
	m := make(map[int]plugin.PluginSet)
	for _, v := range protocol.Versions {
		m[v] = plugin.PluginSet{protocol.Name: dispenser{}}
	}
	return m
}

// dispenser hands out the connection itself.
type dispenser struct{ plugin.NetRPCUnsupportedPlugin }

// GRPCServer implements plugin.GRPCPlugin; the host serves nobody.
func (dispenser) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("the host is no plugin")
}

// GRPCClient implements plugin.GRPCPlugin.
func (dispenser) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return c, nil
}

// connect starts the process and shakes hands. go-plugin waits without a
// deadline in places; a dead process ends all of that.
func (s *session) connect(ctx context.Context) (*grpc.ClientConn, error) {
	stop := context.AfterFunc(ctx, s.proc.kill)
	defer stop()
	p, err := s.client.Client()
	if err != nil {
		return nil, err
	}
	c, err := p.Dispense(protocol.Name)
	if err != nil {
		return nil, err
	}
	conn, ok := c.(*grpc.ClientConn)
	if !ok {
		return nil, errors.New("no connection")
	}
	return conn, ctx.Err()
}

// explain says why the plugin did not start, in words that help.
func (s *session) explain(ctx context.Context, err error) error {
	switch {
	case s.proc.report.SHA256 == "" || errors.Is(err, ErrHandshake):
		return err // it did not get that far, or too far
	case ctx.Err() != nil:
		return fmt.Errorf("%w: it did not shake hands in time", ErrHandshake)
	}
	line, _, _ := strings.Cut(s.proc.first.String(), "\n")
	parts := strings.Split(line, "|")
	if len(parts) >= 4 && parts[0] == "1" {
		if v, e := strconv.Atoi(parts[1]); e == nil && !slices.Contains(protocol.Versions, v) {
			return fmt.Errorf("%w: it speaks version %d (SDK: %s), this pecd speaks %v; build it again with the SDK that belongs to this pecd, or install the release of it that does",
				ErrProtocol, v, s.log.sdkVersion(), protocol.Versions)
		}
		return fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	if line != "" {
		return fmt.Errorf("%w: it wrote %q to its standard output, which belongs to the handshake; a plugin logs to standard error", ErrHandshake, line)
	}
	said := strings.TrimSpace(s.proc.last.String())
	return fmt.Errorf("%w: it ended (%v) before the handshake and said: %q", ErrHandshake, s.proc.err, said)
}

// configure gives the plugin its settings.
func (s *session) configure(ctx context.Context, dry bool) ([]Problem, error) {
	table := s.spec.Table
	if table == nil {
		table = map[string]any{}
	}
	b, err := json.Marshal(table)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfigured, err)
	}
	r, err := s.plugin.Configure(ctx, &pluginv1.ConfigureRequest{Table: b, Dry: dry, Name: s.spec.Name})
	if err != nil {
		return nil, err
	}
	if n := len(r.GetProblems()); n > protocol.MaxProblems {
		return nil, fmt.Errorf("%w: %d problems", ErrNonsense, n)
	}
	var list []Problem
	for _, p := range r.GetProblems() {
		for _, t := range []string{p.GetKey(), p.GetWhy(), p.GetFix()} {
			if len(t) > protocol.MaxText {
				return nil, fmt.Errorf("%w: a problem of %d octets", ErrNonsense, len(t))
			}
		}
		list = append(list, Problem{plain(p.GetKey()), plain(p.GetWhy()), plain(p.GetFix())})
	}
	return list, nil
}

// describe asks what the plugin is. Before it is configured, or dry, it may not
// know its kind; full says that it must.
func (s *session) describe(ctx context.Context, full bool) (Description, error) {
	r, err := s.plugin.Describe(ctx, &pluginv1.DescribeRequest{})
	if err != nil {
		return Description{}, err
	}
	d := Description{Name: r.GetName(), Version: plain(r.GetVersion()), About: plain(r.GetAbout()), SDK: plain(r.GetSdk()), Engine: plain(r.GetEngine())}
	if !names.MatchString(d.Name) || len(d.Name) > protocol.MaxName {
		return d, fmt.Errorf("%w: it calls itself %.60q; a name has 1 to %d lower case letters, digits and hyphens", ErrNonsense, d.Name, protocol.MaxName)
	}
	if len(d.Version) > protocol.MaxShort || len(d.SDK) > protocol.MaxShort || len(d.About) > protocol.MaxText || len(d.Engine) > protocol.MaxText || len(r.GetKeys()) > protocol.MaxKeys {
		return d, fmt.Errorf("%w: its description is too long", ErrNonsense)
	}
	for _, k := range r.GetKeys() {
		d.Keys = append(d.Keys, Key{plain(k.GetName()), plain(k.GetType()), plain(k.GetDefault()), plain(k.GetAbout())})
	}
	return s.classify(d, r, full)
}

func (s *session) classify(d Description, r *pluginv1.DescribeResponse, full bool) (Description, error) {
	for k, v := range pluginv1.Kinds {
		if v == r.GetKind() {
			d.Kind = k
		}
	}
	for _, w := range r.GetStages() {
		stage, ok := wire.StageOf(w)
		if !ok {
			return d, fmt.Errorf("%w: there is no stage %d", ErrNonsense, w)
		}
		if !slices.Contains(d.Stages, stage) {
			d.Stages = append(d.Stages, stage)
		}
	}
	switch {
	case full && d.Kind == "":
		return d, fmt.Errorf("%w: it does not say what it is", ErrNonsense)
	case full && d.Kind == protocol.KindCheck && len(d.Stages) == 0:
		return d, fmt.Errorf("%w: a check that is for no stage", ErrNonsense)
	}
	return d, nil
}

// plain is s as a terminal can show it.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// A curtailed is an error with words of a plugin in it, as a log and a terminal
// take them: a plugin that writes much, or control characters, is heard no further.
type curtailed struct{ err error }

func curtail(err error) error { return curtailed{err} }

func (c curtailed) Error() string {
	text := c.err.Error()
	return plain(strings.ToValidUTF8(text[:min(len(text), protocol.MaxDetail)], ""))
}

func (c curtailed) Unwrap() error { return c.err }

// wants reports whether d is a check for stage.
func (d Description) wants(stage points.Stage) bool {
	return d.Kind == protocol.KindCheck && slices.Contains(d.Stages, stage)
}

// kill ends the plugin now.
func (s *session) kill() {
	s.proc.kill()
	s.client.Kill()
}

// graceTime is how long a plugin that is asked to end has for it.
const graceTime = 2 * time.Second

// end asks the plugin to end, and kills it if it does not.
func (s *session) end() {
	// go-plugin's own request has no deadline: a stopped process would keep it
	// waiting.
	t := time.AfterFunc(graceTime, s.proc.kill)
	defer t.Stop()
	s.proc.leave()
	s.client.Kill()
}
