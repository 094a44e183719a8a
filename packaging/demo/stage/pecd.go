package stage

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/BurntSushi/toml"
)

// PecdConfig is pecd.toml as the stage writes it. Zero values are left out, so
// pecd's own defaults hold.
type PecdConfig struct {
	Provider  ProviderConfig  `toml:"provider"`
	Signer    SignerConfig    `toml:"signer"`
	Trust     TrustConfig     `toml:"trust"`
	Directory DirectoryConfig `toml:"directory"`
	Access    AccessConfig    `toml:"access"`
	Gate      GateConfig      `toml:"gate,omitempty"`
	Reception ReceptionConfig `toml:"reception"`
	Delivery  DeliveryConfig  `toml:"delivery"`
	Courier   CourierConfig   `toml:"courier"`
	Store     StoreConfig     `toml:"store"`
	Seal      SealConfig      `toml:"seal,omitempty"`
	Witness   WitnessConfig   `toml:"witness,omitempty"`
	Time      TimeConfig      `toml:"time,omitempty"`
	Metrics   MetricsConfig   `toml:"metrics"`
	Log       LogConfig       `toml:"log"`
	Plugins   []PluginConfig  `toml:"plugin,omitempty"`
}

// The sections of PecdConfig.
type (
	ProviderConfig struct {
		Name   string `toml:"name"`
		Domain string `toml:"domain"`
	}
	SignerConfig struct {
		KeyConfig
		Next *NextConfig `toml:"next,omitempty"`
	}
	KeyConfig struct {
		Key          string `toml:"key,omitempty"`
		Certificate  string `toml:"certificate,omitempty"`
		PKCS12       string `toml:"pkcs12,omitempty"`
		PasswordFile string `toml:"password_file,omitempty"`
		Module       string `toml:"module,omitempty"`
		Token        string `toml:"token,omitempty"`
		KeyLabel     string `toml:"key_label,omitempty"`
		PINFile      string `toml:"pin_file,omitempty"`
	}
	NextConfig struct {
		KeyConfig
		From time.Time `toml:"from"`
	}
	TrustConfig struct {
		Anchors string   `toml:"anchors"`
		CRLs    []string `toml:"crls,omitempty"`
		CRLURLs []string `toml:"crl_urls,omitempty"`
		OCSP    string   `toml:"ocsp,omitempty"`
		Unknown string   `toml:"unknown,omitempty"`
	}
	DirectoryConfig struct {
		File              string  `toml:"file,omitempty"`
		URL               string  `toml:"url,omitempty"`
		ClientCertificate string  `toml:"client_certificate,omitempty"`
		ClientKey         string  `toml:"client_key,omitempty"`
		TLSAnchors        string  `toml:"tls_anchors,omitempty"`
		Anchors           string  `toml:"anchors,omitempty"`
		MaxLoss           float64 `toml:"max_loss,omitzero"`
	}
	GateConfig struct {
		Milter      string `toml:"milter,omitempty"`
		SocketGroup string `toml:"socket_group,omitempty"`
		SocketMode  string `toml:"socket_mode,omitempty"`
		TLS         string `toml:"tls,omitempty"`
	}
	AccessConfig struct {
		Milter        string `toml:"milter"`
		SocketGroup   string `toml:"socket_group,omitempty"`
		SocketMode    string `toml:"socket_mode,omitempty"`
		MaxSize       int64  `toml:"max_size,omitzero"`    // octets
		NoticeSize    int64  `toml:"notice_size,omitzero"` // octets
		MaxTotal      int64  `toml:"max_total,omitzero"`   // octets
		EightBit      string `toml:"eight_bit,omitempty"`
		MaxRecipients int    `toml:"max_recipients,omitzero"`
		SenderLogin   string `toml:"sender_login,omitempty"`
	}
	ReceptionConfig struct {
		LMTP        string `toml:"lmtp"`
		SocketGroup string `toml:"socket_group,omitempty"`
		SocketMode  string `toml:"socket_mode,omitempty"`
		MaxSize     int64  `toml:"max_size,omitzero"` // octets
	}
	DeliveryConfig struct {
		Store string `toml:"store"`
	}
	CourierConfig struct {
		MTA         string `toml:"mta"`
		Connections int    `toml:"connections,omitzero"`
	}
	StoreConfig struct {
		Path string `toml:"path"`
	}
	SealConfig struct {
		TSA        []string `toml:"tsa,omitempty"`
		TSAAnchors string   `toml:"tsa_anchors,omitempty"`
	}
	WitnessConfig struct {
		Interval  string `toml:"interval,omitempty"`
		Timestamp bool   `toml:"timestamp,omitempty"`
		Receipts  bool   `toml:"receipts,omitempty"`
	}
	TimeConfig struct {
		NTP      []string `toml:"ntp,omitempty"`
		OnOffset string   `toml:"on_offset,omitempty"`
		Interval string   `toml:"interval,omitempty"`
	}
	MetricsConfig struct {
		Listen string `toml:"listen,omitempty"`
	}
	LogConfig struct {
		Level string `toml:"level,omitempty"`
	}
	PluginConfig struct {
		Name     string         `toml:"name,omitempty"`
		Path     string         `toml:"path"`
		SHA256   string         `toml:"sha256,omitempty"`
		Timeout  string         `toml:"timeout,omitempty"`
		Settings map[string]any `toml:"settings,omitempty"`
	}
)

func (p *Provider) pecdConfig(s *Stage, metrics string) PecdConfig {
	return PecdConfig{
		Provider:  ProviderConfig{Name: p.Name, Domain: p.Domain},
		Signer:    SignerConfig{KeyConfig: KeyConfig{Key: p.Key, Certificate: p.Certificate}},
		Trust:     TrustConfig{Anchors: s.CA},
		Directory: DirectoryConfig{File: s.Directory},
		Access:    AccessConfig{Milter: "unix:" + p.socket("access.sock"), SocketGroup: "postfix", SocketMode: "0660", SenderLogin: "match"},
		Gate:      GateConfig{Milter: "unix:" + p.socket("gate.sock"), SocketGroup: "postfix", SocketMode: "0660", TLS: "require"},
		Reception: ReceptionConfig{LMTP: "unix:" + p.socket("lmtp.sock"), SocketGroup: "postfix", SocketMode: "0660"},
		Delivery:  DeliveryConfig{Store: "unix:" + p.socket("store.sock")},
		Courier:   CourierConfig{MTA: "inet:" + p.Reinject},
		Store:     StoreConfig{Path: filepath.Join(p.Dir, "store")},
		Metrics:   MetricsConfig{Listen: metrics},
		Log:       LogConfig{Level: "info"},
	}
}

func (m *MailServer) socket(name string) string { return filepath.Join(m.Dir, "sock", name) }

func (p *Provider) writePecd() error {
	if err := makeDir(p.Pecd.Config.Store.Path, 0o700); err != nil {
		return err
	}
	return p.Pecd.WriteConfig()
}

// ErrNotReady says that pecd ended, or did not say that it was ready in time.
var ErrNotReady = errors.New("pecd did not become ready")

// ErrEnded says that pecd ended when nobody had asked it to.
var ErrEnded = errors.New("pecd ended by itself")

// Pecd is the daemon of one provider. Bin, Args, Env, Config and Sockets may be changed
// while it does not run; after a change of Config call WriteConfig. The methods
// may be called concurrently.
type Pecd struct {
	Bin        string   // absolute
	Args       []string // after "serve --config FILE"
	Env        []string // beside that of this process
	ConfigFile string
	Log        string // what it writes to standard error, of all its runs
	PIDFile    string // ours, not pecd's
	Config     PecdConfig
	Sockets    []*os.File // passed to it as systemd passes sockets; nil: none
	// Piped has this process write the log, of what comes by a pipe: whatever keeps pecd
	// from writing files does not silence it. It does not outlive this process then.
	Piped bool

	mu    sync.Mutex
	done  chan struct{} // closed when the process that we started has ended; nil if we started none
	pid   int           // of that process
	err   error         // how it ended; read after done
	over  bool          // it has ended
	ready bool          // Start has seen it ready
	asked bool          // Stop or Kill has told it to end
	ended error         // how the first ended that was ready and was not told to
}

// WriteConfig writes Config to ConfigFile; pecd reads it at its next start or
// SIGHUP.
func (p *Pecd) WriteConfig() error {
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).Encode(p.Config); err != nil {
		return err
	}
	return writeFile(p.ConfigFile, b.Bytes(), 0o644)
}

// start is a whole command for whoever starts pecd again from env.json.
func (p *Pecd) start() []string {
	if len(p.Env) == 0 {
		return p.argv()
	}
	return append(append([]string{"/usr/bin/env"}, p.Env...), p.argv()...)
}

func (p *Pecd) argv() []string {
	return append([]string{p.Bin, "serve", "--config", p.ConfigFile}, p.Args...)
}

// Start starts pecd and returns when it has said that it is ready. If it runs
// already, nothing happens. If it ends first, the error is ErrNotReady and
// holds the end of its log.
func (p *Pecd) Start(ctx context.Context) error {
	if p.PID() != 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return errors.Join(err, log.Close())
	}
	ended, err := p.spawn(log)
	if err != nil {
		return errors.Join(err, log.Close())
	}
	over := false
	err = until(ctx, func() bool {
		select {
		case <-ended:
			over = true
		default:
		}
		return over || saysReady(p.Log, from)
	})
	if err != nil || over {
		return errors.Join(fmt.Errorf("%w: %s%s", ErrNotReady, strings.Join(p.argv(), " "), tail(p.Log, 10)), err, p.Kill())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = true
	p.judgeEnd() // it may have ended since it was ready
	return nil
}

// outputGrace is for how long after pecd's end its plugins may still hold its output.
const outputGrace = 2 * time.Second

// spawn starts the process and a goroutine that lives as long as it, and closes log.
func (p *Pecd) spawn(log *os.File) (ended <-chan struct{}, err error) {
	argv := p.argv()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), p.Env...)
	if len(p.Sockets) > 0 {
		// exec keeps the process id that the shell puts into LISTEN_PID.
		cmd = exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`}, argv...)...)
		cmd.Env = append(append(os.Environ(), p.Env...), "LISTEN_FDS="+strconv.Itoa(len(p.Sockets)))
		cmd.ExtraFiles = p.Sockets
	}
	cmd.Stdout, cmd.Stderr = log, log
	if p.Piped {
		// What is no file of its own os/exec copies to, from one pipe.
		out := &struct{ io.Writer }{log}
		cmd.Stdout, cmd.Stderr = out, out
		cmd.WaitDelay = outputGrace
	}
	// Its own session: it outlives make, and an interrupt from the terminal is
	// for us to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	p.done, p.pid = done, cmd.Process.Pid
	p.over, p.ready, p.asked = false, false, false
	go func() {
		err := cmd.Wait()
		_ = log.Close() // what is in it was written
		p.mu.Lock()
		p.err, p.over = err, true
		p.judgeEnd()
		p.mu.Unlock()
		close(done)
	}()
	return done, writeFile(p.PIDFile, []byte(strconv.Itoa(p.pid)+"\n"), 0o644)
}

// saysReady looks for the line that pecd logs when all its listeners are open.
func saysReady(log string, from int64) bool {
	f, err := os.Open(log)
	if err != nil {
		return false
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, from, 1<<20))
	return err == nil && (bytes.Contains(b, []byte(" msg=ready\n")) || bytes.Contains(b, []byte(" msg=ready ")))
}

// panicked is how pecd and its plugins, or the Go runtime, say that they panicked: as
// a word, for an identifier may hold the same letters.
var panicked = regexp.MustCompile(`\bpanic(?:ked)?\b|^fatal error: `)

// Panics returns the lines of a log of pecd's in which somebody panicked: what
// recovered puts a message off like any doubt, and is seen nowhere else.
func Panics(log string) (list []string) {
	for line := range strings.Lines(log) {
		if panicked.MatchString(line) {
			list = append(list, strings.TrimSpace(line))
		}
	}
	return list
}

// PID returns the process id, or 0 if pecd does not run.
func (p *Pecd) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		return pidOf(p.PIDFile, filepath.Dir(p.PIDFile))
	}
	select {
	case <-p.done:
		return 0
	default:
		return p.pid
	}
}

// Signal sends a signal to pecd, such as SIGHUP.
func (p *Pecd) Signal(sig syscall.Signal) error {
	pid := p.PID()
	if pid == 0 {
		return fmt.Errorf("pecd does not run")
	}
	return syscall.Kill(pid, sig)
}

// Stop sends SIGTERM and waits for the end. A pecd that does not end within
// 200 s is killed, which is an error.
func (p *Pecd) Stop(ctx context.Context) error {
	p.expectEnd()
	return terminate(ctx, "pecd with "+p.ConfigFile, p.PID, pecdStopTimeout)
}

// Kill sends SIGKILL and waits for the end: the crash.
func (p *Pecd) Kill() error {
	pid := p.PID()
	if pid == 0 {
		return nil
	}
	p.expectEnd()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return until(ctx, func() bool { return p.PID() == 0 })
}

// Wait waits until the pecd that Start started has ended by itself, and returns
// how: nil, or an *exec.ExitError.
func (p *Pecd) Wait(ctx context.Context) error {
	p.mu.Lock()
	done := p.done
	p.mu.Unlock()
	if done == nil {
		return errors.New("pecd was not started by this process")
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// judgeEnd remembers an end that nobody asked for; the caller holds mu. Of one before
// it was ready Start tells.
func (p *Pecd) judgeEnd() {
	if p.over && p.ready && !p.asked && p.ended == nil {
		p.ended = fmt.Errorf("%w: %w%s", ErrEnded, cmp.Or(p.err, errors.New("exit status 0")), tail(p.Log, 40))
	}
}

func (p *Pecd) expectEnd() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = true
}

// Ended says whether a pecd that Start had started ended without Stop or Kill, and
// how: ErrEnded with the end of its log. A later Start takes nothing back.
func (p *Pecd) Ended() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

func (s *Stage) startPecd(ctx context.Context, p *Provider) error {
	if err := p.Pecd.Start(ctx); err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	s.logf("%s: pecd runs, pid %d", p.Name, p.Pecd.PID())
	return nil
}

// Build builds the program of package pkg, such as "pecd/cmd/pecd", as out.
func Build(ctx context.Context, out, pkg string, flags ...string) error {
	args := append([]string{"build", "-buildvcs=false", "-o", out}, flags...)
	b, err := exec.CommandContext(ctx, "go", append(args, pkg)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, bytes.TrimSpace(b))
	}
	return nil
}
