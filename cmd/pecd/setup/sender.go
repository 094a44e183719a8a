package setup

import (
	"fmt"
	"slices"
	"strings"
)

// senderChecks are the restrictions by which Postfix holds users who have logged in to
// addresses of their own. Of the others of that name reject_known_… lets pass what its
// table does not know, and reject_unauthenticated_… asks nobody who has logged in.
var senderChecks = []string{"reject_sender_login_mismatch", "reject_authenticated_sender_login_mismatch"}

// ChecksSender reports whether a list of restrictions holds each user to addresses of his
// own. What permits ends the list: a check that follows it is not reached by all.
func ChecksSender(restrictions string) bool {
	before := ""
	for _, r := range Words(strings.ToLower(restrictions)) {
		switch {
		case slices.Contains(senderChecks, r) && before != "warn_if_reject":
			return true
		case strings.HasPrefix(r, "permit"):
			return false
		}
		before = r
	}
	return false
}

// senders plans that Postfix holds the users of a submission service to addresses of
// their own, where access.sender_login leaves that to it. Without a table an address is
// nobody's: every user would be refused.
func (pl *planner) senders(s *Service) error {
	if !pl.want.MTAChecksSender {
		return nil
	}
	if pl.pf.In(s, "smtpd_sender_login_maps") == "" {
		return fmt.Errorf("%w: access.sender_login is \"mta\", and smtpd_sender_login_maps is empty for %s: every user would hear 553\n"+
			"  fix: name a table of addresses and their logins as smtpd_sender_login_maps, or set access.sender_login = \"match\"", ErrSenders, s.Key())
	}
	if old := pl.pf.In(s, "smtpd_sender_restrictions"); !ChecksSender(old) {
		pl.option(s, "smtpd_sender_restrictions", strings.TrimSuffix(senderChecks[1]+","+old, ","),
			"access.sender_login is \"mta\": Postfix must see that users send in their own name, before anything permits them to send")
	}
	return nil
}
