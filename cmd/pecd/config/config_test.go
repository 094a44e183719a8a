package config

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
)

// good writes a configuration that can be loaded and returns its file and text.
func good(t *testing.T) (string, string) {
	t.Helper()
	dir := t.TempDir()
	for _, f := range []string{"key.pem", "certificate.pem", "anchors.pem", "igpec.ldif.p7m"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.ReplaceAll(`[provider]
name = "Alfa PEC S.p.A."
domain = "alfa.example"
[signer]
key = "DIR/key.pem"
certificate = "DIR/certificate.pem"
[trust]
anchors = "DIR/anchors.pem"
[directory]
file = "DIR/igpec.ldif.p7m"
[access]
milter = "unix:/run/pecd/access.sock"
[reception]
lmtp = "inet:127.0.0.1:10032"
[delivery]
store = "unix:/run/dovecot/lmtp"
[courier]
mta = "inet:127.0.0.1:10033"
`, "DIR", dir)
	return write(t, dir, "pecd.toml", text), text
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestDefaults(t *testing.T) {
	file, _ := good(t)
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if c.Access.MaxSize != 100<<20 || c.Reception.MaxSize != 201<<20 || c.Access.MaxRecipients != 500 || c.Provider.Timezone != "Europe/Rome" ||
		c.Directory.Anchors != c.Trust.Anchors || c.Courier.Connections != 4 || c.Access.SocketMode != "0660" || c.Provider.Address() != "posta-certificata@alfa.example" {
		t.Errorf("%+v", c)
	}
}

// TestBad breaks one thing at a time; the error must name file, line, key and a
// way out.
func TestBad(t *testing.T) {
	tests := map[string]struct{ old, new, at, says string }{
		"unknown key":      {"name =", "nome =", ":2: provider.nome: unknown key", "did you mean provider.name?"},
		"unknown table":    {"[courier]", "[curier]", ":17: curier", "unknown key"},
		"wrong type":       {`name = "Alfa PEC S.p.A."`, "name = 7", ":2: provider.name", "incompatible types"},
		"syntax":           {`name = "Alfa`, `name = Alfa`, ":2: provider.name", "correct the line"},
		"missing":          {`name = "Alfa PEC S.p.A."`, "", "provider.name: missing", "providerName"},
		"no such file":     {"key.pem", "kei.pem", ":5: signer.key", "no such file"},
		"relative path":    {`file = "/`, `file = "`, ":10: directory.file", "not an absolute path"},
		"socket":           {"unix:/run/pecd/access.sock", "/run/pecd/access.sock", ":12: access.milter", "neither unix"},
		"relative socket":  {"unix:/run/pecd/access.sock", "unix:access.sock", ":12: access.milter", "not absolute"},
		"long socket":      {"/run/pecd/access.sock", "/" + strings.Repeat("x", 108), ":12: access.milter", "107"},
		"port":             {"inet:127.0.0.1:10032", "inet:127.0.0.1", ":14: reception.lmtp", "host:port"},
		"size too small":   {"[access]", "[access]\nmax_size = 1000", ":12: access.max_size", "30000000"},
		"few recipients":   {"[access]", "[access]\nmax_recipients = 49", ":12: access.max_recipients", "at least 50"},
		"sender login":     {"[access]", "[access]\nsender_login = \"any\"", ":12: access.sender_login", `"match" or "mta"`},
		"8-bit":            {"[access]", "[access]\neight_bit = \"drop\"", ":12: access.eight_bit", `"keep" or "convert"`},
		"gate tls":         {"[access]", "[gate]\ntls = \"maybe\"\n[access]", ":12: gate.tls", `"require"`},
		"brief hash":       {"[delivery]", "[delivery]\nbrief_hash = \"md5\"", ":16: delivery.brief_hash", "sha256"},
		"total too small":  {"[access]", "[access]\nmax_total = 1000", ":12: access.max_total", "30000000"},
		"notice size":      {"[access]", "[access]\nnotice_size = 40000000", ":12: access.notice_size", "max_size"},
		"mode":             {"[access]", "[access]\nsocket_mode = \"rw\"", ":12: access.socket_mode", "octal"},
		"timezone":         {"[signer]", "timezone = \"Mars\"\n[signer]", ":4: provider.timezone", "Europe/Rome"},
		"machine's zone":   {"[signer]", "timezone = \"Local\"\n[signer]", ":4: provider.timezone", "Europe/Rome"},
		"domain":           {`"alfa.example"`, `"x@alfa.example"`, ":3: provider.domain", "follows the @"},
		"reception size":   {"[reception]", "[reception]\nmax_size = 1000", ":14: reception.max_size", "smaller"},
		"connections":      {"[courier]", "[courier]\nconnections = 100", ":18: courier.connections", "64"},
		"level":            {"[signer]", "[log]\nlevel = \"loud\"\n[signer]", ":5: log.level", "debug"},
		"metrics":          {"[signer]", "[metrics]\nlisten = \"9325\"\n[signer]", ":5: metrics.listen", "host:port"},
		"plugin, no path":  {"[signer]", "[[plugin]]\nname = \"x\"\n[signer]", ":4: plugin.path", "absolute"},
		"plugin's name":    {"[signer]", "[[plugin]]\npath = \"/x/Check_1\"\n[signer]", ":4: plugin.name", "lower case"},
		"plugin twice":     {"[signer]", "[[plugin]]\npath = \"/a/x\"\n[[plugin]]\npath = \"/b/x\"\n[signer]", ":6: plugin.name", "taken already"},
		"plugin's sum":     {"[signer]", "[[plugin]]\npath = \"/a/x\"\nsha256 = \"12\"\n[signer]", ":4: plugin.sha256", "sha256sum"},
		"plugin's timeout": {"[signer]", "[[plugin]]\npath = \"/a/x\"\ntimeout = \"11m\"\n[signer]", ":4: plugin.timeout", "30s"},
		"plugin's reading": {"[signer]", "[[plugin]]\npath = \"/a/x\"\nread = [\"x\"]\n[signer]", ":4: plugin.read", "from /"},
		"plugin's key":     {"[signer]", "[[plugin]]\npath = \"/a/x\"\npaht = \"x\"\n[signer]", "plugin.paht: unknown key", "did you mean plugin.path?"},
		"two keys":         {"[trust]", "pkcs12 = \"/dev/null\"\n[trust]", ":7: signer.pkcs12", "keep one of them"},
		"no token":         {"[signer]\nkey = \"", "[signer]\nkey_label = \"k\"\npin_credential = \"p\"\nmodule = \"", "signer.token: missing", "serial"},
		"renewal, no date": {"[trust]", "[signer.next]\nkey = \"/dev/null\"\ncertificate = \"/dev/null\"\n[trust]", "signer.next.from: missing", "instant"},
		"ocsp":             {"[trust]", "[trust]\nocsp = \"yes\"", ":8: trust.ocsp", "fallback"},
		"unknown":          {"[trust]", "[trust]\nunknown = \"drop\"", ":8: trust.unknown", "defer"},
		"grace":            {"[trust]", "[trust]\ngrace = \"long\"", ":8: trust.grace", "6h"},
		"crl":              {"[trust]", "[trust]\ncrl_urls = [\"ldap://x\"]", ":8: trust.crl_urls", "http"},
		"file and url":     {"[directory]", "[directory]\nurl = \"https://x/\"", ":10: directory.url", "keep one of them"},
		"url":              {"[directory]\nfile", "[directory]\nurl = \"http://x/\"\n#file", ":10: directory.url", "HTTPS"},
		"half a client":    {"[directory]", "[directory]\nclient_key = \"/dev/null\"", "directory.client_certificate", "belong together"},
		"interval":         {"[directory]", "[directory]\ninterval = \"100h\"", ":10: directory.interval", "daily"},
		"loss":             {"[directory]", "[directory]\nmax_loss = 2.0", ":10: directory.max_loss", "between 0 and 1"},
		"one socket twice": {"[access]", "[gate]\nmilter = \"unix:/run/pecd/access.sock\"\n[access]", "gate.milter", "is access.milter already"},
		"a table twice":    {"[access]", "[access]\n[store]\n[store]\n", "has already been defined", "remove the other"},
		"one plugin":       {"[signer]", "[plugin]\npath = \"/a/x\"\n[signer]", "plugin: incompatible types", "write [[plugin]]"},
		"table misspelt":   {"[courier]", "[curier]", ":17: curier", "did you mean courier?"},
		"seal's authority": {"[signer]", "[seal]\ntsa = [\"tsa.example\"]\n[signer]", ":5: seal.tsa", "whole address"},
		"seal's anchors":   {"[signer]", "[seal]\ntsa = [\"http://tsa.example/\"]\n[signer]", "seal.tsa_anchors: missing", "path of the file"},
		"password, no TLS": {"[signer]", "[seal]\ntsa = [\"http://tsa.example/\"]\ntsa_anchors = \"/dev/null\"\ntsa_user = \"u\"\ntsa_password_file = \"/dev/null\"\n[signer]", ":7: seal.tsa_user", "https"},
		"no password":      {"[signer]", "[seal]\ntsa = [\"https://tsa.example/\"]\ntsa_anchors = \"/dev/null\"\ntsa_user = \"u\"\n[signer]", "seal.tsa_password_file: missing", ""},
		"seal's path":      {"[signer]", "[seal]\npath = \"seals\"\n[signer]", ":5: seal.path", "absolute"},
		"seal after":       {"[signer]", "[seal]\nafter = \"13h\"\n[signer]", ":5: seal.after", "10m"},
		"seal late":        {"[signer]", "[seal]\nlate = \"soon\"\n[signer]", ":5: seal.late", "6h"},
		"seal's key":       {"[signer]", "[seal]\nurl = \"http://x/\"\n[signer]", ":5: seal.url", "unknown key"},
		"witness interval": {"[signer]", "[witness]\ninterval = \"1s\"\n[signer]", ":5: witness.interval", "15m"},
		"witness, no TSA":  {"[signer]", "[witness]\ntimestamp = true\n[signer]", ":5: witness.timestamp", "seal.tsa"},
		"witness syslog":   {"[signer]", "[witness]\nsyslog = \"log.example:514\"\n[signer]", ":5: witness.syslog", "tls:"},
		"witness http":     {"[signer]", "[witness]\nhttp = \"witness.example\"\n[signer]", ":5: witness.http", "whole address"},
		"witness receipts": {"[signer]", "[witness]\nreceipts = \"yes\"\n[signer]", ":5: witness.receipts", "incompatible types"},
		"time server":      {"[signer]", "[time]\nntp = [\"\"]\n[signer]", ":5: time.ntp", "host:port"},
		"time offset":      {"[signer]", "[time]\non_offset = \"stop\"\n[signer]", ":5: time.on_offset", "refuse"},
		"time interval":    {"[signer]", "[time]\ninterval = \"0s\"\n[signer]", ":5: time.interval", "5m"},
		"store not a path": {"[signer]", "[store]\npath = \"x\"\n[signer]", ":5: store.path", "absolute"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			file, text := good(t)
			if !strings.Contains(text, tt.old) {
				t.Fatalf("%q is not in the text", tt.old)
			}
			write(t, filepath.Dir(file), "pecd.toml", strings.Replace(text, tt.old, tt.new, 1))
			_, err := Load(file)
			if err == nil {
				t.Fatal("loaded")
			}
			if !errors.Is(err, ErrConfig) {
				t.Errorf("not a configuration error: %v", err)
			}
			for _, want := range []string{file, tt.at, tt.says} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
		})
	}
}

func TestConfD(t *testing.T) {
	file, _ := good(t)
	write(t, filepath.Dir(file), "conf.d/10-limits.toml", "[access]\nmax_recipients = 1000\n")
	c, err := Load(file)
	if err != nil || c.Access.MaxRecipients != 1000 {
		t.Fatalf("%v %+v", err, c)
	}
	write(t, filepath.Dir(file), "conf.d/20-again.toml", "[access]\nmax_recipients = 2000\n")
	_, err = Load(file)
	if err == nil || !strings.Contains(err.Error(), "20-again.toml:2: access.max_recipients: set already in") {
		t.Errorf("set twice: %v", err)
	}
}

// TestPlugins: the tables of all files count, one after the other.
func TestPlugins(t *testing.T) {
	file, text := good(t)
	write(t, filepath.Dir(file), "pecd.toml", text+"[[plugin]]\npath = \"/usr/lib/clamav\"\n[plugin.settings]\nsocket = \"x\"\n[[plugin]]\nname = \"b\"\npath = \"/x/b\"\n")
	write(t, filepath.Dir(file), "conf.d/10-c.toml", "plugin = [{path = \"/usr/lib/countersign\", timeout = \"3m\"}]\n")
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Plugins) != 3 || c.Plugins[0].Name != "clamav" || c.Plugins[0].Settings["socket"] != "x" || c.Plugins[0].Wait() != 30*time.Second ||
		c.Plugins[1].Name != "b" || c.Plugins[2].Name != "countersign" || c.Plugins[2].Wait() != 3*time.Minute || c.Plugins[2].Origin.Line != 1 {
		t.Errorf("%+v", c.Plugins)
	}
}

// TestPluginsReach: no table of a plugin opens what is pecd's own, by whichever
// way.
func TestPluginsReach(t *testing.T) {
	file, text := good(t)
	dir := filepath.Dir(file)
	store, elsewhere := filepath.Join(t.TempDir(), "store"), t.TempDir()
	link := filepath.Join(elsewhere, "link")
	if err := errors.Join(os.MkdirAll(filepath.Join(store, "rules"), 0o700), os.Symlink(store, link)); err != nil {
		t.Fatal(err)
	}
	password := filepath.Join(elsewhere, "secrets", "password")
	write(t, elsewhere, "secrets/password", "x")
	seals := filepath.Join(elsewhere, "seals")
	text = strings.Replace(text, "[trust]", "[seal]\npath = \""+seals+"\"\ntsa = [\"https://tsa.example/\"]\ntsa_user = \"u\"\ntsa_password_file = \""+password+"\"\ntsa_anchors = \"/dev/null\"\n[store]\npath = \""+store+"\"\n[trust]", 1)
	for name, c := range map[string]struct{ key, path, read, says string }{
		"fine":                      {"", "/usr/lib/pecd/plugins/x", elsewhere + "/words", ""},
		"a name that begins alike":  {"", "/usr/lib/pecd/plugins/x", store + "-of-others", ""},
		"beside the configuration":  {"path", filepath.Join(dir, "x"), "", "the configuration"},
		"in the store":              {"path", filepath.Join(store, "x"), "", "the store"},
		"in a directory in it":      {"path", filepath.Join(store, "rules", "x"), "", "the store"},
		"at the root":               {"path", "/x", "", "the store"},
		"reads the store by a link": {"read", "/usr/lib/pecd/plugins/x", link, "the store"},
		"what is yet to be there":   {"read", "/usr/lib/pecd/plugins/x", filepath.Join(link, "later", "words"), "the store"},
		"reads the sealed days":     {"read", "/usr/lib/pecd/plugins/x", filepath.Join(seals, "2026"), "the sealed days"},
		"beside the sealed days":    {"path", filepath.Join(seals, "x"), "", "the sealed days"},
		"reads all":                 {"read", "/usr/lib/pecd/plugins/x", "/", "the store"},
		"reads the password":        {"read", "/usr/lib/pecd/plugins/x", password, "the time stamp's password"},
		"beside the password":       {"path", filepath.Join(elsewhere, "secrets", "x"), "", "the time stamp's password"},
	} {
		write(t, dir, "pecd.toml", text+fmt.Sprintf("[[plugin]]\nname = \"x\"\npath = %q\nread = [%q]\n", c.path, cmp.Or(c.read, "/usr/share/x")))
		_, err := Load(file)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), "plugin."+c.key+": ") || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want plugin.%s: %s", name, err, c.key, c.says)
		}
	}
}

func TestNoFile(t *testing.T) {
	_, err := Load("/nonexistent/pecd.toml")
	if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "fix:") {
		t.Errorf("%v", err)
	}
}

// TestExample wants every key in the example, and no other.
func TestExample(t *testing.T) {
	var c Config
	meta, err := toml.DecodeFile("../../../packaging/pecd.toml", &c)
	if err != nil {
		t.Fatal(err)
	}
	if u := meta.Undecoded(); len(u) > 0 {
		t.Errorf("unknown keys in the example: %v", u)
	}
	shown := map[string]bool{}
	for _, k := range meta.Keys() {
		shown[k.String()] = true
	}
	text, err := os.ReadFile("../../../packaging/pecd.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range Keys() {
		// What is renewed once in three years stands there as a comment.
		if _, next, ok := strings.Cut(k, "signer.next."); ok && (shown["signer."+next] || strings.Contains(string(text), "\n#"+next+" = ")) {
			continue
		}
		if !shown[k] {
			t.Errorf("the example lacks %s", k)
		}
	}
}
