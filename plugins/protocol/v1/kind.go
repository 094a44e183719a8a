package pluginv1

import "pecd/plugins/protocol"

// Kinds are the kinds of plugins as the protocol numbers them.
var Kinds = map[protocol.Kind]Kind{
	protocol.KindCheck:     Kind_KIND_CHECK,
	protocol.KindAccess:    Kind_KIND_ACCESS,
	protocol.KindReception: Kind_KIND_RECEPTION,
	protocol.KindDelivery:  Kind_KIND_DELIVERY,
}
