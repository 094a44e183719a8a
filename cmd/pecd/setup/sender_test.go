package setup

import (
	"errors"
	"strings"
	"testing"
)

// TestChecksSender: what holds every user to addresses of his own, and what only looks so.
func TestChecksSender(t *testing.T) {
	for list, want := range map[string]bool{
		"":                             false,
		"reject_sender_login_mismatch": true,
		"reject_authenticated_sender_login_mismatch, permit_mynetworks":               true,
		"reject_non_fqdn_sender reject_SENDER_login_mismatch":                         true,
		"permit_sasl_authenticated,reject_sender_login_mismatch":                      false,
		"reject_unauthenticated_sender_login_mismatch":                                false,
		"reject_known_sender_login_mismatch":                                          false,
		"warn_if_reject reject_sender_login_mismatch":                                 false,
		"check_sender_access inline:{ { x = permit } }, reject_sender_login_mismatch": true,
	} {
		if got := ChecksSender(list); got != want {
			t.Errorf("%q: %t", list, got)
		}
	}
}

// TestSenders: the check that sender_login leaves to Postfix comes before what permits,
// and is not set up where no table answers it: every user would be refused.
func TestSenders(t *testing.T) {
	const service = "submission/inet"
	for name, c := range map[string]struct{ main, option, want string }{
		"no table":             {"", "", ""},
		"an empty one":         {"smtpd_sender_login_maps = inline:{ { a = a } }\n", "  -o smtpd_sender_login_maps=\n", ""},
		"no table, checked":    {"", "  -o smtpd_sender_restrictions=reject_sender_login_mismatch\n", ""},
		"a table":              {"smtpd_sender_login_maps = inline:{ { a = a } }\n", "", "reject_authenticated_sender_login_mismatch"},
		"one of the service's": {"", "  -o smtpd_sender_login_maps=static:a\n", "reject_authenticated_sender_login_mismatch"},
		"users permitted": {"smtpd_sender_login_maps = static:a\nsmtpd_sender_restrictions = permit_mynetworks, permit_sasl_authenticated\n", "",
			"reject_authenticated_sender_login_mismatch,permit_mynetworks, permit_sasl_authenticated"},
		"checked": {"smtpd_sender_login_maps = static:a\n", "  -o smtpd_sender_restrictions=reject_sender_login_mismatch\n", "reject_sender_login_mismatch"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := instance(t, c.main, "smtp inet n - n - - smtpd\nsubmission inet n - n - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n"+c.option+base)
			w := wants()
			w.MTAChecksSender = true
			p := read(t, dir)
			pl, err := p.Plan(t.Context(), w)
			if c.want == "" {
				if !errors.Is(err, ErrSenders) || !strings.Contains(err.Error(), service) || !strings.Contains(err.Error(), `access.sender_login = "match"`) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := p.In(p.Service("submission", "inet"), "smtpd_sender_restrictions")
			for _, e := range pl.Services {
				if v, ok := e.service.Option("smtpd_sender_restrictions"); ok && e.Key == service {
					got = v
				}
			}
			if got != c.want {
				t.Errorf("smtpd_sender_restrictions is %q, want %q", got, c.want)
			}
		})
	}
}
