package storetest

import (
	"encoding/hex"

	"pecd/logstore"
	"pecd/pec"
	"pecd/signer"
)

// ActOf returns the act that sends m: keyed by what it certifies, with its
// register entry.
func ActOf(m *signer.Signed) logstore.Act {
	ev := m.Event()
	digest := m.Digest()
	return logstore.Act{
		Keys: []logstore.Key{KeyOf(ev.Kind, ev.Identifier, ev.Recipient)},
		Entry: logstore.Entry{
			At: ev.At, Type: logstore.EntryType(ev.Kind), Identifier: ev.Identifier, MsgID: ev.MsgID,
			Sender: ev.Sender, Recipients: ev.Recipients, Subject: ev.Subject, Messages: []string{m.MessageID()},
			SendingProvider: "Alfa PEC", Receipt: ev.Receipt, Recipient: ev.Recipient, Taken: ev.Taken,
			Error: ev.Error, Detail: ev.Detail, Digest: hex.EncodeToString(digest[:]),
		},
		Send: m,
	}
}

// KeyOf returns the key of what Alfa certifies.
func KeyOf(kind pec.Kind, id pec.Identifier, recipient pec.Address) logstore.Key {
	return logstore.Key{Kind: string(kind), Origin: "alfa.example", Identifier: id, Recipient: recipient}
}

// Access returns the transaction of the access point for envelope and receipt:
// both are sent and the answers of all recipients are awaited.
func Access(envelope, acceptance *signer.Signed) logstore.Tx {
	first, second := ActOf(acceptance), ActOf(envelope)
	for _, r := range envelope.Event().Recipients {
		second.Await = append(second.Await, r.Address)
	}
	return logstore.Tx{At: envelope.Event().At, Acts: []logstore.Act{first, second}}
}
