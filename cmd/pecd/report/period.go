// Package report makes the figures that a provider reports to the authority, from the
// register and from what the daemon measures of itself (docs/rules.md, V1).
package report

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// A Period is a time of legal time that figures are about: Since <= At < Until.
type Period struct {
	Name         string    `json:"name"` // as ParsePeriod takes it
	Since, Until time.Time `json:"-"`
	First        string    `json:"first_day"` // 2026-09-01
	Last         string    `json:"last_day"`
}

var periodName = regexp.MustCompile(`^([0-9]{4})-(?:Q([1-3])|B([1-6])|(0[1-9]|1[0-2]))$`)

// ParsePeriod reads 2026-Q3, the third four months of a year (quadrimestre), 2026-B5,
// its fifth two months (bimestre), or 2026-03, a month.
func ParsePeriod(name string, zone *time.Location) (Period, error) {
	m := periodName.FindStringSubmatch(name)
	if m == nil {
		return Period{}, fmt.Errorf("%.20q is not a period: write 2026-Q1 to Q3 (four months), 2026-B1 to B6 (two months) or 2026-03", name)
	}
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0 // the expression takes digits only, or nothing
		}
		return n
	}
	year, first, length := number(m[1]), number(m[4]), 1
	if q := number(m[2]); q > 0 {
		first, length = 4*q-3, 4
	} else if b := number(m[3]); b > 0 {
		first, length = 2*b-1, 2
	}
	p := Period{Name: name, Since: time.Date(year, time.Month(first), 1, 0, 0, 0, 0, zone), Until: time.Date(year, time.Month(first+length), 1, 0, 0, 0, 0, zone)}
	p.First, p.Last = p.Since.Format(time.DateOnly), p.Until.AddDate(0, 0, -1).Format(time.DateOnly)
	return p, nil
}

// FourMonths reports whether the period is one over which availability is judged.
func (p Period) FourMonths() bool { return p.Name[5] == 'Q' }
