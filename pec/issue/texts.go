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
	note  string // below the body, after an empty line; of duplicates only
}

func text(title, body string) words {
	return words{title: title, body: template.Must(template.New(title).Parse(body))}
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

var nonAcceptance = model{ // RFC 6109, 3.1.2
	prefix: "AVVISO DI NON ACCETTAZIONE: ",
	italian: text("Errore nell'accettazione del messaggio", `Il giorno {{.Day}} alle ore {{.Hour}} ({{.Zone}}) nel messaggio
"{{.Subject}}" proveniente da "{{.Sender}}"
ed indirizzato a:
{{range .Recipients}}{{.Address}}
{{end}}è stato rilevato un problema che ne impedisce l'accettazione
a causa di: {{.Reason}}.
Il messaggio non è stato accettato.
Identificativo messaggio: {{.Identifier}}`),
	english: text("Error in message acceptance", `On {{.Day}} at {{.Hour}} ({{.Zone}}), in the message
"{{.Subject}}" originating from "{{.Sender}}"
and addressed to:
{{range .Recipients}}{{.Address}}
{{end}}a problem was detected that prevents its acceptance
due to: {{.Reason}}.
The message was not accepted.
Message identifier: {{.Identifier}}`),
}

var nonAcceptanceVirus = model{ // RFC 6109, 3.1.3
	prefix: "AVVISO DI NON ACCETTAZIONE PER VIRUS: ",
	italian: text("Errore nell'accettazione del messaggio per presenza di virus", `Il giorno {{.Day}} alle ore {{.Hour}} ({{.Zone}}) nel messaggio
"{{.Subject}}" proveniente da "{{.Sender}}"
ed indirizzato a:
{{range .Recipients}}{{.Address}}
{{end}}è stato rilevato un problema di sicurezza [{{.Detail}}].
Il messaggio non è stato accettato.
Identificativo messaggio: {{.Identifier}}`),
	english: text("Error in message acceptance due to virus presence", `On {{.Day}} at {{.Hour}} ({{.Zone}}), in the message
"{{.Subject}}" originating from "{{.Sender}}"
and addressed to:
{{range .Recipients}}{{.Address}}
{{end}}a security problem was detected [{{.Detail}}].
The message was not accepted.
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

var deliveryBrief = model{ // RFC 6109, 3.3.2.2
	prefix:  deliveryPrefix,
	italian: text("Ricevuta breve di avvenuta consegna", deliveryItalian),
	english: text("Brief delivery PEC notification", deliveryEnglish),
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

var virus = model{ // RFC 6109, 3.2.3
	prefix: "PROBLEMA DI SICUREZZA: ",
	italian: text("Avviso di rilevazione virus informatico", `Il giorno {{.Day}} alle ore {{.Hour}} ({{.Zone}}) nel messaggio
"{{.Subject}}" proveniente da "{{.Sender}}"
e destinato all'utente "{{.Recipient}}"
è stato rilevato un problema di sicurezza [{{.Detail}}].
Identificativo messaggio: {{.Identifier}}`),
	english: text("Virus detection PEC notification", `On {{.Day}} at {{.Hour}} ({{.Zone}}), in the message
"{{.Subject}}" originating from "{{.Sender}}"
and addressed to "{{.Recipient}}"
a security problem was detected [{{.Detail}}].
Message identifier: {{.Identifier}}`),
}

// Unlike the other texts it does not name the sender, who reads it.
var nonDeliveryVirus = model{ // RFC 6109, 3.2.4
	prefix: "AVVISO DI MANCATA CONSEGNA PER VIRUS: ",
	italian: text("Avviso di mancata consegna per virus", `Il giorno {{.Day}} alle ore {{.Hour}} ({{.Zone}}) nel messaggio
"{{.Subject}}" destinato all'utente "{{.Recipient}}"
è stato rilevato un problema di sicurezza [{{.Detail}}].
Il messaggio non è stato consegnato.
Identificativo messaggio: {{.Identifier}}`),
	english: text("Delivery error PEC notification due to virus", `On {{.Day}} at {{.Hour}} ({{.Zone}}), in the message
"{{.Subject}}" addressed to "{{.Recipient}}"
a security problem was detected [{{.Detail}}].
The message was not delivered.
Message identifier: {{.Identifier}}`),
}

const (
	timeoutPrefix  = "AVVISO DI MANCATA CONSEGNA PER SUP. TEMPO MASSIMO: "
	timeoutItalian = `Il giorno {{.Day}} alle ore {{.Hour}} ({{.Zone}}) il messaggio
"{{.Subject}}" proveniente da "{{.Sender}}"
e destinato all'utente "{{.Recipient}}"
`
	timeoutEnglish = `On {{.Day}} at {{.Hour}} ({{.Zone}}), the message
"{{.Subject}}" originating from "{{.Sender}}"
and addressed to "{{.Recipient}}"
`
	// Programs take 5.4.1 for the last word on a message (docs/rules.md, N2).
	timeout12Code = "4.4.1"
	timeout24Code = "5.4.1"
	// In errore-esteso, after code and provider.
	timeout12Detail = "il messaggio non è stato consegnato nelle prime dodici ore dal suo invio"
	timeout24Detail = "il messaggio non è stato consegnato nelle ventiquattro ore successive al suo invio. " +
		"Si ritiene che la spedizione debba considerarsi non andata a buon fine."
)

var timeout12 = model{ // RFC 6109, 3.1.6
	prefix: timeoutPrefix,
	italian: text("Avviso di mancata consegna", timeoutItalian+`non è stato consegnato nelle prime dodici ore dal suo invio. Non escludendo
che questo possa avvenire in seguito, si ritiene utile considerare che
l'invio potrebbe non andare a buon fine. Il sistema provvederà comunque
ad inviare un ulteriore avviso di mancata consegna se nelle prossime
dodici ore non vi sarà la conferma della ricezione da parte del destinatario.
Identificativo messaggio: {{.Identifier}}`),
	english: text("Non-delivery PEC notification", timeoutEnglish+`has not been delivered within the first 12 hours following its dispatch.
Not excluding that the message might eventually be delivered, it is deemed
useful to consider that dispatch might not have a positive outcome. The
system will see to sending another non-delivery PEC notification if in the
following twelve hours no confirmation is received from the recipient.
Message identifier: {{.Identifier}}`),
}

var timeout24 = model{ // RFC 6109, 3.1.6
	prefix: timeoutPrefix,
	italian: text("Avviso di mancata consegna", timeoutItalian+`non è stato consegnato nelle ventiquattro ore successive al suo invio. Si
ritiene che la spedizione debba considerarsi non andata a buon fine.
Identificativo messaggio: {{.Identifier}}`),
	english: text("Non-delivery PEC notification", timeoutEnglish+`has not been delivered within 24 hours of its dispatch.
The transaction is deemed to be considered terminated with a negative outcome.
Message identifier: {{.Identifier}}`),
}

// There is no identifier in it: nothing was certified.
var anomaly = model{ // RFC 6109, 3.2.2
	prefix: "ANOMALIA MESSAGGIO: ",
	italian: text("Anomalia nel messaggio", `Il giorno {{.Day}} alle ore {{.Hour}} ({{.Zone}}) è stato ricevuto
il messaggio "{{.Subject}}" proveniente da "{{.Sender}}"
ed indirizzato a:
{{range .Recipients}}{{.Address}}
{{end}}Tali dati non sono stati certificati per il seguente errore:
{{.Detail}}
Il messaggio originale è incluso in allegato.`),
	english: text("Message anomaly", `On {{.Day}} at {{.Hour}} ({{.Zone}}), the message
"{{.Subject}}" originating from "{{.Sender}}"
and addressed to:
{{range .Recipients}}{{.Address}}
{{end}}was received.
The data has not been certified due to the following error:
{{.Detail}}
The original message is attached.`),
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

// An anomaly envelope has no daticert.xml, but the message itself.
const (
	anomalyLossItalian = "I caratteri che questo testo non può mostrare sono scritti come ?; il testo esatto è nel messaggio allegato."
	anomalyLossEnglish = "Characters that this text cannot show are written as ?; the exact text is in the attached message."
)

// rule stands between the two languages in the plain text.
const rule = "------------------------------------------------------------------------"
