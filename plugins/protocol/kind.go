package protocol

// A Kind is what a plugin is.
type Kind string

// The kinds.
const (
	KindCheck     Kind = "check"     // looks at messages
	KindAccess    Kind = "access"    // takes the place of the access point
	KindReception Kind = "reception" // of the reception point
	KindDelivery  Kind = "delivery"  // of the delivery point
)
