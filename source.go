// Package pecd holds the source of what a plugin is made with. The module has no
// public home from which the writer of a plugin could fetch it, so the projects
// that `pecd plugin new` writes carry it along.
package pecd

import "embed"

// SDK is the source of the packages below plugins/sdk and of those that they
// import, by their paths in this module. It holds their tests too, which nobody
// needs there: an embed pattern cannot leave them out.
//
//go:embed go.mod go.sum LICENSE
//go:embed pec/*.go pec/message/*.go pec/daticert/*.go pec/dsn/*.go pec/directory/*.go pec/issue/*.go
//go:embed signer/*.go signer/hsm/*.go
//go:embed points/*.go points/access/*.go points/reception/*.go points/delivery/*.go
//go:embed plugins/protocol/*.go plugins/protocol/wire/*.go plugins/protocol/pointwire/*.go plugins/protocol/v1/*.go plugins/protocol/v1/plugin.proto
//go:embed plugins/sdk/*.go plugins/sdk/point/*.go plugins/sdk/sdktest/*.go
var SDK embed.FS
