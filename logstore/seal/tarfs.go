package seal

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// maxFiles bounds the files of a package.
const maxFiles = 1000

// A tarFS is a package as files: regular ones in folders of one level. Nothing is
// unpacked.
type tarFS struct {
	r     io.ReaderAt
	files map[string]section
}

type section struct{ offset, size int64 }

// openTar finds the files of a package.
func openTar(r io.ReaderAt, size int64) (*tarFS, error) {
	t := &tarFS{r: r, files: map[string]section{}}
	whole := io.NewSectionReader(r, 0, size)
	reader := tar.NewReader(whole)
	for {
		h, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("it is not a tar file: %w", err)
		}
		if h.Typeflag != tar.TypeReg || !fs.ValidPath(h.Name) || strings.Count(h.Name, "/") > 1 {
			return nil, fmt.Errorf("it holds %.100q, which is not a file of a package", h.Name)
		}
		if _, twice := t.files[h.Name]; twice || len(t.files) == maxFiles {
			return nil, fmt.Errorf("%.100q stands in it twice, or there are too many files", h.Name)
		}
		// Where the reader stands is where the file's octets begin, unless the file
		// is sparse: then its size in the tar is another, and its digest will be.
		offset, err := whole.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if h.Size > size-offset {
			return nil, fmt.Errorf("%.100q is cut off", h.Name)
		}
		t.files[h.Name] = section{offset, h.Size}
	}
}

// index reads the list of files.
func (t *tarFS) index() (p Package, err error) {
	data, problem := readSmall(t, indexName, maxIndex)
	if problem != nil {
		return p, problem
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, err
	}
	if p.Format != FormatArchive {
		return p, fmt.Errorf("its format is %.40q, which this program does not know", p.Format)
	}
	return p, nil
}

// compare checks that the files are those of p.
func (t *tarFS) compare(ctx context.Context, p Package) error {
	if len(p.Files) != len(t.files)-1 {
		return fmt.Errorf("it holds %d files, its index %d", len(t.files)-1, len(p.Files))
	}
	seen := map[string]bool{}
	for _, f := range p.Files {
		s, found := t.files[f.Name]
		if !found || seen[f.Name] || s.size != f.Size || f.Name == indexName {
			return fmt.Errorf("%.100q is not as the index says", f.Name)
		}
		seen[f.Name] = true
		digest := sha256.New()
		if _, err := io.Copy(digest, io.NewSectionReader(t.r, s.offset, s.size)); err != nil {
			return err
		}
		if !bytes.Equal(digest.Sum(nil), f.SHA256[:]) {
			return fmt.Errorf("the digest of %.100q is not that of the index", f.Name)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// Open implements fs.FS for files.
func (t *tarFS) Open(name string) (fs.File, error) {
	s, found := t.files[name]
	if !found {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &tarFile{io.NewSectionReader(t.r, s.offset, s.size), tarInfo{path.Base(name), s.size, false}}, nil
}

// ReadDir implements fs.ReadDirFS.
func (t *tarFS) ReadDir(dir string) ([]fs.DirEntry, error) {
	found := map[string]fs.DirEntry{}
	for name, s := range t.files {
		rest := name
		if dir != "." {
			var in bool
			if rest, in = strings.CutPrefix(name, dir+"/"); !in {
				continue
			}
		}
		first, _, folder := strings.Cut(rest, "/")
		found[first] = fs.FileInfoToDirEntry(tarInfo{first, s.size, folder})
	}
	if len(found) == 0 && dir != "." {
		return nil, &fs.PathError{Op: "readdir", Path: dir, Err: fs.ErrNotExist}
	}
	names := slices.Sorted(maps.Keys(found))
	entries := make([]fs.DirEntry, len(names))
	for i, name := range names {
		entries[i] = found[name]
	}
	return entries, nil
}

type tarFile struct {
	*io.SectionReader
	info tarInfo
}

func (f *tarFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *tarFile) Close() error               { return nil }

// A tarInfo implements fs.FileInfo.
type tarInfo struct {
	name string
	size int64
	dir  bool
}

func (i tarInfo) Name() string       { return i.name }
func (i tarInfo) Size() int64        { return i.size }
func (i tarInfo) IsDir() bool        { return i.dir }
func (i tarInfo) ModTime() time.Time { return time.Time{} }
func (i tarInfo) Sys() any           { return nil }

// Mode implements fs.FileInfo.
func (i tarInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}
