package daticert

import (
	"strconv"
	"strings"
	"time"
)

// Forms of giorno, ora and zona; RFC 6109, 4.4.
const (
	dayLayout  = "02/01/2006"
	hourLayout = "15:04:05"
	zoneLayout = "-0700"
)

// wholeSecond drops the fraction and the monotonic reading of t.
func wholeSecond(t time.Time) time.Time {
	return t.Add(-time.Duration(t.Nanosecond())).Round(0)
}

// checkInstant refuses what the four-digit year and the zone in minutes cannot
// hold.
func checkInstant(t time.Time) error {
	if t.IsZero() {
		return invalid("no data")
	}
	if y := t.Year(); y < 1 || y > 9999 {
		return invalid("giorno in year %d", y)
	}
	_, offset := t.Zone()
	if offset%60 != 0 || offset <= -24*3600 || offset >= 24*3600 {
		return invalid("zona of %d seconds", offset)
	}
	return nil
}

// instant returns the instant of giorno, ora and zona. It is in loc if that has
// the same offset then, else in a zone of just that offset.
func instant(day, hour, zone string, loc *time.Location) (time.Time, error) {
	if !shaped(day, "dd/dd/dddd") || !shaped(hour, "dd:dd:dd") {
		return time.Time{}, invalid("data %q %q", day, hour)
	}
	offset, err := zoneOffset(zone)
	if err != nil {
		return time.Time{}, err
	}
	// RFC 6109, 4.2 knows leap seconds; time.Time does not.
	hour, leap := strings.CutSuffix(hour, ":60")
	if leap {
		hour += ":59"
	}
	t, err := time.ParseInLocation(dayLayout+" "+hourLayout, day+" "+hour, time.FixedZone("", offset))
	if err != nil {
		return time.Time{}, invalid("data %q %q", day, hour)
	}
	if leap {
		t = t.Add(time.Second)
	}
	if loc != nil {
		if _, o := t.In(loc).Zone(); o == offset {
			t = t.In(loc)
		}
	}
	return t, nil
}

// zoneOffset reads "+0200", and "+02:00" as RFC 6109, 4.2 writes it; in seconds.
func zoneOffset(zone string) (int, error) {
	if !shaped(zone, "sdddd") && !shaped(zone, "sdd:dd") {
		return 0, invalid("zona %q", zone)
	}
	hours, _ := strconv.Atoi(zone[1:3]) // digits, as shaped has seen
	minutes, _ := strconv.Atoi(zone[len(zone)-2:])
	if hours > 23 || minutes > 59 {
		return 0, invalid("zona %q", zone)
	}
	offset := hours*3600 + minutes*60
	if zone[0] == '-' {
		offset = -offset
	}
	return offset, nil
}

// shaped reports whether s has the form: d is a digit, s a sign, all else
// itself. Package time alone is too generous: it takes fractions of a second.
func shaped(s, form string) bool {
	if len(s) != len(form) {
		return false
	}
	for i := range len(form) {
		c := s[i]
		switch form[i] {
		case 'd':
			if c < '0' || c > '9' {
				return false
			}
		case 's':
			if c != '+' && c != '-' {
				return false
			}
		default:
			if c != form[i] {
				return false
			}
		}
	}
	return true
}
