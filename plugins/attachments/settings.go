package main

import (
	"errors"
	"path"
	"slices"
	"strings"

	"pecd/plugins/sdk"
	"pecd/points"
)

// settings are the plugin's table; keys is what they mean.
type settings struct {
	Names      []string       `json:"names"`
	Types      []string       `json:"types"`
	Zip        bool           `json:"zip"`
	Encrypted  answer         `json:"encrypted"`
	Unreadable answer         `json:"unreadable"`
	Stages     []points.Stage `json:"stages"`
}

// An answer is what is done about something.
type answer string

const (
	refuse answer = "refuse"
	allow  answer = "allow"
)

// executables are names of what Windows runs when somebody opens it.
const executables = "*.ade *.adp *.apk *.appx *.bat *.chm *.cmd *.com *.cpl *.dll *.exe *.hta *.ins *.isp *.jar *.js *.jse *.lnk " +
	"*.mde *.msc *.msi *.msix *.msp *.mst *.pif *.ps1 *.psm1 *.reg *.scf *.scr *.sct *.shb *.sys *.vb *.vbe *.vbs *.vxd *.wsc *.wsf *.wsh"

// programs are the media types of the same.
const programs = "application/x-dosexec application/x-msdos-program application/x-msdownload application/vnd.microsoft.portable-executable " +
	"application/hta application/x-ms-shortcut"

func defaults() settings {
	return settings{
		Names:      strings.Fields(executables),
		Types:      strings.Fields(programs),
		Zip:        true,
		Encrypted:  allow,
		Unreadable: refuse,
		Stages:     []points.Stage{points.Submission},
	}
}

var keys = []sdk.Key{
	{Name: "names", Type: "list of strings", Default: list(executables),
		About: "file names that are refused: * is any text, ? any character, [a-z] any of these; upper and lower case are the same. Paths and blanks or dots at the end do not count"},
	{Name: "types", Type: "list of strings", Default: list(programs),
		About: "media types that are refused, written like names, for example application/x-*; it is the sender who says of which type a part is"},
	{Name: "zip", Type: "boolean", Default: "true",
		About: "whether names in zip archives count too, and in archives in these, down to the third; whatever begins like a zip archive is one, office documents too"},
	{Name: "encrypted", Type: `string, "refuse" or "allow"`, Default: `"allow"`,
		About: "what happens to a zip archive with encrypted files; their names can be read, but archives among them cannot"},
	{Name: "unreadable", Type: `string, "refuse" or "allow"`, Default: `"refuse"`,
		About: "what happens to a message that cannot be read whole: a broken archive, over 1,000 parts, 10 messages in each other, 10,000 names in archives, 64 MiB of archives in archives"},
	{Name: "stages", Type: `list of strings, of "submission", "incoming", "delivery"`, Default: `["submission"]`,
		About: "at which moments messages are looked at. Certified mail of others is by default delivered whatever it carries"},
}

// list writes words as a list of the configuration.
func list(words string) string {
	return `["` + strings.Join(strings.Fields(words), `", "`) + `"]`
}

// check returns what is wrong with s, all of it.
func (s settings) check(c sdk.Config) error {
	var all []error
	wrong := func(is bool, key, why, fix string) {
		if is {
			all = append(all, c.Problem(key, why, fix))
		}
	}
	for key, patterns := range map[string][]string{"names": s.Names, "types": s.Types} {
		for _, p := range patterns {
			_, err := path.Match(p, "")
			wrong(err != nil || p == "", key, "there is a pattern that is none", `write for example "*.exe"; a [ needs its ]`)
		}
	}
	for key, a := range map[string]answer{"encrypted": s.Encrypted, "unreadable": s.Unreadable} {
		wrong(a != refuse && a != allow, key, "there is no such choice", `write "refuse" or "allow"`)
	}
	wrong(len(s.Stages) == 0, "stages", "there is none", `write for example ["submission"]`)
	for _, stage := range s.Stages {
		wrong(!slices.Contains(points.Stages, stage), "stages", "there is no such stage", `the stages are "submission", "incoming" and "delivery"`)
	}
	return errors.Join(all...)
}
