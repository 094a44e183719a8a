package fetch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ErrTorn says that a file of the cache is not as it was written. It counts as
// absent.
var ErrTorn = errors.New("fetch: damaged file in the cache")

// An Item is a file that was fetched and found good, with what is needed to ask
// for a newer one.
type Item struct {
	Key     string    `json:"key"`     // what the caller calls it: the URL
	Fetched time.Time `json:"fetched"` // when the server last said that this is the current version
	Validators
	Body []byte `json:"-"`
}

// A Cache keeps the last good version of each file in a folder. A crash leaves
// the old version or the new one, and a damaged one is not used. Only one
// process at a time may save into a folder; within it a Cache may be used
// concurrently.
type Cache struct {
	dir      string
	mode     os.FileMode
	readOnly bool
}

// cacheName ends the names of the files of a cache.
const cacheName = ".fetched"

// maxHead limits the line before the body, in octets.
const maxHead = 16 << 10

// magic is the first line of a file of the cache.
const magic = "pecd fetched 1\n"

// ReadCache returns the cache in the folder dir for reading beside the process
// that keeps it: Save and Remove do nothing.
func ReadCache(dir string) *Cache { return &Cache{dir: dir, readOnly: true} }

// OpenCache returns the cache in the folder dir and makes the folder if it is
// missing. Files get the mode mode: 0600, or 0644 for what others may read. What
// a crash left half written is removed.
func OpenCache(dir string, mode os.FileMode) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("fetch: cache: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"+cacheName+".tmp"))
	if err != nil {
		return nil, fmt.Errorf("fetch: cache: %w", err)
	}
	for _, file := range left {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("fetch: cache: %w", err)
		}
	}
	return &Cache{dir: dir, mode: mode}, nil
}

func (c *Cache) file(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:16])+cacheName)
}

// Load returns what was saved under key, if its body has at most limit octets.
// The error wraps fs.ErrNotExist if there is nothing, and ErrTorn if it is
// damaged or larger.
func (c *Cache) Load(key string, limit int64) (*Item, error) {
	f, err := os.Open(c.file(key))
	if err != nil {
		return nil, fmt.Errorf("fetch: cache: %w", err)
	}
	defer f.Close()
	most := int64(len(magic)) + maxHead + limit + sha256.Size
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("fetch: cache: %w", err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%w: %s: too large", ErrTorn, f.Name())
	}
	it, err := decode(data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", ErrTorn, f.Name(), err)
	case it.Key != key || int64(len(it.Body)) > limit:
		return nil, fmt.Errorf("%w: %s: holds something else", ErrTorn, f.Name())
	}
	return it, nil
}

// Save keeps it in place of what was saved under its key before. It returns
// after it is on stable storage.
func (c *Cache) Save(it *Item) error {
	if c.readOnly {
		return nil
	}
	data, err := encode(it)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(c.dir, "*"+cacheName+".tmp")
	if err != nil {
		return fmt.Errorf("fetch: cache: %w", err)
	}
	if err := c.write(f, data, c.file(it.Key)); err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("fetch: cache: %w", err)
	}
	return nil
}

// write makes f, with data, the file name. A crash before the rename leaves the
// old version, one after it the new one.
func (c *Cache) write(f *os.File, data []byte, name string) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(c.mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	d, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Remove forgets what was saved under key, if anything was.
func (c *Cache) Remove(key string) error {
	if c.readOnly {
		return nil
	}
	if err := os.Remove(c.file(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("fetch: cache: %w", err)
	}
	return nil
}

// encode returns the magic line, a line of JSON, the body, and the SHA-256
// digest of all of these.
func encode(it *Item) ([]byte, error) {
	head, err := json.Marshal(it)
	if err != nil {
		return nil, fmt.Errorf("fetch: cache: %w", err)
	}
	if len(head) >= maxHead {
		return nil, fmt.Errorf("fetch: cache: the name of %d octets is too long", len(it.Key))
	}
	var b bytes.Buffer
	b.Grow(len(magic) + len(head) + 1 + len(it.Body) + sha256.Size)
	b.WriteString(magic)
	b.Write(head)
	b.WriteByte('\n')
	b.Write(it.Body)
	sum := sha256.Sum256(b.Bytes())
	b.Write(sum[:])
	return b.Bytes(), nil
}

func decode(data []byte) (*Item, error) {
	if len(data) < len(magic)+sha256.Size || !strings.HasPrefix(string(data[:len(magic)]), magic) {
		return nil, errors.New("not a file of a cache")
	}
	text, end := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if sum := sha256.Sum256(text); !bytes.Equal(sum[:], end) {
		return nil, errors.New("the digest does not hold")
	}
	head, body, ok := bytes.Cut(text[len(magic):], []byte{'\n'})
	if !ok || len(head) >= maxHead {
		return nil, errors.New("the first line does not end")
	}
	it := new(Item)
	if err := json.Unmarshal(head, it); err != nil {
		return nil, err
	}
	it.Body = body
	return it, nil
}
