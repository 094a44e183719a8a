//go:build !amd64 && !arm64

package host

// architecture says that there is no filter: the numbers of the calls are not known
// to be right.
const architecture = 0

var (
	refusedHere  []uint32
	openingsHere []opening
)
