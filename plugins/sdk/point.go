package sdk

import (
	"context"

	pluginv1 "pecd/plugins/protocol/v1"
)

// The services of plugins that take the place of a point, in the protocol's own
// terms. Package point makes them of access.Point and the like.
type (
	// An AccessService decides in place of the access point.
	AccessService interface {
		Service
		Decide(context.Context, *pluginv1.AccessRequest) (*pluginv1.AccessResponse, error)
	}
	// A ReceptionService decides in place of the reception point.
	ReceptionService interface {
		Service
		Decide(context.Context, *pluginv1.ReceptionRequest) (*pluginv1.ReceptionResponse, error)
	}
	// A DeliveryService decides in place of the delivery point.
	DeliveryService interface {
		Service
		Decide(context.Context, *pluginv1.DeliveryRequest) (*pluginv1.DeliveryResponse, error)
	}
)
