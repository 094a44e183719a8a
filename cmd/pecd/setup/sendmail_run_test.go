package setup

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runningMC is a Sendmail that can run beside others.
func runningMC(dir, port25, submission string) string {
	settings := ""
	for name, value := range map[string]string{"QUEUE_DIR": dir + "/queue", "confPID_FILE": dir + "/pid", "STATUS_FILE": dir + "/status", "ALIAS_FILE": "", "HELP_FILE": "", "confTO_IDENT": "0"} {
		settings += "define(`" + name + "', `" + value + "')dnl\n"
	}
	return strings.Replace(minimalMC, "MAILER(`local')", settings+"FEATURE(`no_default_msa')dnl\nFEATURE(`nocanonify')dnl\nFEATURE(`accept_unresolvable_domains')dnl\n"+
		"INPUT_MAIL_FILTER(`absent', `S=unix:"+dir+"/absent.sock, F=T')dnl\n"+
		"DAEMON_OPTIONS(`Name=MTA, Addr=127.0.0.1, Port="+port25+"')dnl\nDAEMON_OPTIONS(`Name=MSA, Addr=127.0.0.1, Port="+submission+", M=Ea')dnl\nMAILER(`local')", 1)
}

// freePorts are ports at which nobody listens.
func freePorts(t *testing.T, n int) (ports []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
	}
	return ports
}

// TestSendmailRuns starts a Sendmail as pecd setup has left it. While pecd is away
// nothing is taken from users and other servers; what pecd brings back passes no
// filter, and comes to the LMTP door with every octet of its body.
func TestSendmailRuns(t *testing.T) {
	ports := freePorts(t, 3)
	dir, program := mail(t, func(dir string) string { return runningMC(dir, ports[0], ports[1]) }, nil)
	for name, text := range map[string]string{"hosts": "127.0.0.1 localhost mail.pec.example\n", "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "queue"), 0o700); err != nil {
		t.Fatal(err)
	}
	w := wants()
	w.Access, w.Gate, w.LMTP, w.Reinject = "unix:"+dir+"/access.sock", "unix:"+dir+"/gate.sock", "unix:"+dir+"/lmtp.sock", "inet:127.0.0.1:"+ports[2]
	s := readSendmail(t, dir, program)
	plan, err := s.Plan(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), plan, w, noon); err != nil {
		t.Fatal(err)
	}
	door, err := net.Listen("unix", filepath.Join(dir, "lmtp.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	got := make(chan string, 1)
	go func() { got <- lmtpOnce(door) }()
	runSendmail(t, dir, ports[2])

	for what, port := range map[string]string{"port 25": ports[0], "submission": ports[1]} {
		c := dialSendmail(t, port)
		if code, line := c.cmd("MAIL FROM:<a@x.example>"); code/100 == 2 {
			t.Errorf("%s goes on without pecd: %d %s", what, code, line)
		}
	}
	c := dialSendmail(t, ports[2])
	for _, ext := range []string{"8BITMIME", "DSN"} {
		if !strings.Contains(c.offers, ext) {
			t.Errorf("the listener does not offer %s: %s", ext, c.offers)
		}
	}
	body := "perch\xc3\xa9 \xe8\r\n.dot\r\nFrom here\r\n" + strings.Repeat("x", 2500) + "\r\n \t\r\n\r\n"
	for _, line := range []string{"MAIL FROM:<a@x.example> BODY=8BITMIME ENVID=e1 RET=HDRS", "RCPT TO:<bob@pec.example> NOTIFY=FAILURE"} {
		if code, said := c.cmd(line); code != 250 {
			t.Fatalf("%s: %d %s", line, code, said)
		}
	}
	if code, said := c.cmd("DATA"); code != 354 {
		t.Fatal(code, said)
	}
	message := "From: a@x.example\r\nTo: bob@pec.example\r\nSubject: x\r\nX-Long: " + strings.Repeat("y ", 20_000) + "\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" +
		strings.ReplaceAll(body, "\r\n.", "\r\n..")
	if code, said := c.cmd(message + "."); code != 250 {
		t.Fatal(code, said)
	}
	select {
	case m := <-got:
		if _, have, _ := strings.Cut(m, "\r\n\r\n"); have != body {
			t.Errorf("the body came as %.400q\n… want %.400q", have, body)
		}
	case <-time.After(30 * time.Second):
		t.Error("nothing came to the LMTP door")
	}
}

// runSendmail runs Sendmail under a host name of its own until the test ends.
func runSendmail(t *testing.T, dir, port string) {
	t.Helper()
	script := "mount --bind " + dir + "/hosts /etc/hosts && mount --bind " + dir + "/nsswitch.conf /etc/nsswitch.conf && hostname mail.pec.example && exec " +
		tree + "/usr/libexec/sendmail/sendmail -C " + dir + "/sendmail.cf -bD -q1h"
	cmd := exec.Command("unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		<-ended
		if t.Failed() {
			t.Logf("Sendmail said:\n%s", out.String())
		}
	})
	for deadline := time.Now().Add(30 * time.Second); ; {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("Sendmail ended: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// A smtpTalk is a connection to Sendmail.
type smtpTalk struct {
	t      *testing.T
	c      *textproto.Conn
	offers string
}

func dialSendmail(t *testing.T, port string) *smtpTalk {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c := &smtpTalk{t: t, c: textproto.NewConn(conn)}
	if _, _, err := c.c.ReadResponse(220); err != nil {
		t.Fatal(err)
	}
	_, c.offers = c.cmd("EHLO client.example")
	return c
}

// cmd sends a line and returns the reply.
func (c *smtpTalk) cmd(line string) (code int, text string) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.c.W, "%s\r\n", line); err != nil {
		c.t.Fatal(err)
	}
	if err := c.c.W.Flush(); err != nil {
		c.t.Fatal(err)
	}
	code, text, err := c.c.ReadResponse(0)
	if err != nil && code == 0 {
		c.t.Fatal(err)
	}
	return code, text
}

// lmtpOnce takes one message as an LMTP server that offers nothing does, and returns it.
func lmtpOnce(l net.Listener) string {
	conn, err := l.Accept()
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	r, message := bufio.NewReader(conn), ""
	fmt.Fprint(conn, "220 door\r\n")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return message
		}
		switch strings.ToUpper(strings.Fields(line + " .")[0]) {
		case "DATA":
			fmt.Fprint(conn, "354 go\r\n")
			for line, err = r.ReadString('\n'); err == nil && line != ".\r\n"; line, err = r.ReadString('\n') {
				message += strings.TrimPrefix(line, ".")
			}
			fmt.Fprint(conn, "250 2.1.5 done\r\n")
			return message
		default:
			fmt.Fprint(conn, "250 2.0.0 yes\r\n")
		}
	}
}
