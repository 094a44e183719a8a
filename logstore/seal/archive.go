package seal

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"pecd/logstore"
)

// FormatArchive is the format of an archive package.
const FormatArchive = "pecd-archive-1"

// indexName is the last file of a package, which lists the others.
const indexName = "index.json"

// maxIndex and maxExtra bound the index and a file of Extra, in octets.
const (
	maxIndex = 1 << 20
	maxExtra = 16 << 20
)

// A Package says what an archive package holds: a month for a preservation system
// (docs/rules.md, L3).
type Package struct {
	Format      string          `json:"format"` // FormatArchive
	Provider    string          `json:"provider"`
	Month       string          `json:"month"` // 2026-03
	FirstDay    Day             `json:"first_day"`
	LastDay     Day             `json:"last_day"`
	First       int64           `json:"first"` // as in Manifest
	Last        int64           `json:"last"`
	Entries     int64           `json:"entries"`
	ChainBefore logstore.Digest `json:"chain_before"`
	ChainAfter  logstore.Digest `json:"chain_after"`
	Files       []File          `json:"files"`
}

// A File is one of a package.
type File struct {
	Name   string          `json:"name"`
	Size   int64           `json:"size"`
	SHA256 logstore.Digest `json:"sha256"`
}

// An Extra is a file that goes into a package beside the days, into the folder
// certificates: the anchors with which a stranger verifies it.
type Extra struct {
	Name string // without a folder
	Data []byte
}

// A Pack is a package that was written, with the digest of all its octets. In JSON
// it is the proof that a month is archived.
type Pack struct {
	Package
	Size   int64           `json:"size"`
	SHA256 logstore.Digest `json:"sha256"`
}

// Archive writes the package of a month, as 2026-03, to w: one tar with the folders
// of its days, the files of its witnesses, extra, and an index at the end. It
// verifies the days first and writes nothing unless all are sound and the last day
// of the month is there; the first month may begin later. The errors then wrap
// ErrUnsound or ErrIncomplete. The same files give the same octets.
func (v *Verifier) Archive(ctx context.Context, files fs.FS, month string, extra []Extra, w io.Writer) (Pack, error) {
	sub, err := ofMonth(files, month)
	if err != nil {
		return Pack{}, err
	}
	r, err := v.VerifyDays(ctx, sub, nil)
	if err != nil {
		return Pack{}, err
	}
	if !r.OK() {
		return Pack{}, fmt.Errorf("%w: %s: %w", ErrUnsound, r.First.Day, r.First.Problem)
	}
	p := newPackage(month, r)
	out := &counter{w: w, digest: sha256.New()}
	t := &tarWriter{tar: tar.NewWriter(out), at: r.last().Seal.Stamped}
	if err := t.all(ctx, sub, r, extra, &p); err != nil {
		return Pack{}, err
	}
	pack := Pack{Package: p, Size: out.size}
	out.digest.Sum(pack.SHA256[:0])
	return pack, nil
}

func newPackage(month string, r Result) Package {
	first, last := r.Days[0].Seal.Manifest, r.last().Seal.Manifest
	return Package{
		Format: FormatArchive, Provider: last.Provider, Month: month, FirstDay: first.Day, LastDay: last.Day,
		First: first.First, Last: last.Last, Entries: last.Last - first.First + 1,
		ChainBefore: first.ChainBefore, ChainAfter: last.ChainAfter,
	}
}

// A monthFS shows the days and witnesses of one month.
type monthFS struct {
	fs.FS
	month string
}

func (m monthFS) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(m.FS, name)
	if name == "." || name == witnessDir {
		entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), m.month+"-") })
	}
	return entries, err
}

// ofMonth returns what files has of a month, if the month ends there. A month of
// which the first days are missing is whole only if no day is sealed before it.
func ofMonth(files fs.FS, month string) (fs.FS, error) {
	first, err := ParseDay(month + "-01")
	if err != nil {
		return nil, fmt.Errorf("seal: %.40q is not a month, as 2026-03 is", month)
	}
	last := Day{first.date.AddDate(0, 1, -1)}
	all, err := Days(files)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(all, last) {
		return nil, fmt.Errorf("%w: %s", ErrIncomplete, last)
	}
	if all[0].Compare(first) < 0 && !slices.Contains(all, first) {
		return nil, fmt.Errorf("%w: %s", ErrIncomplete, first)
	}
	return monthFS{files, month}, nil
}

// A counter counts and digests what passes.
type counter struct {
	w      io.Writer
	digest interface {
		io.Writer
		Sum([]byte) []byte
	}
	size int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.digest.Write(p[:n])
	c.size += int64(n)
	return n, err
}

type tarWriter struct {
	tar *tar.Writer
	at  time.Time
}

// all writes all files and completes p with their names.
func (t *tarWriter) all(ctx context.Context, files fs.FS, r Result, extra []Extra, p *Package) error {
	var names []string
	for _, d := range r.Days {
		for _, suffix := range []string{nameText, nameRecords, nameManifest, nameSeal, nameToken} {
			names = append(names, d.Day.name(suffix))
		}
	}
	witnesses, err := witnessFiles(files)
	if err != nil {
		return err
	}
	for _, name := range append(names, witnesses...) {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := t.copy(files, name)
		if err != nil {
			return fmt.Errorf("seal: archive: %s: %w", name, err)
		}
		p.Files = append(p.Files, f)
	}
	for _, e := range extra {
		if strings.ContainsAny(e.Name, "/\\") || !fs.ValidPath(e.Name) || e.Name == "." || len(e.Data) > maxExtra {
			return fmt.Errorf("seal: archive: %.100q cannot go into it", e.Name)
		}
		f, err := t.write("certificates/"+e.Name, int64(len(e.Data)), bytes.NewReader(e.Data))
		if err != nil {
			return fmt.Errorf("seal: archive: %w", err)
		}
		p.Files = append(p.Files, f)
	}
	index, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("seal: archive: %w", err)
	}
	if _, err := t.write(indexName, int64(len(index)), bytes.NewReader(index)); err != nil {
		return fmt.Errorf("seal: archive: %w", err)
	}
	return t.tar.Close()
}

func (t *tarWriter) copy(files fs.FS, name string) (File, error) {
	f, err := files.Open(name)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	return t.write(name, info.Size(), f)
}

func (t *tarWriter) write(name string, size int64, r io.Reader) (File, error) {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o444, ModTime: t.at, Format: tar.FormatPAX}
	if err := t.tar.WriteHeader(h); err != nil {
		return File{}, err
	}
	digest := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(t.tar, digest), r, size); err != nil {
		return File{}, err
	}
	f := File{Name: name, Size: size}
	digest.Sum(f.SHA256[:0])
	return f, nil
}

// VerifyArchive verifies a package of size octets: that it holds the files of its
// index and no others, and its days as VerifyDays does. An error that wraps
// ErrUnsound says that it is no sound package; what is wrong with its days is in
// the result.
func (v *Verifier) VerifyArchive(ctx context.Context, r io.ReaderAt, size int64, progress func(DayResult)) (Package, Result, error) {
	files, err := openTar(r, size)
	if err != nil {
		return Package{}, Result{}, fmt.Errorf("%w: %w", ErrUnsound, err)
	}
	p, err := files.index()
	if err != nil {
		return Package{}, Result{}, fmt.Errorf("%w: %s: %w", ErrUnsound, indexName, err)
	}
	result, err := v.VerifyDays(ctx, files, progress)
	if err != nil {
		return p, result, err
	}
	want := p
	if result.OK() {
		want = newPackage(p.Month, result)
	}
	switch {
	case !result.OK():
		err = errors.New("not all days are sound")
	case want.FirstDay.Month() != p.Month || want.LastDay.Month() != p.Month:
		err = errors.New("it is of another month")
	case cmp.Or(want.FirstDay.Compare(p.FirstDay), want.LastDay.Compare(p.LastDay)) != 0 || want.First != p.First ||
		want.Last != p.Last || want.Entries != p.Entries || want.ChainBefore != p.ChainBefore || want.ChainAfter != p.ChainAfter:
		err = errors.New("its index is not that of its days")
	default:
		err = files.compare(ctx, p)
	}
	if err != nil {
		return p, result, fmt.Errorf("%w: %w", ErrUnsound, err)
	}
	return p, result, nil
}
