package config

import (
	"net"
	"strconv"
	"time"
)

// Canary is a certified message that the daemon has a user send to himself on a
// schedule, to see the whole way. It is counted in reports as any other.
type Canary struct {
	// Credentials is a file that only the daemon may read (0600): the user's address
	// and, on the next line, his password; empty: no canary.
	Credentials string `toml:"credentials"`
	// Interval is how often one is sent. Default: "15m".
	Interval string `toml:"interval"`
	// Submission is where it is submitted, host:port, with STARTTLS. Default:
	// "127.0.0.1:587".
	Submission string `toml:"submission"`
}

// Every is Interval as a duration; the configuration has checked it.
func (c Canary) Every() time.Duration { return duration(c.Interval) }

func (c *Config) canaryDefaults() {
	if c.Canary.Interval == "" {
		c.Canary.Interval = "15m"
	}
	if c.Canary.Submission == "" {
		c.Canary.Submission = "127.0.0.1:587"
	}
}

// checkCanary looks at the canary.
func (c *Config) checkCanary(bad func(key, why, fix string)) {
	c.checkFile(bad, "canary.credentials", c.Canary.Credentials, false)
	c.checkSpan(bad, "canary.interval", c.Canary.Interval, 5*time.Second, 24*time.Hour, `write "15m"`)
	if _, _, err := net.SplitHostPort(c.Canary.Submission); err != nil {
		bad("canary.submission", strconv.Quote(c.Canary.Submission)+" is not host:port", `write for example "127.0.0.1:587"`)
	}
}
