package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/textproto"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pecd/cmd/pecd/setup"
	"pecd/milter/socket"
)

// patience is how long a socket may take to answer.
const patience = 5 * time.Second

// sockets looks at all sockets: pecd's, as the MTA calls them, and those that pecd
// calls.
func (v *visit) sockets(ctx context.Context) {
	for _, s := range []struct{ key, addr string }{{"access.milter", v.want.Access}, {"gate.milter", v.want.Gate}, {"reception.lmtp", v.want.LMTP}} {
		if s.addr == "" {
			continue
		}
		v.answers(ctx, s.key, s.addr, "socket-missing", "socket-stale")
		path, ok := strings.CutPrefix(s.addr, "unix:")
		if ok && v.Postfix != nil {
			v.permission(s.key, path)
		}
		if ok && v.Sendmail != nil {
			v.unsafe(s.key, path)
		}
	}
	v.greeting(ctx, "courier.mta", v.want.Reinject, "EHLO", "listener-down")
	v.greeting(ctx, "delivery.store", v.Config.Delivery.Store, "LHLO", "mailboxes-down")
	v.ports(ctx)
}

// answers connects to a socket of pecd's.
func (v *visit) answers(ctx context.Context, key, addr, missing, stale string) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := socket.Dial(ctx, addr)
	switch {
	case err == nil:
		_ = c.Close()
	case errors.Is(err, fs.ErrNotExist):
		v.add(missing, "%s: %s is not there", key, addr)
	case errors.Is(err, syscall.ECONNREFUSED):
		v.add(stale, "%s: nobody answers at %s", key, addr)
	default:
		v.add(stale, "%s: %s", key, text(err))
	}
}

// permission looks whether Postfix's user can get to a socket. A missing one is told
// elsewhere.
func (v *visit) permission(key, path string) {
	if _, err := os.Stat(path); err != nil {
		return
	}
	name := v.Postfix.Get("mail_owner")
	u, err := user.Lookup(name)
	if err != nil {
		v.add("socket-permission", "%s: there is no user %s (mail_owner)", key, name)
		return
	}
	groups, err := u.GroupIds()
	if err != nil {
		v.add("socket-permission", "%s: groups of %s: %s", key, name, text(err))
		return
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if !may(dir, u.Uid, groups, 1) {
			v.add("socket-permission", "%s: user %s cannot enter %s", key, name, dir)
			return
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	if !may(path, u.Uid, groups, 2) {
		v.add("socket-permission", "%s: user %s may not write to %s", key, name, path)
	}
}

// may reports whether the mode of a file grants a bit (4 read, 2 write, 1 search).
func may(file, uid string, groups []string, bit fs.FileMode) bool {
	st, err := os.Stat(file)
	if err != nil {
		return false
	}
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	mode := st.Mode().Perm()
	switch {
	case strconv.Itoa(int(s.Uid)) == uid:
		mode >>= 6
	case slices.Contains(groups, strconv.Itoa(int(s.Gid))):
		mode >>= 3
	}
	return mode&bit != 0
}

// greeting talks with a server until it has said who it is.
func (v *visit) greeting(ctx context.Context, key, addr, hello, id string) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := socket.Dial(ctx, addr)
	if err != nil {
		v.add(id, "%s: %s", key, text(err))
		return
	}
	defer c.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(end); err != nil {
			v.add(id, "%s: %s: %s", key, addr, text(err))
			return
		}
	}
	if err := meet(textproto.NewConn(c), hello, v.Config.Provider.Domain); err != nil {
		v.add(id, "%s: %s answers, but: %s", key, addr, text(err))
	}
}

func meet(c *textproto.Conn, hello, name string) error {
	if _, _, err := c.ReadResponse(220); err != nil {
		return err
	}
	if err := c.PrintfLine("%s %s", hello, name); err != nil {
		return err
	}
	if _, _, err := c.ReadResponse(250); err != nil {
		return err
	}
	return c.PrintfLine("QUIT")
}

// ports looks whether somebody listens where the MTA's users and other servers call.
func (v *visit) ports(ctx context.Context) {
	if v.Sendmail != nil {
		v.sendmailPorts(ctx)
	}
	if v.Postfix == nil {
		return
	}
	for _, s := range append(v.Postfix.Submissions(v.want.Reinject), v.Postfix.Port25(v.want.Reinject)...) {
		if s.Type != "inet" {
			continue
		}
		addr := s.Name
		if _, _, err := net.SplitHostPort(addr); err != nil {
			addr = net.JoinHostPort(listens(v.Postfix.Get("inet_interfaces")), s.Name)
		}
		v.port(ctx, s.Key(), addr)
	}
}

// listens is an address at which Postfix listens, by inet_interfaces: this machine's own
// unless others alone are named.
func listens(interfaces string) string {
	const own = "127.0.0.1"
	words := setup.Words(strings.ToLower(interfaces))
	if len(words) == 0 || slices.ContainsFunc(words, func(w string) bool { return w == "all" || w == "loopback-only" || w == "localhost" || w == own }) {
		return own
	}
	return strings.Trim(words[0], "[]")
}

// port looks whether somebody listens at an address of the service key.
func (v *visit) port(ctx context.Context, key, addr string) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		v.add("port-closed", "%s: %s", key, text(err))
		return
	}
	_ = c.Close()
}
