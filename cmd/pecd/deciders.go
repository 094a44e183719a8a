package main

import (
	"context"
	"strings"

	"pecd/plugins/host"
	"pecd/points"
	"pecd/points/access"
	"pecd/points/delivery"
	"pecd/points/reception"
)

// deciders are the three points of an installation, each the built-in one or a
// plugin that takes its place, and the checks that look before they decide.
type deciders struct {
	access    access.Point
	reception reception.Point
	delivery  delivery.Point
	checks    *host.Host // nil: none
}

// decidersOf returns the points and checks that h runs, and the built-in points
// for the rest.
func decidersOf(h *host.Host) deciders {
	d := deciders{access: access.Builtin{}, reception: reception.Builtin{}, delivery: delivery.Builtin{}, checks: h}
	if h == nil {
		return d
	}
	if p := h.Access(); p != nil {
		d.access = p
	}
	if p := h.Reception(); p != nil {
		d.reception = p
	}
	if p := h.Delivery(); p != nil {
		d.delivery = p
	}
	return d
}

// look asks the checks of a stage; nothing if there are none.
func (d deciders) look(ctx context.Context, stage points.Stage, q host.Question) []points.Finding {
	if d.checks == nil {
		return nil
	}
	return d.checks.Check(ctx, stage, q)
}

// has reports whether a check looks at the stage.
func (d deciders) has(stage points.Stage) bool { return d.checks != nil && d.checks.Checks(stage) }

// describe names the checks that found something, for the log.
func describe(findings []points.Finding) string {
	var s []string
	for _, f := range findings {
		if f.Says != points.Clean {
			s = append(s, f.Check+": "+f.Says.String())
		}
	}
	return strings.Join(s, ", ")
}
