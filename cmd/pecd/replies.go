package main

import (
	"fmt"

	"pecd/lmtp"
	"pecd/milter"
	"pecd/points"
	"pecd/points/delivery"
)

// All SMTP replies of the daemon are in this file. What they say to the outside
// tells nothing of our inside; the operator's log has the details.

// later is the answer to everything that we do not know: the MTA keeps the
// message.
var later = milter.Verdict{Action: milter.Defer, Reply: "451 4.3.0 Servizio PEC temporaneamente non disponibile / Certified mail is temporarily unavailable, try again later"}

// discard tells the MTA that the message is ours now; the client hears 250.
var discard = milter.Verdict{Action: milter.Discard}

// What the gate on port 25 says.
var (
	oneByOne = milter.Verdict{Action: milter.Defer, Reply: "452 4.5.3 This recipient needs a transaction of its own, try again"}
	needTLS  = milter.Verdict{Action: milter.Reject, Reply: "530 5.7.0 Must issue a STARTTLS command first: certified mail travels encrypted (RFC 6109, 5.3)"}
)

// malformed refuses a message whose header the MTA cannot show to the octet.
var malformed = milter.Verdict{Action: milter.Reject, Reply: "550 5.6.0 L'intestazione contiene un campo non valido / The header holds an invalid field"}

// largeHeader refuses a message whose header is larger than any that is read here
// (milter.Options.LargeHeader): who took it could never deal with it.
var largeHeader = milter.Verdict{Action: milter.Reject, Reply: "552 5.3.4 L'intestazione supera 960 KiB o 9900 campi / The header exceeds 960 KiB or 9900 fields"}

// enhanced are the status codes of the causes of refusal.
var enhanced = map[points.Cause]string{
	points.NotAuthenticated:    "530 5.7.0",
	points.LoginNotSender:      "553 5.7.1",
	points.SenderNotOurs:       "550 5.7.1",
	points.FromInvalid:         "550 5.6.0",
	points.FromDiffers:         "550 5.7.1",
	points.ToInvalid:           "550 5.6.0",
	points.RecipientNotInField: "550 5.7.1",
	points.BccPresent:          "550 5.7.1",
	points.TooLarge:            "552 5.3.4",
	points.TooLargeTimes:       "552 5.3.4",
	points.TooManyRecipients:   "550 5.5.3",
	points.LineTooLong:         "550 5.6.0",
	points.BadOctets:           "550 5.6.0",
	points.FieldRepeated:       "550 5.6.0",
	points.Malformed:           "550 5.6.0",
	points.Policy:              "550 5.7.1",
	points.Virus:               "554 5.7.1",
}

// refusedMail is what the gate says to the server that sends.
func refusedMail(why points.Reason) milter.Verdict {
	return milter.Verdict{Action: milter.Reject, Reply: enhanced[why.Cause] + " " + told(why)}
}

// told is a reason in both languages.
func told(why points.Reason) string {
	text := why.Italian + " / " + why.English
	if why.Cause == points.Virus {
		text = "Virus nel messaggio / Virus in the message: " + why.English
	}
	if len(text) > maxReply {
		text = text[:maxReply] + "..."
	}
	return text
}

// rejected is the same at the LMTP door.
func rejected(why points.Reason) lmtp.Status {
	s := lmtp.Status{Text: told(why)}
	if _, err := fmt.Sscanf(enhanced[why.Cause], "%d %d.%d.%d", &s.Code, &s.Enhanced[0], &s.Enhanced[1], &s.Enhanced[2]); err != nil {
		return statusLater // a cause without code
	}
	return s
}

// maxReply bounds the text of a refusal, in octets, so that it fits a reply line
// (RFC 5321, 4.5.3.1.5).
const maxReply = 400

// refusal is the reply that tells a sender all reasons.
func refusal(reasons []points.Reason) milter.Verdict {
	code := "550 5.7.1"
	if len(reasons) > 0 {
		code = enhanced[reasons[0].Cause]
	}
	text := points.Describe(reasons)
	if virus, ok := points.Find(reasons, points.Virus); ok {
		return refusedMail(virus)
	}
	if len(text) > maxReply {
		text = points.Describe(reasons[:1])
		if n := len(reasons) - 1; n > 0 {
			text += fmt.Sprintf(" (+%d)", n)
		}
	}
	if len(text) > maxReply {
		text = text[:maxReply] + "..."
	}
	return milter.Verdict{Action: milter.Reject, Reply: code + " " + text}
}

// What the LMTP door says.
var (
	statusDone        = lmtp.Status{Code: 250, Enhanced: [3]int{2, 1, 5}, Text: "delivered"}
	statusLater       = lmtp.Status{Code: 451, Enhanced: [3]int{4, 3, 0}, Text: "temporarily unavailable, try again later"}
	statusNoMailbox   = lmtp.Status{Code: 550, Enhanced: [3]int{5, 1, 1}, Text: "the mailbox store refuses the message"}
	statusUnreadable  = lmtp.Status{Code: 550, Enhanced: [3]int{5, 6, 0}, Text: "the header cannot be read"}
	statusUnwrappable = lmtp.Status{Code: 550, Enhanced: [3]int{5, 6, 0}, Text: "the message has lines over 998 octets, or octets that mail cannot carry"}
)

// result reads the store's status about a recipient.
func result(s lmtp.Status) (delivery.Answer, string) {
	code := ""
	if s.Enhanced[0] != 0 {
		code = fmt.Sprintf("%d.%d.%d", s.Enhanced[0], s.Enhanced[1], s.Enhanced[2])
	}
	switch {
	case s.Code/100 == 2:
		return delivery.Delivered, code
	case s.Code/100 == 5:
		return delivery.Never, code
	}
	return delivery.NotNow, code
}

// tooLarge refuses a message past the limit before all of it has arrived.
func tooLarge(limit int64) milter.Verdict {
	return milter.Verdict{Action: milter.Reject, Reply: fmt.Sprintf("552 5.3.4 Il messaggio supera il limite di %d byte / The message exceeds the limit of %d octets", limit, limit)}
}
