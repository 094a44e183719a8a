package issue

import "text/template"

// The texts of all that is issued. Each is written once and rendered as plain
// text and as HTML. The Italian models are those of the technical rules, of
// which RFC 6109, 3 is the English rendering (docs/rules.md, T1).

// A model is the wording of one kind of message.
type model struct {
	prefix           string // of the subject, with its one blank
	italian, english words
}

// words are a model in one language: a title line, and the lines below it.
type words struct {
	title string
	body  *template.Template
}

func text(title, body string) words {
	return words{title, template.Must(template.New(title).Parse(body))}
}

var acceptance = model{ // RFC 6109, 3.1.4
	prefix: "ACCETTAZIONE: ",
	italian: text("Ricevuta di accettazione", `Il giorno {{.Day}} alle ore {{.Hour}} ({{.Zone}}) il messaggio
"{{.Subject}}" proveniente da "{{.Sender}}"
ed indirizzato a:
{{range .Recipients}}{{.Address}} ("{{.Italian}}")
{{end}}è stato accettato dal sistema ed inoltrato.
Identificativo messaggio: {{.Identifier}}`),
	english: text("Server-user acceptance PEC notification", `On {{.Day}} at {{.Hour}} ({{.Zone}}), the message
"{{.Subject}}" originating from "{{.Sender}}"
and addressed to:
{{range .Recipients}}{{.Address}} ("{{.English}}")
{{end}}was accepted by the system and forwarded to the recipient(s).
Message identifier: {{.Identifier}}`),
}

var transport = model{ // RFC 6109, 3.1.5
	prefix: "POSTA CERTIFICATA: ",
	italian: text("Messaggio di posta certificata", `Il giorno {{.Day}} alle ore {{.Hour}} ({{.Zone}}) il messaggio
"{{.Subject}}" è stato inviato da "{{.Sender}}"
indirizzato a:
{{range .Recipients}}{{.Address}}
{{end}}Il messaggio originale è incluso in allegato.
Identificativo messaggio: {{.Identifier}}`),
	english: text("Certified mail message", `On {{.Day}} at {{.Hour}} ({{.Zone}}), the message
"{{.Subject}}" was sent by "{{.Sender}}"
and addressed to:
{{range .Recipients}}{{.Address}}
{{end}}The original message is included in attachment.
Message identifier: {{.Identifier}}`),
}

var takeCharge = model{ // RFC 6109, 3.2.1
	prefix: "PRESA IN CARICO: ",
	italian: text("Ricevuta di presa in carico", `Il giorno {{.Day}} alle ore {{.Hour}} ({{.Zone}}) il messaggio
"{{.Subject}}" proveniente da "{{.Sender}}"
ed indirizzato a:
{{range .Taken}}{{.}}
{{end}}è stato accettato dal sistema.
Identificativo messaggio: {{.Identifier}}`),
	english: text("Server-server acceptance PEC notification", `On {{.Day}} at {{.Hour}} ({{.Zone}}), the message
"{{.Subject}}" originating from "{{.Sender}}"
and addressed to:
{{range .Taken}}{{.}}
{{end}}was accepted by the system.
Message identifier: {{.Identifier}}`),
}

const (
	deliveryPrefix  = "CONSEGNA: "
	deliveryItalian = `Il giorno {{.Day}} alle ore {{.Hour}} ({{.Zone}}) il messaggio
"{{.Subject}}" proveniente da "{{.Sender}}"
ed indirizzato a "{{.Recipient}}"
è stato consegnato nella casella di destinazione.
Identificativo messaggio: {{.Identifier}}`
	deliveryEnglish = `On {{.Day}} at {{.Hour}} ({{.Zone}}), the message
"{{.Subject}}" originating from "{{.Sender}}"
and addressed to "{{.Recipient}}"
was placed in the destination's mailbox.
Message identifier: {{.Identifier}}`
)

var deliveryComplete = model{ // RFC 6109, 3.3.2.1
	prefix:  deliveryPrefix,
	italian: text("Ricevuta di avvenuta consegna", deliveryItalian),
	english: text("Delivery PEC notification", deliveryEnglish),
}

var deliveryConcise = model{ // RFC 6109, 3.3.2.3
	prefix:  deliveryPrefix,
	italian: text("Ricevuta sintetica di avvenuta consegna", deliveryItalian),
	english: text("Concise delivery PEC notification", deliveryEnglish),
}

var nonDelivery = model{ // RFC 6109, 3.3.3
	prefix: "AVVISO DI MANCATA CONSEGNA: ",
	italian: text("Avviso di mancata consegna", `Il giorno {{.Day}} alle ore {{.Hour}} ({{.Zone}}) nel messaggio
"{{.Subject}}" proveniente da "{{.Sender}}"
e destinato all'utente "{{.Recipient}}"
è stato rilevato un errore {{.Detail}}.
Il messaggio è stato rifiutato dal sistema.
Identificativo messaggio: {{.Identifier}}`),
	english: text("Non-delivery PEC notification", `On {{.Day}} at {{.Hour}} ({{.Zone}}), in the message
"{{.Subject}}" originating from "{{.Sender}}"
and addressed to "{{.Recipient}}"
an error was detected: {{.Detail}}.
The message was refused by the system.
Message identifier: {{.Identifier}}`),
}

// What acceptance receipts call the two types of recipients.
const (
	certifiedItalian, certifiedEnglish = "posta certificata", "certified mail"
	externalItalian, externalEnglish   = "posta ordinaria", "ordinary mail"
)

// The plain text ends with these lines if it holds less than daticert.xml
// (docs/rules.md, T2).
const (
	lossItalian = "I caratteri che questo testo non può mostrare sono scritti come ?; il testo esatto è in daticert.xml."
	lossEnglish = "Characters that this text cannot show are written as ?; the exact text is in daticert.xml."
)

// rule stands between the two languages in the plain text.
const rule = "------------------------------------------------------------------------"
