package stage

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// Postfix finds nothing to make, to change or to complain of in what Spool makes.
func TestSpool(t *testing.T) {
	root, err := os.MkdirTemp("", "pecd-spool-") // not t.TempDir: Postfix's user must get there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	conf, queue, data := filepath.Join(root, "etc"), filepath.Join(root, "queue"), filepath.Join(root, "data")
	main := "compatibility_level = 3.6\nqueue_directory = " + queue + "\ndata_directory = " + data + "\nmaillog_file_prefixes = " + root + "\nmaillog_file = " + root + "/maillog\n"
	err = errors.Join(makeDir(root, 0o755), makeDir(conf, 0o755), Spool(queue, data), Spool(queue, data),
		writeFile(filepath.Join(conf, "main.cf"), []byte(main), 0o644), writeFile(filepath.Join(conf, "master.cf"), []byte("postlog unix-dgram n - n - 1 postlogd\n"), 0o644), Settle(conf))
	if err != nil {
		t.Fatal(err)
	}
	directories := func() (list []string) {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return err
			}
			st, err := os.Stat(path)
			list = append(list, path+" "+st.Mode().String())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	before := directories()
	if out, err := exec.CommandContext(t.Context(), "postfix", "-c", conf, "check").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if after := directories(); !slices.Equal(before, after) {
		t.Errorf("Postfix has made of %q\n%q", before, after)
	}
	if said, err := os.ReadFile(filepath.Join(root, "maillog")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Postfix complains: %s, %v", said, err)
	}
}
