package verify

import (
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"pecd/pec"
)

// people is how instants are written for people, in the legal time of Italy.
const people = "2006-01-02 15:04:05 -0700"

// kindNames are the English names of the kinds, for people.
var kindNames = map[string]string{
	string(pec.KindTransport):     "transport envelope (busta di trasporto)",
	string(pec.KindAcceptance):    "acceptance receipt (ricevuta di accettazione)",
	string(pec.KindNonAcceptance): "non-acceptance notice (avviso di non accettazione)",
	string(pec.KindTakeCharge):    "take-charge receipt (ricevuta di presa in carico)",
	string(pec.KindDelivery):      "delivery receipt (ricevuta di avvenuta consegna)",
	string(pec.KindNonDelivery):   "non-delivery notice (avviso di mancata consegna)",
	string(pec.KindTimeout):       "timeout notice (avviso di mancata consegna per superamento dei tempi massimi)",
	string(pec.KindVirus):         "virus notice (avviso di rilevazione virus)",
	kindAnomaly:                   "anomaly envelope (busta di anomalia)",
	kindOrdinary:                  "ordinary mail, or no longer recognisable as certified mail",
}

// A page is text for people, its fields aligned.
type page struct{ strings.Builder }

func (p *page) title(text string) { fmt.Fprintf(p, "%s\n", plain(text)) }

func (p *page) field(name, format string, args ...any) {
	fmt.Fprintf(p, "  %-12s %s\n", name, plain(fmt.Sprintf(format, args...)))
}

// fields writes one field a line, the name only before the first.
func (p *page) fields(name string, lines []string) {
	for i, l := range lines {
		if i == maxLines {
			p.field("", "and %d more", len(lines)-i)
			return
		}
		p.field(name, "%s", l)
		name = ""
	}
}

// maxLines bounds what is printed of one list.
const maxLines = 200

// String is the verdict for people: first whether it holds and why not, then
// what it says, then by whom.
func (v *Verdict) String() string {
	var p page
	word := "VALID"
	if !v.Valid {
		word = "NOT VALID"
	}
	p.title(v.place() + ": " + word)
	p.fields("problem", v.Problems)
	if s := v.Signature; s == nil || !s.Genuine || !s.Intact {
		p.field("unproven", "no signature vouches for what follows; it is only what the file says")
	}
	p.field("what", "%s", kindNames[v.Kind])
	if v.Identifier != "" {
		v.data(&p)
	}
	if s := v.Signature; s != nil {
		v.signature(&p, s)
	}
	p.fields("note", v.Notes)
	return p.String()
}

// data prints the certification data.
func (v *Verdict) data(p *page) {
	p.field("instant", "%s", v.Instant.Format(people))
	p.field("provider", "%s", v.Provider)
	if v.Recipient != "" {
		p.field("about", "%s", v.Recipient)
	}
	taken := make([]string, len(v.Taken))
	for i, a := range v.Taken {
		taken[i] = string(a)
	}
	p.fields("taken", taken)
	if v.Detail != "" {
		p.field("detail", "%s", v.Detail)
	}
	p.field("from", "%s", v.Sender)
	to := make([]string, len(v.Recipients))
	for i, a := range v.Recipients {
		to[i] = fmt.Sprintf("%s (%s)", a.Address, a.Type)
	}
	p.fields("to", to)
	p.field("subject", "%s", v.Subject)
	p.field("identifier", "%s", v.Identifier)
	if v.MsgID != "" {
		p.field("message-id", "%s", v.MsgID)
	}
	if v.Original != nil {
		p.field("original", "%d octets, SHA-256 %s", v.Original.Size, v.Original.SHA256)
	}
}

// unknownName is an attribute of a name as crypto/x509 writes it when it does not
// know the type.
var unknownName = regexp.MustCompile(`2\.5\.4\.97=#([0-9a-f]+)`)

// readable returns the name of a certificate with the number of the organization
// (X.520, 6.2.10), which providers have in theirs, in clear.
func readable(name string) string {
	return unknownName.ReplaceAllStringFunc(name, func(s string) string {
		der, err := hex.DecodeString(s[strings.IndexByte(s, '#')+1:])
		if err != nil {
			return s
		}
		var text string
		if rest, err := asn1.Unmarshal(der, &text); err != nil || len(rest) > 0 {
			return s
		}
		return "organizationIdentifier=" + text
	})
}

// origins are the words for Verdict.JudgedBy.
var origins = map[string]string{
	byCertified:   "the instant that the message certifies",
	bySigningTime: "the time at which the signer says that it signed",
	byOption:      "as asked with --at",
}

func (v *Verdict) signature(p *page, s *Signature) {
	p.field("signature", "%s, %s", say(s.Genuine, "genuine", "NOT genuine"), say(s.Intact, "content intact", "content ALTERED"))
	if s.SigningTime != nil {
		p.field("signed at", "%s, digest %s", s.SigningTime.Format(people), s.Digest)
	}
	if s.Signer != "" || s.Serial != "" {
		p.field("signed by", "%s <%s>", readable(s.Signer), s.Email)
		p.field("issued by", "%s, serial %s", readable(s.Issuer), s.Serial)
		p.field("certificate", "valid from %s to %s, SHA-1 %s", stamp(s.NotBefore), stamp(s.NotAfter), s.SHA1)
	}
	if v.JudgedAt != nil {
		p.field("judged as of", "%s, %s", v.JudgedAt.Format(people), origins[v.JudgedBy])
	}
	switch {
	case s.Trusted == nil:
		p.field("trusted", "not checked: no CAs were given")
	case *s.Trusted:
		p.field("trusted", "yes, chains to the given CAs")
		p.fields("chain", s.Chain)
	default:
		p.field("trusted", "NO")
	}
	p.field("revocation", "%s", s.Revocation.words())
	if s.Listed == nil {
		p.field("directory", "not checked: none was given, so any provider may have signed")
	} else {
		p.field("directory", "%s", say(*s.Listed, "the certificate is a provider's", "the certificate is NOT in the directory"))
	}
}

func (r Revocation) words() string {
	switch r.State {
	case revocationGood:
		return r.Detail
	case revocationRevoked:
		return "REVOKED: " + r.Detail
	case revocationUnknown:
		return "NOT KNOWN: " + r.Detail
	}
	return "not checked"
}

// maxCasesShown bounds the cases for people; --json --cases has all.
const maxCasesShown = 10_000

// summary is what comes first when there is more than one message.
func (r *run) summary(all []*Case) string {
	var p page
	p.title(say(r.held, "ALL HOLD", "NOT ALL HOLD"))
	p.field("messages", "%d hold, %d do not%s", r.good, r.bad, r.left())
	j := r.judge
	if j.at.IsZero() {
		p.field("judged as of", "the instant that each message certifies")
	} else {
		p.field("judged as of", "%s, as asked with --at", j.at.In(j.location).Format(people))
	}
	p.field("against", "CAs: %s; directory: %s; revocation lists: %s",
		say(j.anchors, "given", "NOT given"), say(j.directory != nil, "given", "not given"), say(j.lists.asked, "given", "not given"))
	if n := r.cases.left; n > 0 {
		p.field("cases", "%d messages are not in the cases below: there are too many", n)
	}
	p.title("")
	for i, c := range all {
		if i == maxCasesShown {
			p.title(fmt.Sprintf("%d more cases; --json --cases shows all", len(all)-i))
			break
		}
		c.print(&p)
		p.title("")
	}
	return p.String()
}

// left says what was not judged.
func (r *run) left() string {
	text := ""
	if r.passed > 0 {
		text += fmt.Sprintf("; %d ordinary ones passed over", r.passed)
	}
	if r.skipped > 0 {
		text += fmt.Sprintf("; %d files that hold no message skipped", r.skipped)
	}
	return text
}

func (c *Case) print(p *page) {
	p.title("CASE " + string(c.Identifier))
	p.field("from", "%s", c.Sender)
	p.field("subject", "%s", c.Subject)
	p.fields("CONTRADICTS", c.Contradictions)
	p.fields("proven", c.Proven)
	p.fields("missing", c.Missing)
	p.fields("not counted", c.Discarded)
}

func say(ok bool, yes, no string) string {
	if ok {
		return yes
	}
	return no
}

// plain keeps what came from outside from steering the terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}
