//go:build linux

package dialout

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"muster.dev/muster/internal/protocol"
)

const (
	// maxHops is how often one request is sent on. One is usual, two where the
	// owner changes meanwhile.
	maxHops = 3
	// hopTimeout bounds connecting and TLS where we were sent to: an owner that
	// is gone with its node answers nothing, and another can be asked for.
	hopTimeout = 3 * time.Second
)

// unreached is an error of somebody who gave no answer.
type unreached struct{ error }

func (u *unreached) Unwrap() error { return u.error }

// dial asks where the last request was taken, and at the gateway's own address
// where that fails: at once when nobody answers there, else the next time.
func (d *Dialer) dial(ctx context.Context, path string) (net.Conn, error) {
	q, err := d.authorization(ctx, path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d.mu.Lock()
	via := d.via
	d.mu.Unlock()
	if via != "" {
		c, err := d.follow(ctx, via, q)
		if err == nil {
			return c, nil
		}
		d.mu.Lock()
		if d.via == via {
			d.via = ""
		}
		d.mu.Unlock()
		var silent *unreached
		if !errors.As(err, &silent) || ctx.Err() != nil {
			return nil, err
		}
	}
	return d.follow(ctx, d.host, q)
}

// follow asks at an address and goes where it is sent.
func (d *Dialer) follow(ctx context.Context, at string, q request) (net.Conn, error) {
	for n := 0; ; n++ {
		c, to, err := d.ask(ctx, at, q)
		switch {
		case err != nil:
			return nil, err
		case to == "":
			d.mu.Lock()
			if d.via = at; at == d.host {
				d.via = ""
			}
			d.mu.Unlock()
			return c, nil
		case n == maxHops:
			return nil, fmt.Errorf("the control plane sent this sandbox on %d times, at last from %s to %s", n+1, at, to)
		}
		at = to
	}
}

// ask connects to one address and asks there. Whoever it is, the certificate
// must be for the gateway's name. to is not empty where it sends us on.
func (d *Dialer) ask(ctx context.Context, at string, q request) (c net.Conn, to string, err error) {
	connecting := ctx
	if at != d.host {
		var cancel context.CancelFunc
		connecting, cancel = context.WithTimeout(ctx, hopTimeout)
		defer cancel()
	}
	nd := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: deadAfter / 2, Interval: deadAfter / 6, Count: 3},
		Control:         userTimeout,
	}
	raw, err := nd.DialContext(connecting, "tcp", at)
	if err != nil {
		return nil, "", &unreached{fmt.Errorf("connect to the control plane: %w", err)}
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	tc := tls.Client(raw, d.tls)
	if err = tc.HandshakeContext(connecting); err != nil {
		err = &unreached{fmt.Errorf("connect to the control plane: %w", err)}
	} else {
		c, to, err = d.upgrade(tc, at, q)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil || to != "" {
		_ = raw.Close()
		return nil, to, err
	}
	return c, "", nil
}

// target is the host:port of a Location: https, the path that was asked for, and
// nothing else.
func target(location, path string) (string, error) {
	rest, secure := strings.CutPrefix(location, "https://")
	at, same := strings.CutSuffix(rest, path)
	host, port, err := net.SplitHostPort(at)
	n, perr := strconv.ParseUint(port, 10, 16)
	if !secure || !same || err != nil || perr != nil || n == 0 || net.JoinHostPort(host, port) != at || !isHost(host) {
		return "", protocol.Violation("the control plane sends this sandbox to %.200q; want https://host:port%s", location, path)
	}
	return at, nil
}

// isHost reports whether s is made of what names and addresses are made of.
func isHost(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-:", r)
	})
}
