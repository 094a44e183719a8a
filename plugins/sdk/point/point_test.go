package point

import (
	"context"
	"errors"
	"io"
	"testing"

	"pecd/pec"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/plugins/sdk"
	"pecd/points/access"
	"pecd/points/delivery"
	"pecd/points/reception"
)

var (
	_ sdk.AccessService    = accessService{}
	_ sdk.ReceptionService = receptionService{}
	_ sdk.DeliveryService  = deliveryService{}
)

// strict refuses who is called Mallory, and closes.
type strict struct {
	access.Builtin
	closed *bool
}

func (s strict) Decide(ctx context.Context, m access.Submission) (access.Decision, error) {
	if m.Message.Header.Text("From") == "mallory@uno.example" {
		return access.Decision{}, errors.New("not him")
	}
	return s.Builtin.Decide(ctx, m)
}

func (s strict) Engine() string { return "strict" }

func (s strict) Close() error {
	*s.closed = true
	return nil
}

func request(text string) *pluginv1.AccessRequest {
	return &pluginv1.AccessRequest{Login: []byte("anna@uno.example"), Sender: []byte("anna@uno.example"), SenderOurs: true,
		Recipients: []*pluginv1.Recipient{{Address: []byte("b@due.example"), Type: string(pec.Certified)}},
		Message:    &pluginv1.Message{Content: &pluginv1.Message_Inline{Inline: []byte(text)}, Size: int64(len(text))}}
}

func TestAccess(t *testing.T) {
	var closed bool
	s := Access(strict{closed: &closed})
	decide := s.(sdk.AccessService).Decide
	r, err := decide(context.Background(), request("From: anna@uno.example\r\nTo: b@due.example\r\n\r\n"))
	if err != nil || r.GetVerdict() != pluginv1.AccessVerdict_ACCESS_VERDICT_ACCEPT {
		t.Errorf("%v, %v", r, err)
	}
	r, err = decide(context.Background(), request("From: carla@uno.example\r\nTo: b@due.example\r\n\r\n"))
	if err != nil || r.GetVerdict() != pluginv1.AccessVerdict_ACCESS_VERDICT_REFUSE || r.GetReasons()[0].GetCause() != "from-differs" {
		t.Errorf("%v, %v", r, err)
	}
	if _, err = decide(context.Background(), request("From: mallory@uno.example\r\n\r\n")); err == nil {
		t.Error("the point's error is lost")
	}
	if _, err = decide(context.Background(), &pluginv1.AccessRequest{}); err == nil {
		t.Error("a request without a message was decided")
	}
	if s.(interface{ Engine() string }).Engine() != "strict" || s.(io.Closer).Close() != nil || !closed {
		t.Error("Engine and Close do not reach the point")
	}
}

func TestKinds(t *testing.T) {
	for want, s := range map[sdk.Kind]sdk.Service{sdk.KindAccess: Access(access.Builtin{}), sdk.KindReception: Reception(reception.Builtin{}), sdk.KindDelivery: Delivery(delivery.Builtin{})} {
		if s.Kind() != want || s.(interface{ Engine() string }).Engine() != "" || s.(io.Closer).Close() != nil {
			t.Errorf("%s is a %s", want, s.Kind())
		}
	}
}

// TestBadInstant: a request that cannot be read is an error, not a decision.
func TestBadInstant(t *testing.T) {
	ev := &pluginv1.Event{At: "yesterday"}
	if r, err := Delivery(delivery.Builtin{}).(sdk.DeliveryService).Decide(context.Background(), &pluginv1.DeliveryRequest{Event: ev}); err == nil {
		t.Errorf("%v", r)
	}
	req := &pluginv1.ReceptionRequest{Found: &pluginv1.Found{Event: ev}, Message: request("").Message}
	if r, err := Reception(reception.Builtin{}).(sdk.ReceptionService).Decide(context.Background(), req); err == nil {
		t.Errorf("%v", r)
	}
}
