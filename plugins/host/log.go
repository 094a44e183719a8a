package host

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// A logBridge writes what a plugin logs to the daemon's log, with the plugin's
// name. What go-plugin itself has to say is for debugging only.
type logBridge struct {
	log    *slog.Logger
	plugin bool // it carries the plugin's own words
	shared *bridged
}

// bridged is what the loggers of one session share.
type bridged struct {
	mu  sync.Mutex // guards sdk
	sdk string
}

func newLogBridge(name string, log *slog.Logger) *logBridge {
	return &logBridge{log: log.With("plugin", name), shared: &bridged{}}
}

// sdkVersion is the SDK that the plugin said it is made with.
func (b *logBridge) sdkVersion() string {
	b.shared.mu.Lock()
	defer b.shared.mu.Unlock()
	if b.shared.sdk == "" {
		return "not known"
	}
	return b.shared.sdk
}

var slogLevels = map[hclog.Level]slog.Level{hclog.Info: slog.LevelInfo, hclog.Warn: slog.LevelWarn, hclog.Error: slog.LevelError}

// Log implements hclog.Logger.
func (b *logBridge) Log(level hclog.Level, msg string, args ...any) {
	l := slog.LevelDebug
	if known, ok := slogLevels[level]; ok && b.plugin {
		l = known
	}
	if b.plugin && msg == "plugin starts" {
		b.learn(args)
	}
	b.log.Log(context.Background(), l, msg, args...)
}

// learn keeps the version of the SDK, which the plugin logs when it starts.
func (b *logBridge) learn(args []any) {
	for i := 0; i+1 < len(args); i += 2 {
		if sdk, ok := args[i+1].(string); ok && args[i] == "sdk" && len(sdk) <= 100 {
			b.shared.mu.Lock()
			b.shared.sdk = sdk
			b.shared.mu.Unlock()
		}
	}
}

// Trace implements hclog.Logger.
func (b *logBridge) Trace(msg string, args ...any) { b.Log(hclog.Trace, msg, args...) }

// Debug implements hclog.Logger.
func (b *logBridge) Debug(msg string, args ...any) { b.Log(hclog.Debug, msg, args...) }

// Info implements hclog.Logger.
func (b *logBridge) Info(msg string, args ...any) { b.Log(hclog.Info, msg, args...) }

// Warn implements hclog.Logger.
func (b *logBridge) Warn(msg string, args ...any) { b.Log(hclog.Warn, msg, args...) }

// Error implements hclog.Logger.
func (b *logBridge) Error(msg string, args ...any) { b.Log(hclog.Error, msg, args...) }

// IsTrace implements hclog.Logger.
func (b *logBridge) IsTrace() bool { return false }

// IsDebug implements hclog.Logger.
func (b *logBridge) IsDebug() bool { return true }

// IsInfo implements hclog.Logger.
func (b *logBridge) IsInfo() bool { return true }

// IsWarn implements hclog.Logger.
func (b *logBridge) IsWarn() bool { return true }

// IsError implements hclog.Logger.
func (b *logBridge) IsError() bool { return true }

// ImpliedArgs implements hclog.Logger.
func (b *logBridge) ImpliedArgs() []any { return nil }

// With implements hclog.Logger.
func (b *logBridge) With(args ...any) hclog.Logger {
	return &logBridge{b.log.With(args...), b.plugin, b.shared}
}

// Name implements hclog.Logger.
func (b *logBridge) Name() string { return "plugin" }

// Named implements hclog.Logger. go-plugin gives the plugin's own words to a
// logger of the plugin's name, and its own to others.
func (b *logBridge) Named(name string) hclog.Logger {
	return &logBridge{b.log, name != "stdio", b.shared}
}

// ResetNamed implements hclog.Logger.
func (b *logBridge) ResetNamed(name string) hclog.Logger { return b.Named(name) }

// SetLevel implements hclog.Logger; the level is the daemon's.
func (b *logBridge) SetLevel(hclog.Level) {}

// GetLevel implements hclog.Logger.
func (b *logBridge) GetLevel() hclog.Level { return hclog.Debug }

// StandardLogger implements hclog.Logger.
func (b *logBridge) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(b.log.Handler(), slog.LevelDebug)
}

// StandardWriter implements hclog.Logger.
func (b *logBridge) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return b.output("log") }

// output is a writer that logs what a plugin writes to a stream of its own.
func (b *logBridge) output(stream string) io.Writer {
	return &lines{log: b.log.With("stream", stream)}
}

// lines is a writer that logs each piece.
type lines struct{ log *slog.Logger }

// Write never fails.
func (l *lines) Write(b []byte) (int, error) {
	for _, line := range bytes.Split(bytes.TrimRight(b, "\n"), []byte("\n")) {
		l.log.Debug("the plugin wrote", "text", string(line[:min(len(line), kept)]))
	}
	return len(b), nil
}
