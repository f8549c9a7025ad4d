package egress

import (
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"
)

// deniedError is a refusal by policy; its text is what the client reads.
type deniedError struct {
	name string // host:port
	why  string // "is not on the allow list (…)"
}

func (e *deniedError) Error() string { return e.name + " " + e.why }

func notListed(host string, port uint16) error {
	return &deniedError{hostPort(host, port), "is not on the allow list (spec.templates[].network.allow)"}
}

// Callbacks for denials are bounded, so that an agent that asks in a loop
// does not fill its own log with them; every denial is counted.
const (
	denyAgain = time.Minute // the same name is told of at most this often
	denyNames = 100         // names told of per such interval
)

type denials struct {
	since time.Time
	told  map[string]bool
}

// deny counts a refusal and tells of it, unless that was done lately.
func (p *Proxy) deny(e *deniedError) {
	p.denied.Add(1)
	if p.opts.OnDeny == nil {
		return
	}
	p.mu.Lock()
	if now := time.Now(); p.told.told == nil || now.Sub(p.told.since) >= denyAgain {
		p.told = denials{since: now, told: map[string]bool{}}
	}
	tell := !p.told.told[e.name] && len(p.told.told) < denyNames
	if tell {
		p.told.told[e.name] = true
	}
	p.mu.Unlock()
	if tell {
		p.opts.OnDeny(e.name, e.why)
	}
}

// fail answers a request that cannot be served.
func (p *Proxy) fail(w http.ResponseWriter, err error) {
	var denied *deniedError
	if errors.As(err, &denied) {
		p.deny(denied)
		http.Error(w, "muster: "+denied.Error(), http.StatusForbidden)
		return
	}
	http.Error(w, "muster: "+err.Error(), http.StatusBadGateway)
}

func hostPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
