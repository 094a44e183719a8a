// Package point makes a plugin that takes the place of the access, reception or
// delivery point of pecd; typically it wraps the built-in one, access.Builtin
// and the like, and changes what it decides. It decides within the law only:
// pecd puts off what the guards of the points do not allow.
package point

import (
	"context"
	"io"

	"pecd/pec/message"
	"pecd/plugins/protocol/pointwire"
	pluginv1 "pecd/plugins/protocol/v1"
	"pecd/plugins/sdk"
	"pecd/points/access"
	"pecd/points/delivery"
	"pecd/points/reception"
)

// Access returns the service that takes the place of the access point. An error
// of p puts the message off. If p has a method Engine() string or is an
// io.Closer, so is the service; that goes for Reception and Delivery too.
func Access(p access.Point) sdk.Service { return accessService{p, more{p}} }

// Reception returns the service that takes the place of the reception point. Of
// the provider that signed, an arrival has name and unit only, and it has no
// Found.Original: the message itself holds it.
func Reception(p reception.Point) sdk.Service { return receptionService{p, more{p}} }

// Delivery returns the service that takes the place of the delivery point.
func Delivery(p delivery.Point) sdk.Service { return deliveryService{p, more{p}} }

// more is what a point may offer beside its decision.
type more struct{ point any }

// Engine says what works inside the point.
func (m more) Engine() string {
	if e, ok := m.point.(interface{ Engine() string }); ok {
		return e.Engine()
	}
	return ""
}

// Close implements io.Closer.
func (m more) Close() error {
	if c, ok := m.point.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// with calls f with the message that m leads to.
func with[T any](m *pluginv1.Message, f func(*message.Message) (T, error)) (T, error) {
	var none T
	r, err := sdk.OpenContent(m)
	if err != nil {
		return none, err
	}
	defer r.Close()
	msg, err := message.Read(r)
	if err != nil {
		return none, err
	}
	return f(msg)
}

type accessService struct {
	point access.Point
	more
}

// Kind implements sdk.Service.
func (accessService) Kind() sdk.Kind { return sdk.KindAccess }

// Decide implements sdk.AccessService.
func (s accessService) Decide(ctx context.Context, r *pluginv1.AccessRequest) (*pluginv1.AccessResponse, error) {
	return with(r.GetMessage(), func(m *message.Message) (*pluginv1.AccessResponse, error) {
		d, err := s.point.Decide(ctx, pointwire.AccessOf(r, m))
		return pointwire.AccessDecision(d), err
	})
}

type receptionService struct {
	point reception.Point
	more
}

// Kind implements sdk.Service.
func (receptionService) Kind() sdk.Kind { return sdk.KindReception }

// Decide implements sdk.ReceptionService.
func (s receptionService) Decide(ctx context.Context, r *pluginv1.ReceptionRequest) (*pluginv1.ReceptionResponse, error) {
	return with(r.GetMessage(), func(m *message.Message) (*pluginv1.ReceptionResponse, error) {
		a, err := pointwire.ReceptionOf(r, m)
		if err != nil {
			return nil, err
		}
		d, err := s.point.Decide(ctx, a)
		return pointwire.ReceptionDecision(d), err
	})
}

type deliveryService struct {
	point delivery.Point
	more
}

// Kind implements sdk.Service.
func (deliveryService) Kind() sdk.Kind { return sdk.KindDelivery }

// Decide implements sdk.DeliveryService.
func (s deliveryService) Decide(ctx context.Context, r *pluginv1.DeliveryRequest) (*pluginv1.DeliveryResponse, error) {
	h, err := pointwire.DeliveryOf(r)
	if err != nil {
		return nil, err
	}
	d, err := s.point.Decide(ctx, h)
	return pointwire.DeliveryDecision(d), err
}
