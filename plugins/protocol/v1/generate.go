// Package pluginv1 is the first version of the protocol between pecd and its
// plugins, generated from plugin.proto, which is its manual.
package pluginv1

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative plugin.proto
