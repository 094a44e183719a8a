package host

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pecd/pec/message"
	"pecd/points"
)

// alive reports whether there is a process pid that is no zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// envVictim makes this program a host that waits to be killed.
const envVictim = "PECD_TEST_VICTIM"

// victim runs the plugin, tells its process id, and waits for the end while the
// plugin is stopped in a call.
func victim() {
	dir := os.Getenv(envVictim)
	o := Options{Dir: dir, Messages: dir, State: dir, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	h, err := Start(context.Background(), []Spec{{Name: "deaf", Path: os.Args[1], Table: map[string]any{"mode": "deaf"}, Timeout: time.Hour}}, o)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(h.Status()[0].Pid)
	h.Check(context.Background(), points.Submission, Question{Login: "mode:" + os.Args[2], Source: message.Bytes("")})
	select {}
}

// TestHostKilled: a plugin does not outlive a host that is killed, though it
// ignores all signals that it can and hangs in a call and in its end, is stopped,
// or listens to nothing at all.
func TestHostKilled(t *testing.T) {
	for mode, state := range map[string]string{"deaf": ") S ", "stopped": ") T ", "become": "(sleep)"} {
		t.Run(mode, func(t *testing.T) { hostKilled(t, mode, state) })
	}
}

func hostKilled(t *testing.T, mode, state string) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, binary, mode)
	cmd.Env = append(os.Environ(), envVictim+"="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, e := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || e != nil {
		cmd.Process.Kill()
		t.Fatalf("the victim said %q: %v", line, err)
	}
	until(t, "the call", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err == nil && strings.Contains(string(b), state)
	})
	begun := time.Now()
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the plugin's end", func() bool { return !alive(pid) })
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("the plugin outlived its host by %v", took)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the victim was not killed")
	}
}

// TestChildren: what a plugin has started ends with it, though it holds the
// pipes.
func TestChildren(t *testing.T) {
	o, r := options(t)
	h := start(t, o, spec("clean"))
	ask(t, h, small("child"))
	var child int
	until(t, "the child", func() bool {
		_, after, ok := strings.Cut(r.String(), `detail="result: `)
		if ok {
			_, err := fmt.Sscanf(after, "%d", &child)
			return err == nil
		}
		return false
	})
	if !alive(child) {
		t.Fatalf("the child %d does not run", child)
	}
	ask(t, h, small("crash"))
	until(t, "the child's end", func() bool { return !alive(child) })
	until(t, "the restart", func() bool { return h.Status()[0].Restarts == 1 })
}
