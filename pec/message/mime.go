package message

import (
	"bytes"
	"fmt"
	"strings"
)

// Limits of one structure.
const (
	maxDepth    = 32
	maxParts    = 1000
	maxHeaders  = 4 << 20 // octets of the headers of all parts
	maxBoundary = 1000    // octets; RFC 2046, 5.1.1 allows 70
)

// A Part is a node of a MIME tree. Its Range is what a signature over it covers
// (RFC 1847, 2.1): from the first byte after the delimiter line to the last
// before the line end that belongs to the next delimiter.
type Part struct {
	Message
	MediaType string            // in lower case
	Params    map[string]string // of the Content-Type, names in lower case
	Children  []*Part           // of multipart/*; message/rfc822 is not entered
}

// Structure returns the MIME tree of m. It reads the body once, through a buffer
// of 64 KiB. Whatever is missing, the tree is what is there: a multipart without
// a boundary has no children, one without a closing line ends with its parent.
// Delimiters are compared as whole lines, white space at their end aside
// (RFC 2046, 5.1.1), and that of an outer multipart counts first. More than
// 1,000 parts, 32 levels or 4 MiB of part headers are ErrLimit; other errors
// come from the source.
func (m *Message) Structure() (*Part, error) {
	root := newPart(*m, "text/plain")
	k := walker{open: make([]level, 0, 8)}
	k.stop = k.isDelimiter
	if err := k.push(root); err != nil {
		return nil, err
	}
	if k.active == 0 {
		return root, nil
	}
	k.w = newWindow(m.Source, m.Body, largeWindow)
	if err := k.walk(m.Body.Off); err != nil {
		return nil, err
	}
	return root, nil
}

// newPart returns the part that m is. A part without a Content-Type is of type
// missing.
func newPart(m Message, missing string) *Part {
	p := &Part{Message: m}
	v := m.Header.Get("Content-Type")
	// The error is answered by the default that comes with it.
	p.MediaType, p.Params, _ = mediaTypeOf(v)
	if v == "" {
		p.MediaType = missing
	}
	return p
}

// A walker goes through a body once and builds the tree.
type walker struct {
	w       *window
	open    []level // from the root to the part that is being read
	active  int     // of them, those whose boundary may still come
	longest int     // the longest boundary ever active
	parts   int
	headers int                    // octets
	stop    func(line []byte) bool // isDelimiter
}

// A level is an open part; boundary is empty if none can come any more.
type level struct {
	part     *Part
	boundary string
}

// A delimiter is a line that separates parts.
type delimiter struct {
	start, after int64 // the line, with its line end
	level        int
	closing      bool
}

func (k *walker) walk(pos int64) error {
	for k.active > 0 {
		d, found, err := k.find(pos)
		if err != nil {
			return err
		}
		if !found {
			break
		}
		if pos, err = k.enter(d); err != nil {
			return err
		}
	}
	k.leave(0, k.w.end)
	return nil
}

// enter ends the parts that d ends, begins the one that it begins and returns
// where to go on.
func (k *walker) enter(d delimiter) (int64, error) {
	end, err := k.lineEndBefore(d.start)
	if err != nil {
		return 0, err
	}
	k.leave(d.level, end)
	parent := &k.open[d.level]
	if d.closing {
		k.forget(parent)
		return d.after, nil
	}
	m, err := readEntity(k.w, d.after, min(maxHeader, maxHeaders-k.headers), k.stop)
	if err != nil {
		return 0, err
	}
	k.headers += int(m.HeaderRange.Len)
	missing := "text/plain"
	if parent.part.MediaType == "multipart/digest" {
		missing = "message/rfc822" // RFC 2046, 5.1.5
	}
	p := newPart(m, missing)
	parent.part.Children = append(parent.part.Children, p)
	return m.Body.Off, k.push(p)
}

// push opens p.
func (k *walker) push(p *Part) error {
	if k.parts++; k.parts > maxParts {
		return fmt.Errorf("%w: more than %d parts", ErrLimit, maxParts)
	}
	if len(k.open) == maxDepth {
		return fmt.Errorf("%w: parts nested more than %d deep", ErrLimit, maxDepth)
	}
	l := level{part: p}
	if strings.HasPrefix(p.MediaType, "multipart/") {
		b := strings.TrimRight(p.Params["boundary"], " \t")
		// One that is active already belongs to the outer multipart.
		if _, taken := k.levelOf([]byte(b)); !taken && b != "" && len(b) <= maxBoundary {
			l.boundary = b
			k.active++
			k.longest = max(k.longest, len(b))
		}
	}
	k.open = append(k.open, l)
	return nil
}

// levelOf returns the level whose boundary is b.
func (k *walker) levelOf(b []byte) (int, bool) {
	for i := range k.open {
		if len(b) > 0 && k.open[i].boundary == string(b) {
			return i, true
		}
	}
	return 0, false
}

// forget says that the boundary of l cannot come any more.
func (k *walker) forget(l *level) {
	if l.boundary != "" {
		l.boundary = ""
		k.active--
	}
}

// leave closes the parts below a level; end is where their content ends.
func (k *walker) leave(to int, end int64) {
	for i := to + 1; i < len(k.open); i++ {
		l := &k.open[i]
		k.forget(l)
		l.part.cut(end)
	}
	k.open = k.open[:to+1]
}

// cut ends p at end, which may be before the line end of its header, or, if it
// has no bytes at all, before its beginning.
func (p *Part) cut(end int64) {
	p.HeaderRange.Off = min(p.HeaderRange.Off, end)
	if over := p.HeaderRange.End() - end; over > 0 && p.HeaderRange.Len > 0 {
		last := &p.Header.Fields[len(p.Header.Fields)-1]
		last.Raw = last.Raw[:len(last.Raw)-int(over)]
		p.HeaderRange.Len -= over
	}
	p.Body.Off = min(p.Body.Off, end)
	p.Body.Len = end - p.Body.Off
}

// lineEndBefore returns where the line end before pos begins. It belongs to the
// delimiter at pos; RFC 2046, 5.1.1.
func (k *walker) lineEndBefore(pos int64) (int64, error) {
	n := min(2, pos-k.open[0].part.Body.Off)
	b, near := k.w.before(pos, n)
	if !near {
		b = make([]byte, n)
		if err := readFull(k.w.src, b, pos-n); err != nil {
			return 0, err
		}
	}
	switch {
	case bytes.HasSuffix(b, []byte("\r\n")):
		return pos - 2, nil
	case bytes.HasSuffix(b, []byte("\n")):
		return pos - 1, nil
	}
	return pos, nil
}

// find returns the first delimiter from pos on, which is the start of a line.
func (k *walker) find(pos int64) (delimiter, bool, error) {
	if d, found, err := k.at(pos); found || err != nil {
		return d, found, err
	}
	for {
		b, err := k.w.from(pos, lookAhead)
		if err != nil {
			return delimiter{}, false, err
		}
		i := lineOfDashes(b)
		if i >= 0 {
			pos += int64(i)
			if d, found, err := k.at(pos); found || err != nil {
				return d, found, err
			}
			continue
		}
		if pos+int64(len(b)) == k.w.end {
			return delimiter{}, false, nil
		}
		pos += int64(len(b)) - 2 // a delimiter may begin with the last two bytes
	}
}

// at returns the delimiter that the line at pos is.
func (k *walker) at(pos int64) (delimiter, bool, error) {
	b, err := k.w.from(pos, lookAhead)
	if err != nil || !bytes.HasPrefix(b, []byte("--")) {
		return delimiter{}, false, err
	}
	line, whole := firstLine(b, pos+int64(len(b)) == k.w.end)
	if !whole {
		return delimiter{}, false, nil
	}
	level, closing, found := k.match(line)
	after := min(pos+int64(len(line))+1, k.w.end)
	return delimiter{pos, after, level, closing}, found, nil
}

func (k *walker) isDelimiter(line []byte) bool {
	_, _, found := k.match(line)
	return found
}

// match looks line up among the active boundaries. One line may be a delimiter
// of two of them ("--a--" for a and for a--): the outer one counts.
func (k *walker) match(line []byte) (level int, closing, found bool) {
	b, dashes := bytes.CutPrefix(line, []byte("--"))
	if !dashes {
		return 0, false, false
	}
	b = bytes.TrimRight(bytes.TrimSuffix(b, []byte("\r")), " \t")
	if len(b) > k.longest+2 {
		return 0, false, false
	}
	level, found = k.levelOf(b)
	if b, dashes = bytes.CutSuffix(b, []byte("--")); dashes {
		if outer, ok := k.levelOf(b); ok && (!found || outer < level) {
			return outer, true, true
		}
	}
	return level, false, found
}

// lineOfDashes returns where the first line in b that begins with "--" begins,
// or -1; b[0] begins none. Most bodies have no two dashes at all, and to look for
// them is faster than to look at each line.
func lineOfDashes(b []byte) int {
	i := bytes.Index(b, []byte("--"))
	if i < 0 || i > 0 && b[i-1] == '\n' {
		return i
	}
	next := bytes.Index(b[i:], []byte("\n--"))
	if next < 0 {
		return -1
	}
	return i + next + 1
}
