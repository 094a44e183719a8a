package test

import (
	"bytes"
	"strings"
	"testing"

	"pecd/packaging/demo/stage"
	"pecd/pec"
)

// TestEightBit sends an 8-bit original over a hop that lacks 8BITMIME: kept as it
// is, and brought to 7 bits before it is certified. Either way every signature
// holds at the other end.
func TestEightBit(t *testing.T) {
	for _, option := range []string{"keep", "convert"} {
		t.Run(option, func(t *testing.T) {
			s := newStage(t, func(o *stage.Options) {
				o.Configure = func(_ string, c *stage.PecdConfig) { c.Access.EightBit = option }
			})
			hop, far := &s.Beta.MailServer, "bob@beta.example"
			if hop.Sendmail != nil { // which takes no 8-bit text where it does not offer 8BITMIME
				hop, far = &s.Ordinary.MailServer, "mario@ordinary.example"
			}
			reconfigure(t, s, hop, mtaChange{postfix: hop.SMTP + "/inet/smtpd_discard_ehlo_keywords=8bitmime"})
			session, err := s.Dial(within(t), hop.SMTP)
			if err != nil {
				t.Fatal(err)
			}
			if ok, _ := session.Extension("8BITMIME"); ok {
				t.Error("the hop offers 8BITMIME")
			}
			if err := session.Close(); err != nil {
				t.Error(err)
			}
			raw := strings.Replace(compose("eb "+option, "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n", "bob@beta.example", "mario@ordinary.example"), "Testo", "Perch\xc3\xa9", 1)
			send(t, s, raw, "bob@beta.example", "mario@ordinary.example")
			envelope := await(t, s, far, pec.KindTransport, "eb "+option)
			receipt := await(t, s, "alice@alfa.example", pec.KindDelivery, "eb "+option)
			if !bytes.Equal(envelope.original, receipt.original) {
				t.Error("envelope and receipt carry different originals")
			}
			eight := bytes.Contains(envelope.original, []byte("Perch\xc3\xa9 di eb"))
			seven := bytes.Contains(envelope.original, []byte("Perch=C3=A9 di eb")) && bytes.Contains(envelope.original, []byte("quoted-printable"))
			if eight != (option == "keep") || seven != (option == "convert") {
				t.Errorf("the original at the other end:\n%s", envelope.original)
			}
		})
	}
}
