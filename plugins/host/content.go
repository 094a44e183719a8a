package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"pecd/pec/message"
	"pecd/plugins/protocol"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/plugins/protocol/wire"
)

// serial numbers the files that are made for plugins.
type serial struct{ n atomic.Uint64 }

func (s *serial) next() string { return strconv.FormatUint(s.n.Add(1), 10) }

// content is a message on its way to the plugins of one stage. It is for one
// goroutine. A small message travels in the call. A larger one lies in the
// plugin's own directory for the time of the call, as a copy that is for this
// plugin alone: one that keeps it open could change it for others, and a link to
// the store's own file would be the message that is delivered later. Landlock
// restricts truncate(2) only as of version 3.
type content struct {
	host   *Host
	source message.Source
	rng    message.Range
	facts  *pluginv1.Facts
	inline []byte
}

func (h *Host) newContent(source message.Source, r message.Range, f message.Facts) *content {
	return &content{host: h, source: source, rng: r, facts: wire.Facts(f)}
}

// reach makes the message reachable for p until release is called. It does not outlast
// ctx by more than a piece.
func (c *content) reach(ctx context.Context, p *supervised) (m *pluginv1.Message, release func(), err error) {
	if c.rng.Len <= protocol.MaxInline {
		m, err = c.within()
		return m, func() {}, err
	}
	path := filepath.Join(p.at.messages, c.host.serial.next())
	release = func() {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			c.host.opts.Log.Error("a message stays behind", "plugin", p.spec.Name, "error", err)
		}
	}
	if err := c.copy(ctx, path); err != nil {
		release()
		return nil, nil, fmt.Errorf("the message cannot be given to plugins: %w", err)
	}
	return &pluginv1.Message{Content: &pluginv1.Message_Path{Path: path}, Size: c.rng.Len, Facts: c.facts}, release, nil
}

// within returns the message itself.
func (c *content) within() (*pluginv1.Message, error) {
	if c.inline == nil {
		c.inline = make([]byte, c.rng.Len)
		if _, err := io.ReadFull(message.Section(c.source, c.rng).Reader(), c.inline); err != nil {
			return nil, fmt.Errorf("the message cannot be read: %w", err)
		}
	}
	return &pluginv1.Message{Content: &pluginv1.Message_Inline{Inline: c.inline}, Size: c.rng.Len, Facts: c.facts}, nil
}

// copy copies the message to path.
func (c *content) copy(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	err = c.copyTo(ctx, f)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// pieceSize is after how many octets a copy looks whether anybody waits for it.
const pieceSize = 8 << 20

// copyTo copies the message to f: what lies in a file is left to the kernel, which
// on some file systems shares the blocks.
func (c *content) copyTo(ctx context.Context, f *os.File) error {
	from := c.open()
	if from != nil {
		defer from.Close()
		if _, err := from.Seek(c.rng.Off, io.SeekStart); err != nil {
			return err
		}
	}
	for done := int64(0); done < c.rng.Len; done += pieceSize {
		if err := ctx.Err(); err != nil {
			return err
		}
		piece := message.Range{Off: c.rng.Off + done, Len: min(pieceSize, c.rng.Len-done)}
		n, err := c.copyPiece(f, from, piece)
		if err == nil && n != piece.Len {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// copyPiece copies a piece to f, out of from, which stands there, unless that is nil.
func (c *content) copyPiece(f, from *os.File, piece message.Range) (int64, error) {
	if from != nil {
		return io.Copy(f, io.LimitReader(from, piece.Len))
	}
	return message.Section(c.source, piece).WriteTo(f)
}

// open opens the file that holds the message; nil if it lies in none, or if the
// file is gone by now.
func (c *content) open() *os.File {
	if s, ok := c.source.(interface{ Path() (string, bool) }); ok {
		if name, ok := s.Path(); ok {
			if f, err := os.Open(name); err == nil {
				return f
			}
		}
	}
	return nil
}
