package consistency_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pecd/logstore"
	"pecd/logstore/consistency"
	"pecd/pec"
)

const (
	us   = "Alfa PEC S.p.A."
	them = "Beta PEC S.p.A."
)

var sent = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// entry builds an entry from a word: type, then recipient, then error or detail.
func entry(word string, provider string) logstore.Entry {
	f := append(strings.Split(word, " "), "", "")
	e := logstore.Entry{At: sent, Type: logstore.EntryType(f[0]), Identifier: "1@alfa.example", Sender: "alice@alfa.example", SendingProvider: provider,
		Recipients: []pec.Recipient{{Address: "bob@beta.example", Type: pec.Certified}, {Address: "mario@ordinary.example", Type: pec.External}}}
	rcpt := pec.Address(f[1])
	kind := f[0]
	if e.Type == logstore.EntryReceived {
		e.Detail, kind, rcpt = f[1], f[1], pec.Address(f[2])
	} else if f[2] == "virus" {
		e.Error = pec.ErrorVirus
	} else if f[2] != "" {
		e.Detail = f[2] + " - x - y"
	}
	e.Digest = word
	if pec.Kind(kind) == pec.KindTakeCharge {
		e.Taken = []pec.Address{rcpt}
	} else {
		e.Recipient = rcpt
	}
	return e
}

// TestStory: what is right, what is explained, and each way of being wrong.
func TestStory(t *testing.T) {
	const bob, mario, begin = "bob@beta.example", "mario@ordinary.example", "posta-certificata,accettazione,"
	for _, tt := range []struct {
		name, entries, provider string
		after                   time.Duration
		want                    string // empty: nothing; "explained: …" or "wrong: …"
	}{
		{"whole", begin + "ricezione presa-in-carico " + bob + ",ricezione avvenuta-consegna " + bob, us, 48 * time.Hour, ""},
		{"in other letters", begin + "ricezione presa-in-carico Bob@beta.example,ricezione avvenuta-consegna BOB@beta.example", us, 48 * time.Hour, ""},
		{"refused", begin + "ricezione presa-in-carico " + bob + ",ricezione errore-consegna " + bob, us, 48 * time.Hour, ""},
		{"bounced", begin + "errore-consegna " + bob + " 5.1.1", us, 48 * time.Hour, ""},
		{"virus", begin + "ricezione rilevazione-virus " + bob + ",errore-consegna " + bob + " virus", us, 48 * time.Hour, ""},
		{"waiting", begin, us, time.Hour, "explained: " + bob + ": sent at 2026-11-22T10:00:00Z, and the sender was told nothing, yet"},
		{"silent", begin, us, 26 * time.Hour, "wrong: the sender was told nothing"},
		{"expired", begin + "preavviso-errore-consegna " + bob + " 4.4.1,preavviso-errore-consegna " + bob + " 5.4.1", us, 48 * time.Hour, "explained: told so after 24 hours"},
		{"late", begin + "preavviso-errore-consegna " + bob + " 5.4.1,ricezione presa-in-carico " + bob + ",ricezione avvenuta-consegna " + bob, us, 48 * time.Hour, "explained: after the notice of 24 hours"},
		{"without take-charge", begin + "ricezione avvenuta-consegna " + bob, us, time.Hour, "explained: without a take-charge receipt of the other"},
		{"warned twice", begin + "preavviso-errore-consegna " + bob + " 4.4.1,preavviso-errore-consegna " + bob + " 4.4.1", us, time.Hour, "wrong: 2 notices of 12 hours"},
		{"two envelopes", begin + "posta-certificata", us, time.Hour, "wrong: 2 transport envelopes and 1 acceptance"},
		{"no envelope", "accettazione", us, time.Hour, "wrong: 0 transport envelopes and 1 acceptance"},
		{"under a former name", begin + "ricezione presa-in-carico " + bob + ",ricezione avvenuta-consegna " + bob, them, 48 * time.Hour, ""},
		{"both", begin + "ricezione avvenuta-consegna " + bob + ",ricezione errore-consegna " + bob, us, time.Hour, "wrong: told both"},
		{"told twice", begin + "errore-consegna " + bob + " 5.1.1,ricezione errore-consegna " + bob, us, time.Hour, "wrong: told 2 times"},
		{"virus untold", begin + "ricezione rilevazione-virus " + bob, us, time.Hour, "wrong: 1 virus notices arrived, and the sender was told 0 times"},
		{"virus unheard", begin + "errore-consegna " + bob + " virus", us, time.Hour, "wrong: 0 virus notices arrived, and the sender was told 1 times"},
		{"stranger", begin + "ricezione avvenuta-consegna carl@beta.example", us, time.Hour, "wrong: no recipient of the message"},
		{"ordinary", begin + "ricezione avvenuta-consegna " + mario, us, time.Hour, "wrong: a recipient of ordinary mail"},

		{"here", "presa-in-carico " + bob + ",avvenuta-consegna " + bob, them, 48 * time.Hour, ""},
		{"refused here", "presa-in-carico " + bob + ",errore-consegna " + bob + " 5.2.2", them, 48 * time.Hour, ""},
		{"infected here", "rilevazione-virus " + bob + " virus", them, 48 * time.Hour, ""},
		{"waiting here", "presa-in-carico " + bob, them, time.Hour, "explained: neither delivered nor refused, yet"},
		{"forgotten here", "presa-in-carico " + bob, them, 26 * time.Hour, "wrong: neither delivered nor refused"},
		{"taken twice", "presa-in-carico " + bob + ",presa-in-carico " + bob, them, time.Hour, "wrong: 2 take-charge receipts"},
		{"delivered twice", "presa-in-carico " + bob + ",avvenuta-consegna " + bob + ",avvenuta-consegna " + bob, them, time.Hour, "wrong: 2 delivery receipts"},
		{"both here", "presa-in-carico " + bob + ",avvenuta-consegna " + bob + ",errore-consegna " + bob + " 5.2.2", them, time.Hour, "wrong: 1 delivery receipts and 1 non-delivery"},
		{"not taken", "avvenuta-consegna " + bob, them, time.Hour, "wrong: a delivery receipt without a take-charge receipt"},
		{"infected and delivered", "presa-in-carico " + bob + ",rilevazione-virus " + bob + " virus,avvenuta-consegna " + bob, them, time.Hour, "wrong: a virus notice and a delivery receipt"},
		{"infected twice", "rilevazione-virus " + bob + " virus,rilevazione-virus " + bob + " virus", them, time.Hour, "wrong: 2 virus notices"},
		{"mailboxes and duplicates are no matter", "recapito alice@alfa.example,duplicato,rimbalzo", us, time.Hour, ""},
	} {
		var entries []logstore.Entry
		for i, w := range strings.Split(strings.TrimSuffix(tt.entries, ","), ",") {
			e := entry(w, tt.provider)
			e.Seq = int64(i + 1)
			entries = append(entries, e)
		}
		got := ""
		for _, f := range consistency.Story(entries, time.Time{}, sent.Add(tt.after)) {
			got += fmt.Sprintf("%s: %s\n", map[bool]string{true: "explained", false: "wrong"}[f.Explained], f)
		}
		grade, what, _ := strings.Cut(tt.want, ": ")
		if !strings.Contains(got, what) || !strings.HasPrefix(got, grade) || (tt.want == "") != (got == "") {
			t.Errorf("%s: found\n%swant %s", tt.name, got, tt.want)
		}
	}
}

// TestStoryNames: envelope and receipt of one message name one provider.
func TestStoryNames(t *testing.T) {
	envelope, receipt := entry("posta-certificata", us), entry("accettazione", them)
	envelope.Seq, receipt.Seq = 1, 2
	got := consistency.Story([]logstore.Entry{envelope, receipt}, time.Time{}, sent.Add(time.Hour))
	if len(got) == 0 || got[0].Explained || got[0].Seq != 2 || !strings.Contains(got[0].What, them) {
		t.Errorf("%v", got)
	}
}

// TestStoryCut: what was taken charge of before a purge's end and delivered after it is
// explained, as long as a message may wait for its mailbox.
func TestStoryCut(t *testing.T) {
	e := entry("avvenuta-consegna bob@beta.example", them)
	for begins, explained := range map[time.Time]bool{sent: true, sent.Add(-25 * time.Hour): true, sent.Add(-26 * time.Hour): false, {}: false} {
		got := consistency.Story([]logstore.Entry{e}, begins, sent.Add(48*time.Hour))
		if len(got) != 1 || got[0].Explained != explained {
			t.Errorf("the register begins %v: %v", begins, got)
		}
	}
}
