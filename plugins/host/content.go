package host

import (
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
// goroutine. A small message travels in the call. A larger one is linked into the
// plugin's own directory for the time of the call; only one that lies in no file,
// or on another file system, is copied, once.
type content struct {
	host   *Host
	source message.Source
	rng    message.Range
	facts  *pluginv1.Facts
	inline []byte
	file   string // that holds the message
	off    int64  // where in it
	copied bool   // file is ours
}

func (h *Host) newContent(source message.Source, r message.Range, f message.Facts) *content {
	return &content{host: h, source: source, rng: r, facts: wire.Facts(f)}
}

// reach makes the message reachable for p until release is called.
func (c *content) reach(p *supervised) (m *pluginv1.Message, release func(), err error) {
	if c.rng.Len <= protocol.MaxInline {
		m, err = c.within()
		return m, func() {}, err
	}
	link := filepath.Join(p.at.messages, c.host.serial.next())
	if err := c.link(link); err != nil {
		return nil, nil, fmt.Errorf("the message cannot be given to plugins: %w", err)
	}
	release = func() {
		if err := os.Remove(link); err != nil {
			c.host.opts.Log.Error("a message stays behind", "plugin", p.spec.Name, "error", err)
		}
	}
	return &pluginv1.Message{Content: &pluginv1.Message_Path{Path: link}, Offset: c.off, Size: c.rng.Len, Facts: c.facts}, release, nil
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

// link links the file that holds the message to path.
func (c *content) link(path string) error {
	if c.file == "" {
		if f, ok := c.source.(interface{ Path() (string, bool) }); ok {
			if name, ok := f.Path(); ok {
				c.file, c.off = name, c.rng.Off
			}
		}
	}
	if c.file != "" {
		err := os.Link(c.file, path)
		if err == nil || c.copied {
			return err
		}
	}
	if err := c.copy(); err != nil {
		return err
	}
	return os.Link(c.file, path)
}

// copy copies the message to a file of its own.
func (c *content) copy() error {
	name := filepath.Join(c.host.spool, c.host.serial.next())
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	c.file, c.off, c.copied = name, 0, true
	n, err := message.Section(c.source, c.rng).WriteTo(f)
	if err == nil && n != c.rng.Len {
		err = io.ErrUnexpectedEOF
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// close removes what was copied.
func (c *content) close() {
	if !c.copied {
		return
	}
	if err := os.Remove(c.file); err != nil {
		c.host.opts.Log.Error("a copied message stays behind", "error", err)
	}
}
