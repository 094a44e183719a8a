// Package clamdtest runs a clamd of its own for tests: in a private directory,
// with a signature database of one entry that matches the EICAR test string, on a
// unix socket and a TCP port of the loopback. It needs neither the network nor
// the databases of the system, and touches no other clamd.
package clamdtest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Program is the daemon; Debian has it in the package clamav-daemon.
const Program = "/usr/sbin/clamd"

// signature is the entry of the database.
const signature = "Pecd.Test.Eicar"

// Virus is the name under which this clamd finds EICAR: it marks what is not of
// its makers' database.
const Virus = signature + ".UNOFFICIAL"

// eicar is the test string of the European Institute for Computer Antivirus
// Research in two halves, so that no scanner stumbles over this file or over the
// program made of it.
var eicar = [2]string{`X5O!P%@AP[4\PZX54(P^)7CC)7}$`, `EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`}

// EICAR returns the EICAR test string, 68 octets that are harmless and that every
// scanner takes for a virus.
func EICAR() []byte { return []byte(eicar[0] + eicar[1]) }

const (
	maxSocket = 107 // octets of the path of a unix socket, on Linux
	attempts  = 3   // to find a port
	poll      = 5 * time.Millisecond
	stopTime  = 10 * time.Second // for clamd to end; it ends at once
)

// A Clamd is a running clamd, or a stopped one. It is for one goroutine.
type Clamd struct {
	Unix string // the address "unix:/path", the same after a Restart
	TCP  string // the address "inet:127.0.0.1:port", the same after a Restart
	Log  string // the file with its log

	dir, socket, tcp string
	settings         []string
	process          *process
}

// Start runs a clamd in dir, which exists, and returns when it answers. Each of
// settings is a line of clamd.conf beside those that every test needs, for example
// "StreamMaxLength 1M". The context bounds the start only: the caller ends clamd
// with Stop or Kill. It also ends with the process that started it.
func Start(ctx context.Context, dir string, settings ...string) (*Clamd, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	c := &Clamd{dir: dir, socket: filepath.Join(dir, "clamd.ctl"), Log: filepath.Join(dir, "clamd.log"), settings: settings}
	c.Unix = "unix:" + c.socket
	if len(c.socket) > maxSocket {
		return nil, fmt.Errorf("clamdtest: the path of the socket is too long: %s", c.socket)
	}
	// Somebody else may take the port before clamd does.
	for range attempts {
		if err = c.choosePort(ctx); err == nil {
			err = c.run(ctx)
		}
		if err == nil {
			return c, nil
		}
	}
	return nil, err
}

func (c *Clamd) choosePort(ctx context.Context) (err error) {
	if c.tcp, err = freePort(ctx); err != nil {
		return fmt.Errorf("clamdtest: no free port: %w", err)
	}
	c.TCP = "inet:" + c.tcp
	if err := c.write(); err != nil {
		return fmt.Errorf("clamdtest: %w", err)
	}
	return nil
}

// freePort is an address at which nobody listens.
func freePort(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// write makes the database, the configuration and the directory for temporary
// files.
func (c *Clamd) write() error {
	db := filepath.Join(c.dir, "db")
	temp := filepath.Join(c.dir, "tmp")
	if err := errors.Join(os.MkdirAll(db, 0o755), os.MkdirAll(temp, 0o700)); err != nil {
		return err
	}
	// Any type of file (0), at any place (*).
	entry := signature + ":0:*:" + hex.EncodeToString(EICAR()) + "\n"
	if err := os.WriteFile(filepath.Join(db, "test.ndb"), []byte(entry), 0o644); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(c.tcp)
	if err != nil {
		return err
	}
	lines := append([]string{"DatabaseDirectory " + db, "TemporaryDirectory " + temp, "LogFile " + c.Log, "LogTime yes",
		"LocalSocket " + c.socket, "TCPAddr " + host, "TCPSocket " + port, "Foreground yes", "SelfCheck 0"}, c.settings...)
	return os.WriteFile(c.conf(), []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

func (c *Clamd) conf() string { return filepath.Join(c.dir, "clamd.conf") }

// run starts the process and waits until both doors answer.
func (c *Clamd) run(ctx context.Context) error {
	p, err := start(Program, "--config-file="+c.conf())
	if err != nil {
		return fmt.Errorf("clamdtest: %w", err)
	}
	c.process = p
	for _, addr := range [][2]string{{"unix", c.socket}, {"tcp", c.tcp}} {
		if err := p.answers(ctx, addr[0], addr[1]); err != nil {
			return errors.Join(fmt.Errorf("clamdtest: %w; its output: %s", err, p.output()), c.Kill())
		}
	}
	return nil
}

// Stop ends clamd and returns when it has ended. Its unix socket is gone then.
func (c *Clamd) Stop() error {
	if err := errors.Join(c.process.signal(syscall.SIGTERM), c.Resume()); err != nil {
		return err
	}
	select {
	case <-c.process.done:
		return nil
	case <-time.After(stopTime):
		return errors.Join(errors.New("clamdtest: clamd did not end"), c.Kill())
	}
}

// Kill ends clamd by SIGKILL, as the kernel does when memory is short, and
// returns when it has ended. Its unix socket stays behind.
func (c *Clamd) Kill() error {
	err := c.process.signal(syscall.SIGKILL)
	<-c.process.done
	return err
}

// Restart stops clamd if it runs, starts it again on the same addresses and
// returns when it answers.
func (c *Clamd) Restart(ctx context.Context) error {
	if err := c.Stop(); err != nil {
		return err
	}
	return c.run(ctx)
}

// Pause stops clamd without ending it: connections are made, and nothing
// answers.
func (c *Clamd) Pause() error { return c.process.signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (c *Clamd) Resume() error { return c.process.signal(syscall.SIGCONT) }

// A process is a child with what it wrote.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	out  *bytes.Buffer // read only after done
}

// start runs a program that ends with this process at the latest.
func start(name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), done: make(chan struct{}), out: new(bytes.Buffer)}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The kernel takes the end of this thread for that of the parent.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // how it ended is not asked
		}
	}()
	return p, <-started
}

// signal sends s; a process that has ended already is no error.
func (p *process) signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("clamdtest: %w", err)
	}
	return nil
}

// output is what the process wrote, once it has ended.
func (p *process) output() string {
	select {
	case <-p.done:
		return p.out.String()
	default:
		return "(it still runs)"
	}
}

// answers waits until clamd answers PING at the address.
func (p *process) answers(ctx context.Context, network, address string) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		err := ping(ctx, network, address)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("clamd ended: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("clamd does not answer at %s: %w", address, errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

func ping(ctx context.Context, network, address string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline() // there is one, from above
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("zPING\x00")); err != nil {
		return err
	}
	answer := make([]byte, len("PONG\x00"))
	if _, err := conn.Read(answer); err != nil {
		return err
	}
	if string(answer) != "PONG\x00" {
		return fmt.Errorf("clamd answers PING with %q", answer)
	}
	return nil
}
