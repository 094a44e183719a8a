package setup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// postconf changes an instance as somebody else does.
func postconf(t *testing.T, dir string, args ...string) {
	t.Helper()
	if _, err := run(t.Context(), "postconf", append([]string{"-c", dir}, args...)...); err != nil {
		t.Fatal(err)
	}
}

// undo takes the last application back, and looks at what it has left.
func undo(t *testing.T, dir string, want ...string) (backup string) {
	t.Helper()
	backup, left, err := read(t, dir).Undo(t.Context())
	if err != nil || !slices.Equal(left, want) {
		t.Errorf("left %q, want %q; %v", left, want, err)
	}
	return backup
}

// TestUndoAfterOthers: what others have changed since stays, the rest is taken back.
func TestUndoAfterOthers(t *testing.T) {
	t.Parallel()
	dir := instance(t, panels["ISPConfig"].main, panels["ISPConfig"].master)
	apply(t, read(t, dir))
	postconf(t, dir, "-e", "message_size_limit=400000000", "mynetworks=127.0.0.1")
	postconf(t, dir, "-P", "smtps/inet/smtpd_tls_auth_only=yes", "smtps/inet/smtpd_milters=inet:localhost:11332")
	// smtps cannot take a message without its cleanup.
	if backup := undo(t, dir, "message_size_limit", "smtps/inet", "subcleanup/unix"); !strings.HasSuffix(backup, UndoneSuffix) {
		t.Errorf("the backup is %s", backup)
	}
	now := read(t, dir)
	if now.Get("maximal_queue_lifetime") != "5d" || now.Get("mynetworks") != "127.0.0.1" || now.Int("message_size_limit") != 400000000 {
		t.Error("main.cf is not as it should be")
	}
	if s := now.Service("smtps", "inet"); now.Service(now.In(s, "cleanup_service_name"), "unix") == nil {
		t.Errorf("smtps is left without its cleanup: %s", s.Line())
	}
	if s := now.Service("submission", "inet"); now.Listener(wants().Reinject) != nil || now.Service("recleanup", "unix") != nil || len(Milters(now.In(s, "smtpd_milters"))) != 1 {
		t.Error("master.cf is not as it should be")
	}
}

// TestUndoStillCalled: while something that others have changed calls pecd, pecd can hand
// in what it signs: with the listener, its cleanup, and what main.cf has for signed
// messages. Once nothing calls it any more, all of that goes.
func TestUndoStillCalled(t *testing.T) {
	for name, c := range map[string]struct{ change, out []string }{
		"a service that was changed": {[]string{"-P", "smtps/inet/smtpd_tls_auth_only=yes"}, []string{"-P", "smtps/inet/smtpd_milters="}},
		"a service that is new":      {[]string{"-M", "2465/inet=2465 inet n - n - - smtpd -o {smtpd_milters={ unix:/run/pecd/access.sock, default_action=tempfail }}"}, []string{"-MX", "2465/inet"}},
		"a table":                    {[]string{"-e", "transport_maps=hash:DIR/pecd_transport, inline:{ { x.example = smtp:[192.0.2.1] } }"}, []string{"-e", "transport_maps="}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := instance(t, panels["ISPConfig"].main, panels["ISPConfig"].master+"virtual unix - n n - - virtual\n  -o virtual_mailbox_limit=20000000\n")
			apply(t, read(t, dir))
			for i, arg := range c.change {
				c.change[i] = strings.ReplaceAll(arg, "DIR", dir)
			}
			postconf(t, dir, c.change...)
			backup, left, err := read(t, dir).Undo(t.Context())
			if err != nil || strings.HasSuffix(backup, UndoneSuffix) || !slices.Contains(left, "127.0.0.1:10033/inet") || slices.Contains(left, "submission/inet") {
				t.Fatalf("%s, left %q, %v", backup, left, err)
			}
			now := read(t, dir)
			l := now.Listener(wants().Reinject)
			if l == nil || now.Service(now.In(l, "cleanup_service_name"), "unix") == nil {
				t.Error("what pecd signs does not leave")
			}
			if now.Get("smtp_line_length_limit") != "0" || now.Int("message_size_limit") < wants().MinSize() || !now.RoutesTo(t.Context(), "pec.example", wants().LMTP) {
				t.Error("main.cf is not as pecd needs it")
			}
			if small := now.SmallMailboxes(now.Int("message_size_limit")); len(small) > 0 {
				t.Errorf("these stop: %+v", small)
			}
			if s := now.Service("submission", "inet"); len(Milters(now.In(s, "smtpd_milters"))) != 1 {
				t.Errorf("not taken back: %s", s.Line())
			}
			postconf(t, dir, c.out...)
			backup, left, err = read(t, dir).Undo(t.Context())
			if err != nil || !strings.HasSuffix(backup, UndoneSuffix) || slices.Contains(left, "127.0.0.1:10033/inet") {
				t.Errorf("%s, left %q, %v", backup, left, err)
			}
			if now := read(t, dir); now.Listener(wants().Reinject) != nil || now.Get("smtp_line_length_limit") == "0" {
				t.Error("the rest was not taken back")
			}
		})
	}
}

// TestUndoMailboxes: no limit to mailboxes comes back that is below the message_size_limit
// which somebody has set since: local(8) and virtual(8) would deliver nothing.
func TestUndoMailboxes(t *testing.T) {
	for name, c := range map[string]struct {
		size string
		left []string
	}{
		"larger messages": {"400000000", []string{"message_size_limit", "mailbox_size_limit", "virtual/unix"}},
		"any messages":    {"0", []string{"message_size_limit", "mailbox_size_limit", "virtual/unix"}},
		"small messages":  {"15000000", []string{"message_size_limit"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := instance(t, "", "smtp inet n - n - - smtpd\nlocal unix - n n - - local\nvirtual unix - n n - - virtual\n  -o virtual_mailbox_limit=20000000\n"+base)
			apply(t, read(t, dir))
			postconf(t, dir, "-e", "message_size_limit="+c.size)
			undo(t, dir, c.left...)
			now := read(t, dir)
			if small := now.SmallMailboxes(now.Int("message_size_limit")); len(small) > 0 {
				t.Errorf("these stop: %+v", small)
			}
		})
	}
}

// TestUndoHalf: what is as it was already was not changed by somebody: an application that
// ended between its two files is taken back whole, tables too.
func TestUndoHalf(t *testing.T) {
	t.Parallel()
	dir := instance(t, panels["ISPConfig"].main, panels["ISPConfig"].master)
	before, err := contents(dir)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, read(t, dir))
	if err := os.WriteFile(filepath.Join(dir, "master.cf"), before["master.cf"], 0o644); err != nil {
		t.Fatal(err)
	}
	postconf(t, dir, "-X", "smtp_line_length_limit")
	undo(t, dir)
	if tables, err := filepath.Glob(filepath.Join(dir, TransportFile+"*")); err != nil || len(tables) > 0 {
		t.Errorf("%v, %v", tables, err)
	}
	if now := read(t, dir); now.Get("maximal_queue_lifetime") != "5d" || now.set["transport_maps"] {
		t.Error("main.cf is not as it was")
	}
}
