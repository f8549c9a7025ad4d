package gateway

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// maxUnproven bounds connections that are no stream yet, in all and of one
	// address. A thousand sandboxes that start at once fit; many of them may
	// share their node's address.
	maxUnproven        = 4096
	maxUnprovenOfOne   = 512
	headTimeout        = 10 * time.Second
	maxHead            = 16 << 10
	unprovenIdleEndure = 5 * time.Second
)

// Server returns an HTTP server for the gateway alone, with the bounds a port
// needs that everybody in the cluster can reach. The caller serves it with
// ServeTLS(l, "", "") and closes it; streams are not the server's any more and
// go on until their peers end them.
func (g *Gateway) Server(t *tls.Config) *http.Server {
	t = t.Clone()
	t.NextProtos = []string{"http/1.1"} // a stream takes its connection whole
	t.MinVersion = max(t.MinVersion, tls.VersionTLS12)
	c := &crowd{all: maxUnproven, each: maxUnprovenOfOne, of: map[string]int{}, known: map[net.Conn]string{}}
	return &http.Server{
		Handler: g, TLSConfig: t, ConnState: c.state,
		// Bounds the TLS handshake, too.
		ReadHeaderTimeout: headTimeout,
		IdleTimeout:       unprovenIdleEndure,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
}

// crowd counts connections that are no stream yet and closes those beyond the
// bounds.
type crowd struct {
	all, each int

	mu    sync.Mutex
	of    map[string]int
	known map[net.Conn]string
}

func (c *crowd) state(nc net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		host, _, err := net.SplitHostPort(nc.RemoteAddr().String())
		if err != nil {
			host = nc.RemoteAddr().String()
		}
		if !c.enter(nc, host) {
			_ = nc.Close() // the server notices at its first read
		}
	case http.StateHijacked, http.StateClosed:
		c.leave(nc)
	}
}

func (c *crowd) enter(nc net.Conn, host string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= c.all || c.of[host] >= c.each {
		return false
	}
	c.known[nc] = host
	c.of[host]++
	return true
}

func (c *crowd) leave(nc net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	host, ok := c.known[nc]
	if !ok {
		return
	}
	delete(c.known, nc)
	if c.of[host]--; c.of[host] == 0 {
		delete(c.of, host)
	}
}
