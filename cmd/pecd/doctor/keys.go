package doctor

import (
	"regexp"
	"strings"
	"time"

	"pecd/signer"
)

const (
	directoryOld  = 48 * time.Hour // it is looked for daily; RFC 6109, 4.5
	directoryDead = 7 * 24 * time.Hour
)

// table finds the key of the configuration that an error is about.
var table = regexp.MustCompile(`(?m)^[^\n]*: ((?:signer|trust|directory|provider)(?:\.[a-z0-9_]+)+): `)

// keys looks at keys, certificates and what others publish.
func (v *visit) keys() {
	if v.LoadErr != nil {
		v.add(loadFinding(v.LoadErr.Error()), text(v.LoadErr))
	}
	if v.Loaded == nil {
		return
	}
	for _, c := range v.Loaded.Certificates {
		for _, f := range signer.CheckProfile(c, v.Now) {
			id, severity := "certificate-profile", Severity(f.Severity)
			if strings.Contains(f.What, "expire") {
				id = "certificate-ends"
			}
			v.found = append(v.found, Finding{ID: id, Severity: severity, What: c.Subject.String() + ": " + f.What, Why: f.Why, Fix: f.Fix})
		}
	}
	v.directory()
	v.revocation()
}

// private looks whether the daemon can read what nobody else may.
func (v *visit) private() {
	for _, f := range v.Config.Foreign() {
		v.add("private-owner", f.Key+": "+f.What())
		v.found[len(v.found)-1].Fix = f.Fix()
	}
}

// loadFinding says which finding an error of loading is.
func loadFinding(err string) string {
	m := table.FindStringSubmatch(err)
	key := ""
	if m != nil {
		key = m[1]
	}
	switch {
	case strings.Contains(err, "is not in the directory"), strings.HasPrefix(key, "provider."):
		return "not-in-directory"
	case strings.HasPrefix(key, "directory."):
		return "directory-unreadable"
	case strings.HasPrefix(key, "trust."):
		return "trust"
	case strings.HasSuffix(key, ".module"):
		return "hsm"
	case strings.Contains(err, "expire"):
		return "certificate-ends"
	case strings.HasPrefix(key, "signer."):
		return "key"
	}
	return "load"
}

// directory looks how old the directory is.
func (v *visit) directory() {
	l, checked := v.Loaded, v.Loaded.Index.Checked
	if l.Directory == nil || checked.IsZero() {
		return
	}
	at := checked.UTC().Format(time.DateTime)
	old, dead, what := "directory-old", "directory-dead", "the directory of providers was last known to be current on "+at
	if f := v.Config.Directory.File; f != "" { // pecd directory update would read the same again
		old, dead, what = "directory-file-old", "directory-file-dead", "directory.file: "+f+" was last written on "+at
	}
	switch age := v.Now.Sub(checked); {
	case age > directoryDead:
		v.add(dead, what)
	case age > directoryOld:
		v.add(old, what)
	}
}

// revocation looks at the lists of revoked certificates.
func (v *visit) revocation() {
	for _, s := range v.Loaded.Revocation {
		switch {
		case s.ThisUpdate.IsZero() && s.Err != nil:
			v.add("crl-missing", "%s: %s", s.Source, text(s.Err))
		case !s.NextUpdate.IsZero() && v.Now.After(s.NextUpdate.Add(v.Config.Trust.GraceTime())):
			v.add("crl-expired", "%s: the list ended on %s", s.Source, s.NextUpdate.UTC().Format(time.DateTime))
		case s.Failures > 0 && s.Err != nil:
			v.add("crl-failing", "%s: %d fetches failed: %s", s.Source, s.Failures, text(s.Err))
		}
	}
}
