package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"sort"
	"strings"
	"time"

	"pecd/plugins/protocol"
)

// A Config is the plugin's table of pecd's configuration, with what belongs to
// it.
type Config struct {
	name  string
	table map[string]json.RawMessage
	dry   bool
	keys  []Key
	log   *slog.Logger
}

// NewConfig returns a Config with the given table, a JSON object, for tests of
// plugins.
func NewConfig(table string, dry bool) (Config, error) {
	c := Config{dry: dry, log: slog.Default()}
	return c, c.read([]byte(table))
}

func (c *Config) read(table []byte) error {
	if len(bytes.TrimSpace(table)) == 0 {
		return nil
	}
	if err := json.Unmarshal(table, &c.table); err != nil {
		return fmt.Errorf("the table is not a JSON object: %w", err)
	}
	return nil
}

// Name is the plugin's name in pecd's configuration.
func (c Config) Name() string { return c.name }

// Dry reports whether this is only `pecd config check`: no message will come.
func (c Config) Dry() bool { return c.dry }

// Log is the plugin's log, which pecd takes into its own.
func (c Config) Log() *slog.Logger { return c.log }

// State is a directory of the plugin's own that outlives it, empty if it was not
// started by pecd.
func (c Config) State() string { return os.Getenv(protocol.EnvState) }

// A Problem is one thing that is wrong with the settings; it is an error.
type Problem struct {
	Key string // the setting; empty if it is not about one
	Why string // what is wrong with it
	Fix string // what to do about it; may be empty
}

func (p Problem) Error() string {
	s := p.Why
	if p.Key != "" {
		s = p.Key + ": " + s
	}
	if p.Fix != "" {
		s += "; " + p.Fix
	}
	return s
}

// Problem returns the error that the setting key is wrong. errors.Join makes one
// of several.
func (c Config) Problem(key, why, fix string) error { return Problem{key, why, fix} }

// Decode stores the table in *t, a struct. A setting goes to the field whose
// json tag is its name, or whose name it is without regard to case. What is not
// set leaves its field as it is, so that t can hold the defaults. Settings
// without a field and values of another type are problems, all of them told
// together. Durations belong in a Duration.
func (c Config) Decode(t any) error {
	v := reflect.ValueOf(t)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return errors.New("sdk: Decode needs a pointer to a struct")
	}
	fields := settable(v.Elem())
	var problems []error
	for _, key := range sorted(c.table) {
		field, ok := fields[strings.ToLower(key)]
		if !ok {
			problems = append(problems, Problem{key, "there is no such setting", "the settings are: " + strings.Join(sorted(fields), ", ")})
			continue
		}
		d := json.NewDecoder(bytes.NewReader(c.table[key]))
		d.DisallowUnknownFields()
		if err := d.Decode(field.Addr().Interface()); err != nil {
			problems = append(problems, Problem{key, wrong(err), c.wanted(key, field.Type())})
		}
	}
	return errors.Join(problems...)
}

// settable are the fields of v by the names that settings have, in lower case.
func settable(v reflect.Value) map[string]reflect.Value {
	fields := make(map[string]reflect.Value)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		fields[strings.ToLower(name)] = v.Field(i)
	}
	return fields
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// wrong says what the decoder found, in words that do not speak of Go.
func wrong(err error) string {
	var te *json.UnmarshalTypeError
	switch {
	case errors.As(err, &te) && te.Field != "":
		return fmt.Sprintf("%s holds a %s", te.Field, te.Value)
	case errors.As(err, &te):
		return fmt.Sprintf("it holds a %s", te.Value)
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// wanted says what the setting must be, in the plugin's own words if it has some.
func (c Config) wanted(key string, t reflect.Type) string {
	for _, k := range c.keys {
		if strings.EqualFold(k.Name, key) && k.Type != "" {
			return "it must be: " + k.Type
		}
	}
	return "it must be: " + t.String()
}

// A Duration is a setting such as "90s" or "24h".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 90s or 24h", b)
	}
	*d = Duration(v)
	return nil
}

func (d Duration) String() string { return time.Duration(d).String() }
