package logstore

import (
	"errors"
	"io"
	"io/fs"
	"syscall"
)

// Unreadable says why a file that is named by err cannot be read; empty: another
// reading of the same file may go well, since what lacks is the process's or the
// machine's.
func Unreadable(err error) string {
	for _, passing := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EINTR} {
		if errors.Is(err, passing) {
			return ""
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "is not there"
	}
	var in *fs.PathError
	if errors.As(err, &in) {
		err = in.Err
	}
	return "cannot be read: " + err.Error()
}

// CopyReadable copies what can be read of from. lost is why the rest of it cannot,
// as Unreadable says it; any other error is err.
func CopyReadable(to io.Writer, from io.Reader) (n int64, lost string, err error) {
	r := &failing{from: from}
	n, err = io.Copy(to, r)
	if r.err != nil {
		lost = Unreadable(r.err)
	}
	if lost != "" {
		err = nil
	}
	return n, lost, err
}

// A failing keeps the error of a reader, which io.Copy does not tell from the
// writer's.
type failing struct {
	from io.Reader
	err  error
}

func (f *failing) Read(p []byte) (n int, err error) {
	if n, err = f.from.Read(p); err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}
