package host

import (
	"context"
	"fmt"
)

// Validate starts a plugin, asks it what it is and what is wrong with its
// settings, and ends it: for `pecd config check`. It needs Dir, Log and Now of
// opts, and knows Owner; the plugin gets no directory for its state.
func Validate(ctx context.Context, spec Spec, opts Options) (Description, []Problem, error) {
	spec, opts = spec.complete(), opts.complete()
	if err := spec.check(); err != nil {
		return Description{}, nil, err
	}
	sp := newSpawner()
	defer sp.close()
	ctx, cancel := context.WithTimeout(ctx, opts.StartTimeout)
	defer cancel()
	s, err := dial(ctx, spec, places{sockets: opts.Dir, owner: opts.Owner}, sp, opts.Log)
	if err != nil {
		return Description{}, nil, fmt.Errorf("plugin %s: %w", spec.Name, err)
	}
	defer s.end()
	problems, err := s.configure(ctx, true)
	if err != nil {
		return Description{}, nil, fmt.Errorf("plugin %s: %w", spec.Name, s.failed("Configure", err))
	}
	desc, err := s.describe(ctx, false)
	if err != nil {
		return desc, problems, fmt.Errorf("plugin %s: %w", spec.Name, s.failed("Describe", err))
	}
	return desc, problems, nil
}
