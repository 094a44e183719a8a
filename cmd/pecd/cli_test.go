package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/pec"
	"pecd/points/pointstest"
	"pecd/signer/index"
)

// site is a directory with all that an installation needs.
type site struct {
	*pointstest.World
	dir, config, directory string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{World: pointstest.New(t), dir: t.TempDir()}
	ldif := s.write(t, "igpec.ldif", s.LDIF)
	s.directory = filepath.Join(s.dir, "igpec.ldif.p7m")
	id := s.Alfa.Identity
	cmd := exec.Command("openssl", "cms", "-sign", "-nodetach", "-binary", "-outform", "DER", "-md", "sha256",
		"-in", ldif, "-signer", id.CertFile, "-inkey", id.KeyFile, "-out", s.directory)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	s.config = s.write(t, "pecd.toml", []byte(strings.NewReplacer("DIR", s.dir, "KEY", id.KeyFile, "CERT", id.CertFile, "CA", s.CA.File).Replace(
		`[provider]
name = "Alfa PEC S.p.A."
domain = "alfa.example"
[signer]
key = "KEY"
certificate = "CERT"
[trust]
anchors = "CA"
[directory]
file = "DIR/igpec.ldif.p7m"
[access]
milter = "unix:DIR/a.sock"
[reception]
lmtp = "unix:DIR/l.sock"
[delivery]
store = "unix:DIR/d.sock"
[courier]
mta = "unix:DIR/m.sock"
[store]
path = "DIR/store"
`)))
	return s
}

func (s *site) write(t *testing.T, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(s.dir, name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// pecd runs the command line and returns the exit code and what was printed.
func pecd(args ...string) (int, string, string) {
	var out, errs bytes.Buffer
	code := run(context.Background(), args, streams{&out, &errs})
	return code, out.String(), errs.String()
}

// receipt writes an acceptance receipt by Alfa to a file.
func (s *site) receipt(t *testing.T, subject string) string {
	t.Helper()
	d, err := s.Alfa.Issuer.Acceptance(pec.Event{At: pointstest.At, Identifier: "20261122x@alfa.example", MsgID: "<c1@alfa.example>",
		Sender: "alice@alfa.example", Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}},
		Subject: subject, Error: pec.NoError}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Alfa.Signer.Sign(d)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := signed.Content().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return s.write(t, "receipt.eml", b.Bytes())
}

func TestVerify(t *testing.T) {
	s := newSite(t)
	file := s.receipt(t, "Città")
	code, out, errs := pecd("verify", file, "--ca", s.CA.File, "--directory", s.directory)
	if code != 0 || !strings.Contains(out, ": VALID\n") || !strings.Contains(out, "ricevuta di accettazione") || errs != "" {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	code, out, _ = pecd("verify", file, "--ca", s.CA.File, "--json")
	var v map[string]any
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	if code != 0 || v["valid"] != true || v["kind"] != "accettazione" || v["identifier"] != "20261122x@alfa.example" ||
		v["subject"] != "Città" || v["instant"] != "2026-11-22T10:45:37+01:00" || v["signature"].(map[string]any)["trusted"] != true {
		t.Errorf("exit %d: %s", code, out)
	}
}

// TestVerifyLineEnds saves the message as Unix tools do.
func TestVerifyLineEnds(t *testing.T) {
	s := newSite(t)
	raw, err := os.ReadFile(s.receipt(t, "x"))
	if err != nil {
		t.Fatal(err)
	}
	file := s.write(t, "lf.eml", bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")))
	if code, out, errs := pecd("verify", file, "--ca", s.CA.File); code != 0 {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

func TestVerifyNo(t *testing.T) {
	s := newSite(t)
	raw, err := os.ReadFile(s.receipt(t, "Offerta"))
	if err != nil {
		t.Fatal(err)
	}
	other := newSite(t)
	tests := map[string]struct {
		raw  []byte
		ca   string
		says string
	}{
		"altered":     {bytes.Replace(raw, []byte("Offerta\" prov"), []byte("Offesta\" prov"), 1), s.CA.File, "altered after it was signed"},
		"foreign":     {raw, other.CA.File, "not trusted"},
		"no anchors":  {raw, "", "--ca"},
		"ordinary":    {[]byte("From: a@b.example\n\nx\n"), s.CA.File, "not a signed message"},
		"false claim": {bytes.Replace(raw, []byte("X-Ricevuta: accettazione"), []byte("X-Ricevuta: avvenuta-consegna"), 1), s.CA.File, "the header says"},
		"empty":       {nil, s.CA.File, "not a signed message"},
		"noise":       {bytes.Repeat([]byte{0xff, 0, '\n'}, 1000), s.CA.File, "not a signed message"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if bytes.Equal(tt.raw, raw) && name == "altered" {
				t.Fatal("nothing was altered")
			}
			args := []string{"verify", s.write(t, "no.eml", tt.raw)}
			if tt.ca != "" {
				args = append(args, "--ca", tt.ca)
			}
			code, out, _ := pecd(args...)
			if code != 1 || !strings.Contains(out, "NOT VALID") || !strings.Contains(out, tt.says) {
				t.Errorf("exit %d\n%s", code, out)
			}
		})
	}
}

func TestWrongUse(t *testing.T) {
	for _, args := range [][]string{{}, {"sing"}, {"verify"}, {"verify", "--colour", "x"}, {"log", "search", "--store", "/tmp", "--since", "tomorrow"}} {
		if code, _, errs := pecd(args...); code != 2 || errs == "" {
			t.Errorf("%v: exit %d, %q", args, code, errs)
		}
	}
	if code, out, _ := pecd("--help"); code != 0 || !strings.Contains(out, "serve") {
		t.Errorf("help: exit %d\n%s", code, out)
	}
	if code, _, errs := pecd("verify", "/nonexistent.eml"); code != 1 || !strings.Contains(errs, "/nonexistent.eml") {
		t.Errorf("exit %d, %q", code, errs)
	}
}

// TestSays: an error names what it is about and what mends it.
func TestSays(t *testing.T) {
	s := newSite(t)
	tests := map[string]struct {
		args []string
		code int
		says []string
	}{
		"a flag is missing":   {[]string{"backup"}, 2, []string{"see: pecd backup --help"}},
		"an unknown flag":     {[]string{"log", "search", "--sinze", "x"}, 2, []string{"see: pecd log search --help"}},
		"no such command":     {[]string{"docto"}, 2, []string{`did you mean "doctor"`, "see: pecd --help"}},
		"no daemon":           {[]string{"plugin", "list", "--config", s.config}, 1, []string{"does not run", "fix: systemctl start pecd"}},
		"no such Postfix":     {[]string{"setup", "postfix", "--config", s.config, "--postfix-config-dir", "/nonexistent"}, 1, []string{"/nonexistent", "fix:", "--postfix-config-dir"}},
		"no register":         {[]string{"log", "search", "--store", filepath.Join(s.dir, "none")}, 1, []string{"none/pecd.db", "fix: there is no register yet"}},
		"not a domain":        {[]string{"quickstart", "exa_mple", "--dry-run"}, 2, []string{`pecd: wrong use: "exa_mple" is not a domain`}},
		"days are not sealed": {[]string{"log", "seal", "--config", s.config}, 78, []string{s.config + ": seal.tsa:", "fix: name an authority"}},
		"no credentials":      {[]string{"doctor", "--config", s.config, "--no-dns", "--canary", "/nonexistent"}, 1, []string{"/nonexistent", "mode 0600"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, _, errs := pecd(tt.args...)
			if code != tt.code {
				t.Errorf("exit %d, want %d", code, tt.code)
			}
			for _, want := range tt.says {
				if !strings.Contains(errs, want) {
					t.Errorf("%q lacks %q", errs, want)
				}
			}
			if strings.Count(errs, "wrong use") > 1 || strings.Contains(errs, "configuration: configuration") {
				t.Errorf("said twice: %q", errs)
			}
		})
	}
}

func TestConfigCheck(t *testing.T) {
	s := newSite(t)
	if code, out, errs := pecd("config", "check", "--config", s.config); code != 0 || !strings.Contains(out, "good") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	broken, err := os.ReadFile(s.directory)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(broken, []byte("beta.example"))
	broken[i] ^= 1
	good, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) []byte { return bytes.Replace(good, []byte(old), []byte(new), 1) }
	strange := s.write(t, "group.toml", replace("[access]", "[access]\nsocket_group = \"nobodys-group\""))
	if code, _, errs := pecd("config", "check", "--config", strange); code != 0 || !strings.Contains(errs, `access.socket_group: this machine has no group "nobodys-group"`) {
		t.Errorf("a group that does not exist: exit %d, %q", code, errs)
	}
	openKey := s.write(t, "open.key", nil)
	key, err := os.ReadFile(s.Alfa.Identity.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(openKey, key, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(openKey, 0o644); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		config []byte
		says   []string
	}{
		"unknown key":         {replace("name =", "nam ="), []string{":2:", "provider.nam", "unknown key"}},
		"key open to others":  {replace(s.Alfa.Identity.KeyFile, openKey), []string{":5:", "signer.key", "mode 0644", "chmod 600"}},
		"key of another":      {replace(s.Alfa.Identity.KeyFile, s.Beta.Identity.KeyFile), []string{":6:", "signer.certificate", "belongs to the key"}},
		"directory altered":   {replace("igpec.ldif.p7m", "broken.p7m"), []string{":10:", "directory.file", "signature"}},
		"directory is LDIF":   {replace("igpec.ldif.p7m", "igpec.ldif"), []string{":10:", "directory.file"}},
		"name not as listed":  {replace("Alfa PEC S.p.A.", "Alfa"), []string{":2:", "provider.name", "Alfa PEC S.p.A."}},
		"address of another":  {replace(`"alfa.example"`, `"beta.example"`), []string{"signer.certificate", "posta-certificata@beta.example"}},
		"anchors are no PEM":  {replace(s.CA.File, s.directory), []string{":8:", "trust.anchors"}},
		"key that is no file": {replace(s.Alfa.Identity.KeyFile, s.dir+"/none.pem"), []string{":5:", "signer.key", "no such file"}},
		"no such certificate": {replace(s.Alfa.Identity.CertFile, s.Alfa.Identity.KeyFile+".crt"), []string{":6:", "signer.certificate", "no such file"}},
	}
	s.write(t, "broken.p7m", broken)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if bytes.Equal(tt.config, good) {
				t.Fatal("nothing was changed")
			}
			code, _, errs := pecd("config", "check", "--config", s.write(t, "bad.toml", tt.config))
			if code != 78 {
				t.Errorf("exit %d", code)
			}
			for _, want := range tt.says {
				if !strings.Contains(errs, want) {
					t.Errorf("%q lacks %q", errs, want)
				}
			}
			if strings.Contains(errs, "PRIVATE KEY") {
				t.Error("a key is shown")
			}
		})
	}
}

// TestConfigCheckOwners: root reads a key that is root's, and the daemon would not.
func TestConfigCheckOwners(t *testing.T) {
	s := newSite(t)
	store := filepath.Join(s.dir, "store")
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := pecd("config", "check", "--config", s.config); code != 0 {
		t.Fatalf("exit %d, %q", code, errs)
	}
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it gives the store to another user")
	}
	if err := os.Chown(store, 12345, -1); err != nil {
		t.Fatal(err)
	}
	key := s.Alfa.Identity.KeyFile
	code, out, errs := pecd("config", "check", "--config", s.config)
	if code != 78 || strings.Contains(out, "good") {
		t.Errorf("exit %d, %q", code, out)
	}
	for _, want := range []string{":5: signer.key: " + key + " belongs to root: pecd, which runs as 12345, cannot read it", "fix: chown 12345 " + key} {
		if !strings.Contains(errs, want) {
			t.Errorf("%q lacks %q", errs, want)
		}
	}
	if err := os.Chown(key, 12345, -1); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := pecd("config", "check", "--config", s.config); code != 0 {
		t.Errorf("a key of the daemon's: exit %d, %q", code, errs)
	}
}

// TestQuickstartKey: whose key the daemon cannot read is told at once.
func TestQuickstartKey(t *testing.T) {
	s := newSite(t)
	me := os.Geteuid()
	for uid, want := range map[int]string{-1: "", me: "", me + 12345: "cannot read it; run:\n  chown " + strconv.Itoa(me+12345) + " " + s.directory} {
		var out strings.Builder
		if err := tellOwner(&out, s.directory, uid); err != nil || !strings.Contains(out.String(), want) || want == "" && out.Len() > 0 {
			t.Errorf("user %d: %q, %v", uid, out.String(), err)
		}
	}
}

// TestDirectoryFileUpdate: where nothing is new in a file, its age is told: that it was
// read does not make it current.
func TestDirectoryFileUpdate(t *testing.T) {
	s := newSite(t)
	written := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	if err := os.Chtimes(s.directory, written, written); err != nil {
		t.Fatal(err)
	}
	code, out, errs := pecd("directory", "update", "--config", s.config)
	if code != 0 || !strings.Contains(out, s.directory+", which was last written on 2026-01-02 03:04:05") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}

// TestDirectoryUpdateAsRoot: root keeps no directory where the daemon could not keep the
// next one.
func TestDirectoryUpdateAsRoot(t *testing.T) {
	s := newSite(t)
	store := filepath.Join(s.dir, "store")
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it gives the store to another user")
	}
	if err := errors.Join(os.Mkdir(store, 0o700), os.Chown(store, 12345, -1)); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := pecd("directory", "update", "--config", s.config); code != 2 || !strings.Contains(errs, "belongs to user 12345") {
		t.Errorf("exit %d, %q", code, errs)
	}
	if names, err := os.ReadDir(store); err != nil || len(names) != 0 {
		t.Errorf("it leaves %v, %v", names, err)
	}
}

// TestAdvised: force is advised where it helps.
func TestAdvised(t *testing.T) {
	for err, want := range map[error]string{
		index.ErrOlder: "--force", index.ErrShrunk: "--force", index.ErrOwn: "write provider.name and signer.certificate as the directory has them",
	} {
		if got := advised(err); !errors.Is(got, err) || !strings.Contains(got.Error(), want) || (err == index.ErrOwn) == strings.Contains(got.Error(), "--force") {
			t.Error(got)
		}
	}
	if got := advised(index.ErrUnfit); got != index.ErrUnfit {
		t.Error(got)
	}
}

func TestLogSearch(t *testing.T) {
	s := newSite(t)
	dir := filepath.Join(s.dir, "store")
	store, err := logstore.Open(context.Background(), logstore.Options{Dir: dir, Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	entry := logstore.Entry{At: pointstest.At, Type: "accettazione", Identifier: "i1@alfa.example", MsgID: "<c1@alfa.example>", Sender: "alice@alfa.example",
		Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}}, Subject: "Offerta \x1b[31m", Messages: []string{"m1@alfa.example"}, SendingProvider: "Alfa PEC S.p.A."}
	if _, err := store.Commit(context.Background(), logstore.Tx{At: pointstest.At, Acts: []logstore.Act{{Entry: entry}}}); err != nil {
		t.Fatal(err)
	}
	defer store.Close() // the daemon runs while the register is read
	for _, args := range [][]string{{"--identifier", "i1@alfa.example"}, {"--msgid", "<c1@alfa.example>"}, {"--msgid", "m1@alfa.example"}, {"--address", "Bob@beta.example"},
		{"--address", "alice@alfa.example", "--since", "2026-11-22", "--until", "2026-11-23"}, {"--since", "2026-11-22T10:45:37+01:00"}, {}} {
		code, out, errs := pecd(append([]string{"log", "search", "--config", s.config}, args...)...)
		if code != 0 || !strings.Contains(out, "i1@alfa.example") || strings.Contains(out, "\x1b") {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, errs)
		}
	}
	code, out, _ := pecd("log", "search", "--store", dir, "--json")
	var e logstore.Entry
	if err := json.Unmarshal([]byte(out), &e); code != 0 || err != nil || e.Identifier != "i1@alfa.example" || e.Seq == 0 {
		t.Errorf("exit %d, %v: %s", code, err, out)
	}
	for _, args := range [][]string{{"--identifier", "i2@alfa.example"}, {"--until", "2026-11-22"}, {"--address", "carl@beta.example"}} {
		if code, out, _ := pecd(append([]string{"log", "search", "--config", s.config}, args...)...); code != 1 || out != "" {
			t.Errorf("%v: exit %d\n%s", args, code, out)
		}
	}
}

func TestReplies(t *testing.T) {
	for c, code := range enhanced {
		if len(code) != 9 || code[0] != '5' || code[4] != '5' {
			t.Errorf("%s: %q", c, code)
		}
	}
}

// The tests are on a machine in a zone that is not that of the law. It is set before
// anything runs that reads it.
func init() { time.Local = time.FixedZone("elsewhere", -9*3600) }

// TestLogVerify: a register that is whole, one that was altered in its file, and
// words for who names days without saying whose.
func TestLogVerify(t *testing.T) {
	rome, err := time.LoadLocation("Europe/Rome")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t)
	dir := filepath.Join(s.dir, "store")
	store, err := logstore.Open(context.Background(), logstore.Options{Dir: dir, Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []pec.Identifier{"i1@alfa.example", "i2@alfa.example"} {
		e := logstore.Entry{At: pointstest.At, Type: "accettazione", Identifier: id, Sender: "alice@alfa.example", Recipients: []pec.Recipient{}, SendingProvider: "Alfa PEC S.p.A."}
		if _, err := store.Commit(context.Background(), logstore.Tx{At: pointstest.At, Acts: []logstore.Act{{Entry: e}}}); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errs := pecd("log", "verify", "--config", s.config)
	if code != 0 || !strings.Contains(out, "entries        1 to 2") || !strings.Contains(out, "chain          whole") || !strings.Contains(out, "not covered    1 to 2, "+pointstest.At.In(rome).Format(time.DateTime)+" to ") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", filepath.Join(dir, "pecd.db"))
	if err != nil {
		t.Fatal(err)
	}
	var drop []string
	rows, err := db.Query("SELECT name FROM sqlite_master WHERE type = 'trigger'")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		drop = append(drop, "DROP TRIGGER "+name)
	}
	for _, q := range append(drop, "UPDATE entry SET record = replace(record, 'alice', 'mario') WHERE seq = 1") {
		if _, err := db.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	code, out, errs = pecd("log", "verify", "--store", dir)
	if code != 1 || !strings.Contains(out, "BROKEN         entry 1") {
		t.Errorf("an altered register: exit %d\n%s%s", code, out, errs)
	}
	code, out, _ = pecd("log", "verify", "--store", dir, "--json")
	var v struct{ Sound bool }
	if err := json.Unmarshal([]byte(out), &v); code != 1 || err != nil || v.Sound {
		t.Errorf("exit %d, %v\n%s", code, err, out)
	}
	if code, _, errs := pecd("log", "verify", "--days", dir); code != 2 || !strings.Contains(errs, "--tsa-ca") {
		t.Errorf("exit %d\n%s", code, errs)
	}
}
