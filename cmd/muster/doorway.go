package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
	nkube "muster.dev/muster/internal/nodes/kube"
	"muster.dev/muster/internal/operator"
	"muster.dev/muster/internal/sandbox/gateway"
	skube "muster.dev/muster/internal/sandbox/kube"
)

// planeKeys reads the keys of the control plane from its store.
func (k *cluster) planeKeys(ctx context.Context, read func(context.Context, fleet.Settings) (*planeKeys, error)) (*planeKeys, error) {
	plane, err := k.c.store.openPlane(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := read(ctx, plane.store)
	if cerr := plane.close(); cerr != nil {
		k.log.Error("close the store", "error", cerr)
	}
	return keys, err
}

// openDoorway opens what runners dial in at: the control plane's gateway, or a
// consumer's.
func (k *cluster) openDoorway(ctx context.Context, keys *planeKeys) (net.Listener, *http.Server, error) {
	cert, err := k.o.gateway.certificate(keys)
	if err != nil {
		return nil, nil, err
	}
	if k.door, err = k.findDoor(ctx, cert.authority); err != nil {
		return nil, nil, err
	}
	if k.peers, err = k.toPeers(cert.authority); err != nil {
		return nil, nil, err
	}
	l, err := listenGateway(k.o.gateway.listen)
	if err != nil {
		return nil, nil, err
	}
	k.exchange, k.watch = skube.NewExchange(), nkube.NewWatch(k.client)
	k.gateway = gateway.New(gateway.Options{
		Key: keys.Session, Verify: gateway.TokenReviews(k.client), Peers: k.exchange.Peer, Elsewhere: k.owners.elsewhere, Logger: k.log,
	})
	return l, k.gateway.Server(cert.config()), nil
}

// withDoorway works while the doorway is served; it ends when one of the two
// does.
func withDoorway(ctx context.Context, l net.Listener, s *http.Server, work func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		if err := s.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("serve the gateway: %w", err)
			stop()
		}
	}()
	err := work(ctx)
	_ = s.Close()
	return errors.Join(err, <-failed)
}

// toPeers reaches other processes of the control plane at their doorways, with
// the certificate that runners trust, too.
func (k *cluster) toPeers(authority []byte) (http.RoundTripper, error) {
	host, _, err := net.SplitHostPort(k.o.gateway.address)
	if err != nil {
		return nil, usageError("--gateway-address %q: want host:port such as muster-gateway.muster.svc:7443", k.o.gateway.address)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("the authority of the gateway's certificate is not PEM: %w", fleet.ErrCorrupt)
	}
	d := net.Dialer{Timeout: 3 * time.Second}
	return &http.Transport{
		DialContext: d.DialContext, TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: 15 * time.Second,
		// The doorway closes what is idle after 5 s.
		IdleConnTimeout: 4 * time.Second, MaxIdleConnsPerHost: 8,
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12},
	}, nil
}

// owners knows who carries sandboxes, from the stores of the fleets here that
// have consumers. Its zero value knows of nobody.
type owners struct {
	mu     sync.Mutex
	stores map[operator.Key]fleet.Store
	own    map[string]bool // names of consumers in this process
}

// set makes a fleet's store one to ask; nil: not any more.
func (o *owners) set(k operator.Key, s fleet.Store) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stores == nil {
		o.stores = map[operator.Key]fleet.Store{}
	}
	if o.stores[k] = s; s == nil {
		delete(o.stores, k)
	}
}

// unset ends what set began, unless another store took its place.
func (o *owners) unset(k operator.Key, s fleet.Store) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stores[k] == s {
		delete(o.stores, k)
	}
}

// is notes that a consumer is in this process, or not any more.
func (o *owners) is(name string, here bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.own == nil {
		o.own = map[string]bool{}
	}
	if o.own[name] = true; !here {
		delete(o.own, name)
	}
}

// elsewhere is gateway.Options.Elsewhere.
func (o *owners) elsewhere(ctx context.Context, id fleet.SandboxID) (string, bool) {
	o.mu.Lock()
	stores := make([]fleet.Store, 0, len(o.stores))
	for _, s := range o.stores {
		stores = append(stores, s)
	}
	o.mu.Unlock()
	for _, s := range stores {
		b, err := s.Sandbox(ctx, id)
		if err != nil || b.State == fleet.SandboxGone {
			continue // of another fleet, or it cannot be read now: the runner comes again
		}
		o.mu.Lock()
		here := o.own[b.Owner]
		o.mu.Unlock()
		if b.Owner == "" || here {
			return "", false
		}
		all, err := s.Consumers(ctx)
		if err != nil {
			return "", false
		}
		for _, c := range all {
			if c.Name == b.Owner && c.Age < fleet.ConsumerSilence {
				return c.Address, c.Address != ""
			}
		}
		return "", false
	}
	return "", false
}
