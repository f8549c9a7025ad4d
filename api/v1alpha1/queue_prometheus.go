package v1alpha1

import "time"

// PrometheusSignal reads the demand from Prometheus, or what speaks its API; see
// docs/queues/prometheus.md. Each query must give one number.
type PrometheusSignal struct {
	URL     string            `json:"url" doc:"http or https, such as http://prometheus:9090; the path before /api/v1 where there is one"`
	Headers map[string]string `json:"headers,omitempty" doc:"Sent with each request, such as X-Scope-OrgID; no place for secrets"`

	Backlog  string `json:"backlog" doc:"Query for the number of messages that wait"`
	InFlight string `json:"inFlight,omitempty" doc:"Query for the number that consumers hold"`
	Delayed  string `json:"delayed,omitempty" doc:"Query for the number that wait for their time"`
	Dead     string `json:"dead,omitempty" doc:"Query for the number set aside"`
	Arrived  string `json:"arrived,omitempty" doc:"Query for a counter of messages enqueued; not its rate"`
	Oldest   string `json:"oldest,omitempty" doc:"Query for the age of the message that waits longest, in seconds"`
	AsOf     string `json:"asOf,omitempty" doc:"Query for the Unix time at which the figures were true, such as min(timestamp(queue_length))"`

	// Empty says what a query means that gives no sample: error (default), or zero.
	Empty string `json:"empty,omitempty" enum:"error,zero"`
	// StaleAfter is how old a sample may be. 1s to 1h, default 2m.
	StaleAfter string `json:"staleAfter,omitempty" doc:"How old a sample may be, 1s to 1h; at least twice the interval of scrapes; default 2m"`

	Username string      `json:"username,omitempty" doc:"Basic authentication"`
	Password *Credential `json:"password,omitempty"`
	Token    *Credential `json:"token,omitempty" doc:"Sent as a bearer token"`
	TLS      *QueueTLS   `json:"tls,omitempty" doc:"Where https needs more than the system's authorities"`
	Timeout  string      `json:"timeout,omitempty" doc:"Of a query, 100ms to 5s; default 4s"`
}

func (q *PrometheusSignal) validate(ps *problems, field string) {
	for _, f := range []struct{ name, query string }{
		{"backlog", q.Backlog}, {"inFlight", q.InFlight}, {"delayed", q.Delayed}, {"dead", q.Dead}, {"arrived", q.Arrived}, {"oldest", q.Oldest}, {"asOf", q.AsOf},
	} {
		switch {
		case f.name == "backlog" && f.query == "":
			ps.addf(sub(field, f.name), "a query such as sum(queue_length)", "is missing")
		case len(f.query) > 64<<10:
			ps.addf(sub(field, f.name), "at most 64 KiB", "has %d bytes", len(f.query))
		}
	}
	ps.oneOf(sub(field, "empty"), q.Empty, "error", "zero")
	ps.duration(sub(field, "staleAfter"), q.StaleAfter, time.Second, time.Hour, "")
	ps.duration(sub(field, "timeout"), q.Timeout, 100*time.Millisecond, 5*time.Second, "")
	ps.service(field, httpService{url: q.URL, headers: q.Headers, username: q.Username, password: q.Password, token: q.Token, tls: q.TLS})
}
