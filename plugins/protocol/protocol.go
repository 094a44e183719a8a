// Package protocol holds what pecd and its plugins agree on beside the messages
// of plugin.proto: the handshake, the environment, the limits. It does nothing.
package protocol

import "github.com/hashicorp/go-plugin"

// Version is the version of the protocol that this tree speaks. Older ones that
// it still speaks would stand in Versions.
const Version = 1

// Versions are all versions that the host speaks.
var Versions = []int{Version}

// Name is the name of the one set of services in go-plugin's terms.
const Name = "pecd"

// Handshake is go-plugin's handshake. The cookie keeps people from starting a
// plugin by hand without knowing; it protects nothing.
var Handshake = plugin.HandshakeConfig{
	MagicCookieKey:   "PECD_PLUGIN",
	MagicCookieValue: "d0f4b6f1-posta-elettronica-certificata",
}

// What the host sets in a plugin's environment, beside what go-plugin sets.
const (
	// EnvState names a directory that belongs to the plugin and outlives it.
	EnvState = "PECD_PLUGIN_STATE"
	// EnvName is the plugin's name in pecd's configuration.
	EnvName = "PECD_PLUGIN_NAME"
)

// Limits, in octets unless said otherwise.
const (
	MaxInline   = 64 << 10 // of a message that travels in the call
	MaxAnswer   = 1 << 20  // of any answer of a plugin
	MaxName     = 40       // of a plugin's name
	MaxShort    = 100      // of a version
	MaxText     = 500      // of a sentence
	MaxVirus    = 200      // of a virus' name
	MaxDetail   = 1000     // of what is for the operator's log
	MaxProblems = 100      // problems of a configuration
	MaxReasons  = 100      // reasons of a refusal
	MaxKeys     = 200      // settings of a plugin
)

// Window is the flow control window of both sides, in octets.
const Window = 1 << 20
