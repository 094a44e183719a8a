package conform

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// marks stand before the lines of a report.
var marks = map[Outcome]string{Passed: "ok  ", Failed: "FAIL", Skipped: "-   "}

// Human returns a function that reports to w, for people. What is written is
// lost if w fails.
func Human(w io.Writer) func(Result) {
	return func(r Result) {
		fmt.Fprintf(w, "%s  %-16s %6d ms", marks[r.Outcome], r.Name, r.Took/time.Millisecond)
		switch r.Outcome {
		case Skipped:
			fmt.Fprintf(w, "  %s", r.Reason)
		case Failed:
			fmt.Fprintf(w, "\n      wanted: %s\n      found:  %s", r.Wants, strings.ReplaceAll(r.Reason, "\n", "\n              "))
		}
		fmt.Fprintln(w)
	}
}
