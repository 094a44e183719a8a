package sdk

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pecd/pec"
	"pecd/plugins/protocol"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/plugins/protocol/wire"
	"pecd/points"
)

// server answers the calls of the host. It offers all services, since which one
// the plugin is shows only when it is opened.
type server struct {
	pluginv1.UnimplementedPluginServer
	plugin Plugin
	log    *slog.Logger
	ending sync.Once

	mu      sync.Mutex // guards what follows
	asked   bool       // Configure came
	service Service    // nil until the plugin is opened
}

func (s *server) opened() Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.service
}

// Describe implements pluginv1.PluginServer.
func (s *server) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	return s.plugin.describe(s.opened()), nil
}

func (p Plugin) describe(service Service) *pluginv1.DescribeResponse {
	d := &pluginv1.DescribeResponse{Name: p.Name, Version: p.Version, About: p.About, Sdk: "go " + Version}
	for _, k := range p.Keys {
		d.Keys = append(d.Keys, &pluginv1.Key{Name: k.Name, Type: k.Type, Default: k.Default, About: k.About})
	}
	if service == nil {
		return d
	}
	d.Kind = pluginv1.Kinds[service.Kind()]
	if c, ok := service.(interface{ Stages() []points.Stage }); ok {
		for _, stage := range c.Stages() {
			d.Stages = append(d.Stages, wire.Stage(stage))
		}
	}
	if e, ok := service.(interface{ Engine() string }); ok {
		d.Engine = e.Engine()
	}
	return d
}

// Configure implements pluginv1.PluginServer: it opens the plugin.
func (s *server) Configure(ctx context.Context, r *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked {
		return nil, status.Error(codes.FailedPrecondition, "the plugin is configured already")
	}
	s.asked = true
	c := Config{name: r.GetName(), dry: r.GetDry(), keys: s.plugin.Keys, log: s.log}
	err := c.read(r.GetTable())
	if err == nil {
		s.service, err = s.plugin.Open(ctx, c)
	}
	if err == nil && s.service == nil && !c.dry {
		err = errors.New("the plugin's Open returned no service")
	}
	if err == nil {
		return &pluginv1.ConfigureResponse{}, nil
	}
	list := problems(err)
	return &pluginv1.ConfigureResponse{Problems: list[:min(len(list), protocol.MaxProblems)]}, nil
}

// problems are those that err holds, which may be joined.
func problems(err error) (list []*pluginv1.Problem) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			list = append(list, problems(e)...)
		}
		return list
	}
	var p Problem
	if !errors.As(err, &p) {
		p.Why = err.Error()
	}
	return []*pluginv1.Problem{{Key: cut(p.Key), Why: cut(p.Why), Fix: cut(p.Fix)}}
}

// cut keeps s within what the protocol allows for a sentence.
func cut(s string) string {
	s = wire.Text(s)
	if len(s) <= protocol.MaxText {
		return s
	}
	return strings.ToValidUTF8(s[:protocol.MaxText-3], "") + "..."
}

// close closes the service, which has to be quick about it.
func (s *server) close() error {
	if c, ok := s.opened().(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// errOther says that the host called a service that the plugin is not.
var errOther = status.Error(codes.Unimplemented, "the plugin does not offer this service, or is not configured yet")

type checkServer struct {
	pluginv1.UnimplementedCheckServer
	*server
}

// Check implements pluginv1.CheckServer.
func (s checkServer) Check(ctx context.Context, r *pluginv1.CheckRequest) (*pluginv1.CheckResponse, error) {
	c, ok := s.opened().(interface {
		Check(context.Context, *Message) (points.Finding, error)
	})
	if !ok {
		return nil, errOther
	}
	f, err := c.Check(ctx, newMessage(r))
	if err != nil {
		return &pluginv1.CheckResponse{Verdict: pluginv1.Verdict_VERDICT_UNAVAILABLE, Detail: cut(err.Error())}, nil
	}
	return wire.Response(f), nil
}

func newMessage(r *pluginv1.CheckRequest) *Message {
	m := &Message{
		Identifier: pec.Identifier(r.GetIdentifier()), Login: string(r.GetLogin()), Client: r.GetClientAddress(),
		TLS: r.GetTls(), QueueID: r.GetQueueId(), Sender: pec.Address(r.GetSender()),
		Recipients: wire.RecipientsOf(r.GetRecipients()),
		Size:       r.GetMessage().GetSize(), Facts: wire.FactsOf(r.GetMessage().GetFacts()), content: r.GetMessage(),
	}
	m.Stage, _ = wire.StageOf(r.GetStage())
	return m
}

type accessServer struct {
	pluginv1.UnimplementedAccessPointServer
	*server
}

// Decide implements pluginv1.AccessPointServer.
func (s accessServer) Decide(ctx context.Context, r *pluginv1.AccessRequest) (*pluginv1.AccessResponse, error) {
	if p, ok := s.opened().(AccessService); ok {
		return p.Decide(ctx, r)
	}
	return nil, errOther
}

type receptionServer struct {
	pluginv1.UnimplementedReceptionPointServer
	*server
}

// Decide implements pluginv1.ReceptionPointServer.
func (s receptionServer) Decide(ctx context.Context, r *pluginv1.ReceptionRequest) (*pluginv1.ReceptionResponse, error) {
	if p, ok := s.opened().(ReceptionService); ok {
		return p.Decide(ctx, r)
	}
	return nil, errOther
}

type deliveryServer struct {
	pluginv1.UnimplementedDeliveryPointServer
	*server
}

// Decide implements pluginv1.DeliveryPointServer.
func (s deliveryServer) Decide(ctx context.Context, r *pluginv1.DeliveryRequest) (*pluginv1.DeliveryResponse, error) {
	if p, ok := s.opened().(DeliveryService); ok {
		return p.Decide(ctx, r)
	}
	return nil, errOther
}

// caught runs f and turns a panic into an error: a message that one handler
// stumbles over does not end those of the others.
func caught[T any](log *slog.Logger, what string, f func() (T, error)) (t T, err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("a handler panicked", "call", what, "panic", p, "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "the plugin panicked")
		}
	}()
	return f()
}
