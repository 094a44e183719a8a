package stage

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Env describes a running stage to people and to programs in other languages:
// the content of .demo/env.json. Its JSON keys are a contract with the outside.
type Env struct {
	Providers []EnvProvider `json:"providers"`
	Ordinary  EnvOrdinary   `json:"ordinary"`
	CA        string        `json:"ca"`
	TLSCA     string        `json:"tls_ca"`
	Directory string        `json:"directory"`
}

// EnvProvider is one provider of an Env. Paths are absolute.
type EnvProvider struct {
	Name             string  `json:"name"`
	Domain           string  `json:"domain"`
	Config           string  `json:"config"`
	Pecd             EnvPecd `json:"pecd"`
	SMTP             string  `json:"smtp"`
	Submission       string  `json:"submission"`
	SubmissionTLS    bool    `json:"submission_tls"`
	IMAP             string  `json:"imap"`
	Metrics          string  `json:"metrics"`
	Users            []User  `json:"users"`
	ServiceMailbox   User    `json:"service_mailbox"`
	Certificate      string  `json:"certificate"`
	PostfixConfigDir string  `json:"postfix_config_dir"`     // empty: the MTA is Sendmail
	SendmailDir      string  `json:"sendmail_dir,omitempty"` // of sendmail.mc and sendmail.cf
}

// EnvPecd is the pecd of one provider.
type EnvPecd struct {
	Bin   string   `json:"bin"`
	PID   int      `json:"pid"`
	Start []string `json:"start"` // argv
	Store string   `json:"store"`
	Log   string   `json:"log"`
}

// EnvOrdinary is the ordinary mail server of an Env.
type EnvOrdinary struct {
	Domain string `json:"domain"`
	SMTP   string `json:"smtp"`
	IMAP   string `json:"imap"`
	Users  []User `json:"users"`
}

// Env returns the description of the stage as it runs now.
func (s *Stage) Env() Env {
	e := Env{CA: s.CA, TLSCA: s.TLSCA, Directory: s.Directory}
	for _, p := range s.Providers() {
		e.Providers = append(e.Providers, p.env())
	}
	o := s.Ordinary
	e.Ordinary = EnvOrdinary{Domain: o.Domain, SMTP: o.SMTP, IMAP: o.IMAP, Users: o.Users}
	return e
}

func (p *Provider) env() EnvProvider {
	dir := ""
	if p.Sendmail != nil {
		dir = p.Sendmail.Home
	}
	return EnvProvider{
		Name: p.Name, Domain: p.Domain, Config: p.Pecd.ConfigFile,
		Pecd: EnvPecd{
			Bin: p.Pecd.Bin, PID: p.Pecd.PID(), Start: p.Pecd.start(),
			Store: p.Pecd.Config.Store.Path, Log: p.Pecd.Log,
		},
		SMTP: p.SMTP, Submission: p.Submission, SubmissionTLS: true,
		IMAP: p.IMAP, Metrics: p.Pecd.Config.Metrics.Listen,
		Users: p.Users, ServiceMailbox: p.Service[0],
		Certificate: p.Certificate, PostfixConfigDir: p.PostfixDir, SendmailDir: dir,
	}
}

// WriteEnv writes Env to file at once: a reader sees all of it or nothing. The
// file holds passwords and is for its owner alone.
func (s *Stage) WriteEnv(file string) error { return writeJSON(file, s.Env()) }

func writeJSON(file string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // after the rename there is nothing left to remove
	if _, err := tmp.Write(append(b, '\n')); err != nil {
		_ = tmp.Close()
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
