package prometheus

import (
	"fmt"
	"net/url"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// Config says where Prometheus is and what to ask it.
type Config struct {
	// URL is its http or https address without user and password, with the path
	// before /api/v1 where there is one.
	URL string
	// Headers are sent with each request. They are no place for credentials.
	Headers map[string]string
	// Username with Password, or Token, sent as a bearer token, or neither.
	Username string
	Password connect.Credential
	Token    connect.Credential
	TLS      connect.TLS

	// Backlog is the query for the number of messages that wait; required. The
	// others may be empty: then that is not told. Arrived is a counter.
	Backlog, InFlight, Delayed, Dead, Arrived string
	// Oldest is the query for the age of the message that waits longest, in
	// seconds.
	Oldest string
	// AsOf is the query for the Unix time of the samples.
	AsOf string
	// EmptyIsZero takes a query that gives no sample as zero.
	EmptyIsZero bool
	// StaleAfter is how old samples may be, 1 s to 1 h; default 2 m, twice the
	// interval at which Prometheus scrapes unless told otherwise.
	StaleAfter time.Duration
	// Timeout of a query, 100 ms to 5 s; default 4 s.
	Timeout time.Duration
}

func wrong(field, right, format string, args ...any) error {
	return &fleet.FieldError{Field: field, Wrong: fmt.Sprintf(format, args...), Right: right}
}

// check finds the first field that cannot be.
func (c Config) check() error {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https"):
		// Not shown: it may have a password in it.
		return wrong("url", "an address such as http://prometheus:9090", "is no address")
	case u.User != nil:
		return wrong("url", "an address without user and password; name them in username and password", "has a user in it")
	case u.Scheme == "http" && c.TLS.Enabled:
		return wrong("tls", "an https address, or no tls", "is set, and the address is not encrypted")
	case c.Backlog == "":
		return wrong("backlog", "a query such as sum(queue_length)", "is missing")
	case c.StaleAfter != 0 && (c.StaleAfter < time.Second || c.StaleAfter > time.Hour):
		return wrong("staleAfter", "1s to 1h", "is %s", c.StaleAfter)
	case c.Timeout != 0 && (c.Timeout < 100*time.Millisecond || c.Timeout > 5*time.Second):
		return wrong("timeout", "100ms to 5s", "is %s", c.Timeout)
	case c.Username == "" && c.Password != nil:
		return wrong("username", "both username and password", "is missing")
	case c.Token != nil && c.Username != "":
		return wrong("token", "token, or username with password", "is not the only way to authenticate")
	}
	return nil
}
