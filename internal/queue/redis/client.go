package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// answer is how long a server may take to answer; the contract allows 5 s.
const answer = 4 * time.Second

// quiet keeps the library from writing to stderr: what fails is returned.
var quiet = sync.OnceFunc(logging.Disable)

// client returns the connection pool. It is made at the first call, since the
// sentinels' password may have to be fetched.
func (s *Source) client(ctx context.Context) (redis.UniversalClient, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("closed: %w", fleet.ErrUnavailable)
	}
	if s.pool != nil {
		return s.pool, nil
	}
	o := s.cfg.options()
	switch {
	case s.cfg.Cluster:
		s.pool = redis.NewClusterClient(o.Cluster())
	case s.cfg.Sentinel != nil:
		password, err := secret(ctx, s.cfg.Sentinel.Password)
		if err != nil {
			return nil, err
		}
		o.SentinelUsername, o.SentinelPassword = s.cfg.Sentinel.Username, password
		s.pool = redis.NewFailoverClient(o.Failover())
	default:
		s.pool = redis.NewClient(o.Simple())
	}
	return s.pool, nil
}

func (c *Config) options() *redis.UniversalOptions {
	o := &redis.UniversalOptions{
		Addrs: c.Addresses,
		DB:    c.DB,
		// RESP2 does all we need and is what proxies speak, too.
		Protocol:              2,
		DialTimeout:           answer,
		ReadTimeout:           answer,
		WriteTimeout:          answer,
		PoolTimeout:           answer,
		ContextTimeoutEnabled: true,
		// A script that was sent may have run: who called decides what to do.
		MaxRetries:               -1,
		DialerRetries:            1,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		Dialer:                   dialer(c.TLS),
	}
	if c.Sentinel != nil {
		o.MasterName = c.Sentinel.Master
	}
	if c.Password != nil || c.Username != "" {
		o.CredentialsProviderContext = func(ctx context.Context) (string, string, error) {
			password, err := secret(ctx, c.Password)
			return c.Username, password, err
		}
	}
	return o
}

// secret reads a credential. One that is not there must not be taken for a
// queue that is not there.
func secret(ctx context.Context, c connect.Credential) (string, error) {
	v, err := c.Value(ctx)
	if err == nil || errors.Is(err, fleet.ErrUnavailable) || ctx.Err() != nil {
		return v, err
	}
	return "", fmt.Errorf("%w: %s", fleet.ErrDenied, err.Error())
}

// dialer reads the certificates anew at each connection.
func dialer(t connect.TLS) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, answer)
		defer cancel()
		plain := net.Dialer{KeepAlive: 15 * time.Second}
		config, err := t.Config()
		if err != nil {
			return nil, err
		}
		if config == nil {
			return plain.DialContext(ctx, network, address)
		}
		return (&tls.Dialer{NetDialer: &plain, Config: config}).DialContext(ctx, network, address)
	}
}

// node is the server that has the queue.
func (s *Source) node(ctx context.Context) (*redis.Client, error) {
	pool, err := s.client(ctx)
	if err != nil {
		return nil, err
	}
	switch c := pool.(type) {
	case *redis.Client:
		return c, nil
	case *redis.ClusterClient:
		return c.MasterForKey(ctx, s.keys[0])
	}
	return nil, errors.ErrUnsupported
}
