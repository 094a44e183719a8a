package delivery

import (
	"context"
	"testing"

	"pecd/pec"
)

func TestDecide(t *testing.T) {
	tests := []struct {
		res    Result
		kind   pec.Kind
		err    pec.ErrorCode
		detail string
	}{
		{Result{}, "", "", ""}, // nothing is known: nothing is certified
		{Result{Answer: NotNow, Code: "4.2.2"}, "", "", ""},
		{Result{Answer: NotNow, Code: "4.2.2", Overdue: true}, pec.KindNonDelivery, pec.ErrorOther,
			"5.4.7 - Beta PEC S.p.A. - la casella di destinazione non è stata disponibile entro il tempo massimo"},
		{Result{Answer: Delivered}, pec.KindDelivery, pec.NoError, ""},
		{Result{Answer: Never, Code: "5.1.1"}, pec.KindNonDelivery, pec.ErrorNoDest, "5.1.1 - Beta PEC S.p.A. - indirizzo non valido"},
		{Result{Answer: Never, Code: "5.1.2"}, pec.KindNonDelivery, pec.ErrorNoDomain, "5.1.2 - Beta PEC S.p.A. - dominio non valido"},
		{Result{Answer: Never, Code: "5.2.2"}, pec.KindNonDelivery, pec.ErrorOther, "5.2.2 - Beta PEC S.p.A. - casella piena"},
		{Result{Answer: Never, Code: "5.2.1"}, pec.KindNonDelivery, pec.ErrorOther, "5.2.1 - Beta PEC S.p.A. - casella disabilitata"},
		{Result{Answer: Never, Code: "5.7.26"}, pec.KindNonDelivery, pec.ErrorOther, "5.7.26 - Beta PEC S.p.A. - consegna rifiutata dalla casella di destinazione"},
		{Result{Answer: Never, Code: "", Text: "/var/mail/bob: no space"}, pec.KindNonDelivery, pec.ErrorOther, "5.0.0 - Beta PEC S.p.A. - consegna rifiutata dalla casella di destinazione"},
	}
	for _, tt := range tests {
		d, err := Builtin{}.Decide(context.Background(), Handover{Provider: "Beta PEC S.p.A.", Results: []Result{tt.res}})
		if err != nil || len(d.Outcomes) != 1 {
			t.Fatalf("%+v: %+v, %v", tt.res, d, err)
		}
		o := d.Outcomes[0]
		if o.Kind != tt.kind || o.Error != tt.err || o.Detail != tt.detail {
			t.Errorf("%+v: %+v", tt.res, o)
		}
	}
}
