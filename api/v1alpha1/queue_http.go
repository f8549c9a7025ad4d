package v1alpha1

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"time"
)

// HTTPSignal reads the demand from a JSON document at an address; see
// docs/queues/http.md. Paths are those of GJSON.
type HTTPSignal struct {
	URL     string            `json:"url" doc:"http or https, without user and password"`
	Method  string            `json:"method,omitempty" enum:"GET,POST" doc:"Default GET"`
	Body    string            `json:"body,omitempty" doc:"JSON to send, with method: POST"`
	Headers map[string]string `json:"headers,omitempty" doc:"Sent with each request; no place for secrets"`

	Backlog  string `json:"backlog" doc:"Path of the number of messages that wait; @this is the whole document"`
	InFlight string `json:"inFlight,omitempty" doc:"Path of the number that consumers hold"`
	Delayed  string `json:"delayed,omitempty" doc:"Path of the number that wait for their time"`
	Dead     string `json:"dead,omitempty" doc:"Path of the number set aside"`
	Arrived  string `json:"arrived,omitempty" doc:"Path of the number ever enqueued"`
	Oldest   string `json:"oldest,omitempty" doc:"Path of the age of the message that waits longest, in seconds"`
	OldestAt string `json:"oldestAt,omitempty" doc:"Path of the time since when it waits: RFC 3339, or seconds or milliseconds since 1970"`

	Username     string      `json:"username,omitempty" doc:"Basic authentication"`
	Password     *Credential `json:"password,omitempty"`
	Token        *Credential `json:"token,omitempty" doc:"Sent as a bearer token"`
	APIKey       *Credential `json:"apiKey,omitempty"`
	APIKeyHeader string      `json:"apiKeyHeader,omitempty" doc:"Header that apiKey is sent in; default X-API-Key"`
	APIKeyQuery  string      `json:"apiKeyQuery,omitempty" doc:"Parameter of the address that apiKey is sent in, instead"`
	TLS          *QueueTLS   `json:"tls,omitempty" doc:"Where https needs more than the system's authorities"`
	Timeout      string      `json:"timeout,omitempty" doc:"Of a request, 100ms to 5s; default 4s"`
}

func (q *HTTPSignal) validate(ps *problems, field string) {
	ps.oneOf(sub(field, "method"), q.Method, "GET", "POST")
	if q.Body != "" && q.Method != "POST" {
		ps.addf(sub(field, "body"), "method: POST", "cannot be sent with GET")
	}
	ps.required(sub(field, "backlog"), q.Backlog, "a path such as queue.length")
	for _, f := range []struct{ name, path string }{
		{"inFlight", q.InFlight}, {"delayed", q.Delayed}, {"dead", q.Dead}, {"arrived", q.Arrived}, {"oldest", q.Oldest}, {"oldestAt", q.OldestAt},
	} {
		ps.printable(sub(field, f.name), f.path, 1024)
	}
	if q.Oldest != "" && q.OldestAt != "" {
		ps.addf(sub(field, "oldestAt"), "oldest or oldestAt", "stands beside oldest")
	}
	ps.duration(sub(field, "timeout"), q.Timeout, 100*time.Millisecond, 5*time.Second, "")
	ps.credential(sub(field, "apiKey"), q.APIKey)
	switch {
	case q.APIKey == nil && (q.APIKeyHeader != "" || q.APIKeyQuery != ""):
		ps.addf(sub(field, "apiKey"), "the key that is to be sent", "is missing")
	case q.APIKeyHeader != "" && q.APIKeyQuery != "":
		ps.addf(sub(field, "apiKeyQuery"), "apiKeyHeader or apiKeyQuery", "stands beside apiKeyHeader")
	case q.APIKeyHeader != "" && !headerSyntax.MatchString(q.APIKeyHeader):
		ps.addf(sub(field, "apiKeyHeader"), "the name of an HTTP header", "%q is none", clip(q.APIKeyHeader))
	}
	if q.APIKey != nil && (q.Token != nil || q.Username != "" || q.Password != nil) {
		ps.addf(sub(field, "apiKey"), "one of username with password, token and apiKey", "is not the only way to authenticate")
	}
	ps.service(field, httpService{url: q.URL, headers: q.Headers, username: q.Username, password: q.Password, token: q.Token, tls: q.TLS})
}

// httpService is what all signals over HTTP have.
type httpService struct {
	url             string
	headers         map[string]string
	username        string
	password, token *Credential
	tls             *QueueTLS
}

var headerSyntax = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$") // RFC 9110, section 5.6.2

func (ps *problems) service(field string, s httpService) {
	where := sub(field, "url")
	u, err := url.Parse(s.url)
	switch {
	case s.url == "":
		ps.addf(where, "an http or https address", "is missing")
	case err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https"):
		// Not shown: it may have a password in it.
		ps.addf(where, "an http or https address", "is none")
	case u.User != nil:
		ps.addf(where, "an address without user and password, and the fields username and password", "has a user in it")
	case u.Scheme == "http" && s.tls != nil:
		ps.addf(sub(field, "tls"), "an https address, or no tls", "is set, and the address is not encrypted")
	}
	for _, k := range slices.Sorted(maps.Keys(s.headers)) {
		switch at := in(sub(field, "headers"), k); {
		case !headerSyntax.MatchString(k):
			ps.addf(at, "the name of an HTTP header", "%q is none", clip(k))
		case k == "Authorization":
			ps.addf(at, "the fields token, or username and password", "is no place for a secret")
		default:
			ps.printable(at, s.headers[k], 4096)
		}
	}
	ps.credential(sub(field, "password"), s.password)
	ps.credential(sub(field, "token"), s.token)
	ps.tls(sub(field, "tls"), s.tls)
	ps.printable(sub(field, "username"), s.username, 255)
	if s.username == "" && s.password != nil {
		ps.addf(sub(field, "username"), "both username and password", "is missing")
	}
	if s.token != nil && (s.username != "" || s.password != nil) {
		ps.addf(sub(field, "token"), "token, or username and password", "is not the only way to authenticate")
	}
}
