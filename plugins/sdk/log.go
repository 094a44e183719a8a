package sdk

import (
	"io"
	"log/slog"
	"strings"
)

// hclogTime is how go-hclog writes instants, which the host reads.
const hclogTime = "2006-01-02T15:04:05.000000Z07:00"

// newLog returns a log that writes to w what the host reads: lines of JSON as
// go-hclog writes them. The standard output belongs to the handshake.
func newLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: hclogNames}))
}

func hclogNames(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		return slog.String("@timestamp", a.Value.Time().Format(hclogTime))
	case slog.LevelKey:
		return slog.String("@level", strings.ToLower(a.Value.String()))
	case slog.MessageKey:
		a.Key = "@message"
	}
	return a
}
