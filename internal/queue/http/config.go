package http

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// Config says where the document is, and where in it the figures are.
type Config struct {
	// URL is an http or https address, without user and password.
	URL string
	// Method is GET (default) or POST, which sends Body.
	Method string
	Body   string
	// Headers are sent with each request. They are no place for credentials.
	Headers map[string]string

	// At most one of the three: Username with Password; Token, sent as a bearer
	// token; APIKey, sent in the header APIKeyHeader (default X-API-Key) or as
	// the parameter APIKeyQuery of the address.
	Username                  string
	Password                  connect.Credential
	Token                     connect.Credential
	APIKey                    connect.Credential
	APIKeyHeader, APIKeyQuery string
	TLS                       connect.TLS

	// Backlog is the path of the number of messages that wait; required. The
	// others may be empty: then that is not told.
	Backlog, InFlight, Delayed, Dead, Arrived string
	// Oldest is the path of the age of the message that waits longest, in seconds;
	// OldestAt that of the time since when it waits. At most one.
	Oldest, OldestAt string
	// Timeout of a request with its answer, 100 ms to 5 s; default 4 s.
	Timeout time.Duration
}

func wrong(field, right, format string, args ...any) error {
	return &fleet.FieldError{Field: field, Wrong: fmt.Sprintf(format, args...), Right: right}
}

var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$") // RFC 9110, section 5.6.2

// check finds the first field that cannot be.
func (c Config) check() error {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https"):
		// Not shown: it may have a password in it.
		return wrong("url", "an address such as http://jobs:8080/stats", "is no address")
	case u.User != nil:
		return wrong("url", "an address without user and password; name them in username and password", "has a user in it")
	case u.Scheme == "http" && c.TLS.Enabled:
		return wrong("tls", "an https address, or no tls", "is set, and the address is not encrypted")
	case c.Backlog == "":
		return wrong("backlog", "a path such as queue.length", "is missing")
	case c.Oldest != "" && c.OldestAt != "":
		return wrong("oldestAt", "oldest or oldestAt", "stands beside oldest")
	case c.Method != "" && c.Method != http.MethodGet && c.Method != http.MethodPost:
		return wrong("method", "GET or POST", "is %.20q", c.Method)
	case c.Body != "" && c.Method != http.MethodPost:
		return wrong("body", "method: POST", "cannot be sent with GET")
	case c.Timeout != 0 && (c.Timeout < 100*time.Millisecond || c.Timeout > 5*time.Second):
		return wrong("timeout", "100ms to 5s", "is %s", c.Timeout)
	}
	for k, v := range c.Headers {
		if !headerName.MatchString(k) || strings.ContainsAny(v, "\r\n\x00") {
			return wrong("headers", "names and values of HTTP headers, on one line", "has %.40q, which is none", k)
		}
	}
	return c.checkAccess()
}

func (c Config) checkAccess() error {
	ways := 0
	for _, set := range []bool{c.Username != "" || c.Password != nil, c.Token != nil, c.APIKey != nil} {
		if set {
			ways++
		}
	}
	switch {
	case ways > 1:
		return wrong("token", "one of username with password, token and apiKey", "is not the only way to authenticate")
	case c.Username == "" && c.Password != nil:
		return wrong("username", "both username and password", "is missing")
	case c.APIKeyHeader != "" && c.APIKeyQuery != "":
		return wrong("apiKeyQuery", "apiKeyHeader or apiKeyQuery", "stands beside apiKeyHeader")
	case c.APIKeyHeader != "" && !headerName.MatchString(c.APIKeyHeader):
		return wrong("apiKeyHeader", "the name of an HTTP header", "%.40q is none", c.APIKeyHeader)
	}
	return nil
}
