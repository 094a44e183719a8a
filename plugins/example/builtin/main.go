// Command builtin serves one of pecd's own points, unchanged, as a plugin: the
// access, reception or delivery point after its setting kind. Nobody needs it to
// run certified mail; it shows the smallest point plugin, and pecd's tests run all
// three points outside the process with it.
package main

import (
	"context"

	"pecd/plugins/sdk"
	"pecd/plugins/sdk/point"
	"pecd/points/access"
	"pecd/points/delivery"
	"pecd/points/reception"
)

func main() {
	sdk.Main(sdk.Plugin{
		Name:    "builtin",
		Version: "1.0.0",
		About:   "serves one of pecd's own points, unchanged",
		Keys:    []sdk.Key{{Name: "kind", Type: "string", Default: "", About: "The point: access, reception or delivery."}},
		Open:    open,
	})
}

// open returns the point that the table names.
func open(_ context.Context, c sdk.Config) (sdk.Service, error) {
	var t struct{ Kind sdk.Kind }
	if err := c.Decode(&t); err != nil {
		return nil, err
	}
	switch t.Kind {
	case sdk.KindAccess:
		return point.Access(access.Builtin{}), nil
	case sdk.KindReception:
		return point.Reception(reception.Builtin{}), nil
	case sdk.KindDelivery:
		return point.Delivery(delivery.Builtin{}), nil
	}
	return nil, c.Problem("kind", "it is none of the points", "write access, reception or delivery")
}
