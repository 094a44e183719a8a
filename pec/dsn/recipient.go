package dsn

import (
	"regexp"
	"strconv"
	"strings"

	"pecd/pec"
)

// An Action is what an MTA did for a recipient; RFC 3464, 2.3.3. The zero Action
// is one that is not known: nothing follows from it.
type Action string

// The actions of RFC 3464, 2.3.3.
const (
	Failed    Action = "failed"    // for good
	Delayed   Action = "delayed"   // it goes on trying
	Delivered Action = "delivered" // into the mailbox
	Relayed   Action = "relayed"   // to an MTA that makes no reports
	Expanded  Action = "expanded"  // to the members of a list
)

// A Recipient is what a report says about one recipient.
type Recipient struct {
	// Final is the address at which delivery was tried, Original the one that the
	// sender gave; empty if the report does not say.
	Final, Original pec.Address
	Action          Action
	// Status is X.Y.Z of RFC 3463; empty if there is none. Where the report says
	// less than the answer that it quotes (X.0.0), it is that answer's.
	Status string
	// Diagnostic is what the other system said, RemoteMTA its name. They are for
	// the operator's log.
	Diagnostic, RemoteMTA string
}

func newRecipient(g group) Recipient {
	r := Recipient{
		Final:    address(g["final-recipient"]),
		Original: address(g["original-recipient"]),
		Action:   action(g["action"]),
		Status:   statusForm.FindString(g["status"]),
	}
	_, r.Diagnostic = typed(g["diagnostic-code"])
	_, r.RemoteMTA = typed(g["remote-mta"])
	quoted := quotedStatus.FindStringSubmatch(r.Diagnostic)
	if quoted != nil && (r.Status == "" || strings.HasSuffix(r.Status, ".0.0") && r.Status[0] == quoted[1][0]) {
		r.Status = quoted[1]
	}
	return r
}

var (
	statusForm   = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}\b`)
	quotedStatus = regexp.MustCompile(`^\d{3}[ -]([245]\.\d{1,3}\.\d{1,3})\b`)
)

func action(v string) Action {
	word, _, _ := strings.Cut(strings.ToLower(v), " ")
	switch a := Action(word); a {
	case Failed, Delayed, Delivered, Relayed, Expanded:
		return a
	}
	return ""
}

// address reads "rfc822; addr-spec"; RFC 3464, 2.3.1. Other types than rfc822
// and utf-8 (RFC 6533, 3) name no mailbox that we know.
func address(v string) pec.Address {
	kind, a := typed(v)
	switch kind {
	case "rfc822", "":
	case "utf-8":
		a = fromUnitext(a)
	default:
		return ""
	}
	a = strings.TrimSuffix(strings.TrimPrefix(a, "<"), ">")
	return pec.Address(strings.TrimSpace(a))
}

var unitext = regexp.MustCompile(`\\x\{([0-9A-Fa-f]{2,6})\}`)

// fromUnitext undoes utf-8-addr-xtext and utf-8-addr-unitext; RFC 6533, 3.
func fromUnitext(s string) string {
	return text(unitext.ReplaceAllStringFunc(s, func(hex string) string {
		n, err := strconv.ParseUint(hex[3:len(hex)-1], 16, 21)
		if err != nil {
			return hex
		}
		return string(rune(n))
	}))
}

// Names reports whether r is the recipient a, as whom the sender addressed him or,
// if the report does not say, as he was addressed last. The original recipient is
// to be decoded (RFC 3464, 2.3.1); one in the xtext of RFC 3461, 4 is known too.
func (r Recipient) Names(a pec.Address) bool {
	if r.Original == "" {
		return r.Final != "" && r.Final.Same(a)
	}
	if r.Original.Same(a) {
		return true
	}
	decoded, ok := fromXtext(string(r.Original))
	return ok && pec.Address(decoded).Same(a)
}

// Error says what follows for the sender from a recipient of action Failed: the
// error of the certification data (RFC 6109, 4.4), and status and Italian text for
// its detail, which has the form status - provider - text (docs/rules.md, N1). Of
// any other action it is pec.NoError without a text. The text is one of ours.
func (r Recipient) Error() (e pec.ErrorCode, status, text string) {
	if r.Action != Failed {
		return pec.NoError, "", ""
	}
	switch {
	case strings.HasPrefix(r.Status, "4."):
		// What failed for good out of something temporary was tried too long.
		return pec.ErrorOther, "5.4.7", expired
	case !strings.HasPrefix(r.Status, "5."):
		return pec.ErrorOther, "5.0.0", refused
	case r.exchangeUnknown():
		return pec.ErrorNoDest, r.Status, noMailbox
	}
	if m, ok := meanings[r.Status]; ok {
		return m.error, r.Status, m.text
	}
	subject, _, _ := strings.Cut(r.Status[len("5."):], ".")
	if t, ok := subjects[subject]; ok {
		return pec.ErrorOther, r.Status, t
	}
	return pec.ErrorOther, r.Status, refused
}

// exchangeUnknown tells the 550 5.1.10 that Exchange gives for an unknown mailbox
// from the 556 5.1.10 of a domain that receives no mail (RFC 7505, 4.1).
func (r Recipient) exchangeUnknown() bool {
	return r.Status == "5.1.10" && strings.HasPrefix(r.Diagnostic, "550")
}

const (
	expired   = "il messaggio non è stato consegnato entro il tempo massimo"
	refused   = "consegna rifiutata dal sistema di destinazione"
	noMailbox = "indirizzo non valido"
	noDomain  = "dominio non valido"
	tooLarge  = "il messaggio supera la dimensione ammessa dal sistema di destinazione"
)

// meanings are the status codes of RFC 3463 and its registry that say more than
// their subject.
var meanings = map[string]struct {
	error pec.ErrorCode
	text  string
}{
	"5.1.0":  {pec.ErrorNoDest, noMailbox},
	"5.1.1":  {pec.ErrorNoDest, noMailbox},
	"5.1.3":  {pec.ErrorNoDest, noMailbox},
	"5.1.4":  {pec.ErrorNoDest, "indirizzo ambiguo"},
	"5.1.6":  {pec.ErrorNoDest, "casella trasferita, nuovo indirizzo non noto"},
	"5.1.2":  {pec.ErrorNoDomain, noDomain},
	"5.1.10": {pec.ErrorNoDomain, "il dominio non riceve posta"}, // RFC 7505
	"5.4.4":  {pec.ErrorNoDomain, noDomain},                      // no host or route for the domain
	"5.2.1":  {pec.ErrorOther, "casella disabilitata"},
	"5.2.2":  {pec.ErrorOther, "casella piena"},
	"5.2.3":  {pec.ErrorOther, "il messaggio supera la dimensione ammessa dalla casella di destinazione"},
	"5.3.4":  {pec.ErrorOther, tooLarge},
	"5.4.1":  {pec.ErrorOther, refused}, // some systems mean an unknown recipient by it
	"5.4.6":  {pec.ErrorOther, "percorso circolare verso il sistema di destinazione"},
	"5.4.7":  {pec.ErrorOther, expired},
}

// subjects are the texts for all other codes of a subject; RFC 3463, 3.
var subjects = map[string]string{
	"2": "la casella di destinazione non può ricevere il messaggio",
	"3": "il sistema di destinazione non può ricevere il messaggio",
	"4": "il sistema di destinazione non è raggiungibile",
	"5": "errore di protocollo con il sistema di destinazione",
	"6": "il contenuto del messaggio non è accettato dal sistema di destinazione",
	"7": "il messaggio è stato rifiutato per motivi di sicurezza o di autorizzazione",
}
