package conform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"reflect"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"pecd/plugins/host"
	"pecd/plugins/protocol"
)

// Set puts a setting, written "key=value" as on a command line, into table. A
// value is read as TOML if it is some, else as a string.
func Set(table map[string]any, setting string) error {
	key, value, ok := strings.Cut(setting, "=")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	if !ok || key == "" {
		return fmt.Errorf("%q is not key=value", setting)
	}
	var t struct{ V any }
	// A second line could hold a second setting.
	if _, err := toml.Decode("V = "+value, &t); err != nil || t.V == nil || strings.ContainsAny(value, "\r\n") {
		t.V = value
	}
	table[key] = t.V
	return nil
}

// handTime is how long a plugin that was started by hand has to say so.
const handTime = 5 * time.Second

// byHand starts the program as people do who do not know what it is.
func byHand(ctx context.Context, k *kit) error {
	ctx, cancel := context.WithTimeout(ctx, handTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, k.spec.Path)
	cmd.Dir, cmd.Env, cmd.WaitDelay = "/", []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"}, time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("it runs on for %v", handTime)
	case err == nil:
		return errors.New("it ends as if all were well, with the exit code 0")
	case !errors.As(err, &exit):
		return err
	case out.Len() > 0:
		return fmt.Errorf("it writes %.100q to standard output", out.String())
	case errs.Len() == 0:
		return errors.New("it says nothing on standard error")
	}
	return nil
}

func handshake(ctx context.Context, k *kit) error {
	desc, _, err := host.Validate(ctx, k.spec, k.opts)
	if err == nil {
		k.desc, k.state = desc, starts
	}
	return err
}

func describe(ctx context.Context, k *kit) error {
	d := k.desc
	for what, text := range map[string]string{"name": d.Name, "version": d.Version, "about": d.About, "sdk": d.SDK} {
		if strings.TrimSpace(text) == "" {
			return fmt.Errorf("its %s is empty", what)
		}
	}
	seen := make(map[string]bool)
	for _, key := range d.Keys {
		switch {
		case key.Name == "" || key.Type == "" || key.About == "":
			return fmt.Errorf("the setting %q lacks its name, type or purpose", key.Name)
		case len(key.Name) > protocol.MaxShort || len(key.Type) > protocol.MaxShort || len(key.About) > protocol.MaxText:
			return fmt.Errorf("the description of the setting %.40q is too long", key.Name)
		case seen[key.Name]:
			return fmt.Errorf("the setting %s is there twice", key.Name)
		}
		seen[key.Name] = true
	}
	again, _, err := host.Validate(ctx, k.spec, k.opts)
	again.Engine = d.Engine // it may change
	if err == nil && !reflect.DeepEqual(again, d) {
		return fmt.Errorf("it is first %+v and then %+v", d, again)
	}
	return err
}

// noSetting is a setting that no plugin has.
const noSetting = "there-is-no-such-setting"

func unknownSetting(ctx context.Context, k *kit) error {
	return k.wrong(ctx, noSetting, "x")
}

func wrongType(ctx context.Context, k *kit) error {
	if len(k.desc.Keys) == 0 {
		return skip("it has no settings")
	}
	// A list of tables is neither text nor number, nor a list of these, nor a table.
	for _, key := range k.desc.Keys {
		if err := k.wrong(ctx, key.Name, []any{map[string]any{noSetting: []any{}}}); err != nil {
			return err
		}
	}
	return nil
}

// wrong sets key to a value that it cannot have, and wants a problem about it.
func (k *kit) wrong(ctx context.Context, key string, value any) error {
	table := map[string]any{key: value}
	for other, v := range k.spec.Table {
		if other != key {
			table[other] = v
		}
	}
	_, list, err := host.Validate(ctx, k.with(table), k.opts)
	if err != nil {
		return err
	}
	for _, p := range list {
		if strings.EqualFold(p.Key, key) {
			if p.Why == "" {
				return fmt.Errorf("the problem with %s says nothing", key)
			}
			return nil
		}
	}
	if len(list) > 0 {
		return fmt.Errorf("%s = %v: no problem names it: %s", key, value, problems(list))
	}
	return fmt.Errorf("%s = %v is no problem to it", key, value)
}

func emptyTable(ctx context.Context, k *kit) error {
	_, list, err := host.Validate(ctx, k.with(nil), k.opts)
	for _, p := range list {
		if p.Why == "" {
			return fmt.Errorf("the problem with %q says nothing", p.Key)
		}
	}
	return err
}

func manyProblems(ctx context.Context, k *kit) error {
	table := make(map[string]any)
	for i := range 2 * protocol.MaxProblems {
		table[fmt.Sprintf("%s-%d", noSetting, i)] = strings.Repeat("x", i)
	}
	_, list, err := host.Validate(ctx, k.with(table), k.opts)
	if err == nil && len(list) == 0 {
		return errors.New("it sees none")
	}
	return err
}

func open(ctx context.Context, k *kit) error {
	if err := k.start(ctx); err != nil {
		return err
	}
	k.state = opens
	return nil
}

// start starts the plugin for the tests that ask it about messages.
func (k *kit) start(ctx context.Context) error {
	h, err := host.Start(ctx, []host.Spec{k.spec}, k.opts)
	if err != nil {
		return err
	}
	k.host = h
	s := h.Status()[0]
	k.desc, k.pid = s.Description, s.Pid
	return nil
}
