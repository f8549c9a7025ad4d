package rabbitmq

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// session is one connection that deliveries are held on, and what lives and
// dies with it. Nothing is published on it: a broker short of memory stops
// reading from those that publish, and then from their acks too.
type session struct {
	link
	gone  chan struct{} // closed when the connection is
	stats line          // readings of the queue
	dead  line          // readings of the dead-letter queue
	most  int           // channels that deliveries may be held on
	// Guarded by Source.mu:
	lanes  []*lane
	served time.Time // when the queue last answered what only its leader can
	armed  bool      // there is a consumer of ours
}

// link is a connection with the socket below it.
type link struct {
	conn *amqp.Connection
	raw  net.Conn
}

// end closes the connection in order, or after a second without.
func (l link) end() {
	cut := time.AfterFunc(time.Second, func() { _ = l.raw.Close() })
	defer cut.Stop()
	_ = l.conn.Close() // whatever it says, the connection is gone
	_ = l.raw.Close()
}

// writer gives up on a peer that takes no bytes, which the client library would
// wait for without end.
type writer struct{ net.Conn }

func (w writer) Write(b []byte) (int, error) {
	if err := w.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return 0, err
	}
	return w.Conn.Write(b)
}

// dial connects to the first node that takes us.
func (s *Source) dial(ctx context.Context, role string) (link, error) {
	var errs []error
	for _, address := range s.cfg.Addresses {
		l, err := s.dialOne(ctx, address, role)
		if err == nil {
			return l, nil
		}
		if errs = append(errs, err); ctx.Err() != nil {
			break
		}
	}
	return link{}, errors.Join(errs...)
}

func (s *Source) dialOne(ctx context.Context, address, role string) (link, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errNoAnswer)
	defer cancel()
	failed := func(err error) (link, error) {
		return link{}, fmt.Errorf("connect to rabbitmq at %s: %w", address, classify(err))
	}
	auth, err := s.auth(ctx)
	if err != nil {
		return failed(err)
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return failed(err)
	}
	// The library has no context; a socket that is closed ends its handshake.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	var c net.Conn = writer{raw}
	if s.cfg.TLS.Enabled {
		if c, err = encrypt(ctx, c, address, s.cfg.TLS); err != nil {
			_ = raw.Close()
			return failed(err)
		}
	}
	properties := amqp.NewConnectionProperties()
	properties["connection_name"] = strings.TrimSpace("muster " + s.cfg.Name + " " + role)
	conn, err := amqp.Open(c, amqp.Config{
		SASL: []amqp.Authentication{auth}, Vhost: s.cfg.VHost, Heartbeat: s.cfg.Heartbeat,
		ChannelMax: 2047, FrameSize: 128 << 10, Properties: properties, Locale: "en_US",
	})
	if err != nil || !stop() {
		_ = raw.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return failed(err)
	}
	return link{conn: conn, raw: raw}, nil
}

func (s *Source) auth(ctx context.Context) (amqp.Authentication, error) {
	if s.cfg.External {
		return &amqp.ExternalAuth{}, nil
	}
	password, err := s.cfg.Password.Value(ctx)
	if err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	return &amqp.PlainAuth{Username: s.cfg.Username, Password: password}, nil
}

func encrypt(ctx context.Context, c net.Conn, address string, as connect.TLS) (net.Conn, error) {
	config, err := as.Config()
	if err != nil {
		return nil, err
	}
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(address)
	}
	t := tls.Client(c, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return t, nil
}

// dialTLS connects to the management API.
func (s *Source) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	as := s.cfg.TLS
	as.Enabled = true // https beside amqp: with the system's authorities
	t, err := encrypt(ctx, c, address, as)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return t, nil
}

// connect keeps a session until Close.
func (s *Source) connect() {
	var pause connect.Backoff
	for s.ctx.Err() == nil {
		l, err := s.dial(s.ctx, "consumer")
		if err != nil {
			s.set(nil, err)
			if pause.Wait(s.ctx) != nil {
				return
			}
			continue
		}
		began := time.Now()
		closes := l.conn.NotifyClose(make(chan *amqp.Error, 1))
		sess := &session{link: l, gone: make(chan struct{}), most: max(1, int(l.conn.Config.ChannelMax)-16)}
		sess.stats.slot, sess.dead.slot = newSlot(), newSlot()
		if !s.set(sess, nil) {
			l.end()
			return
		}
		s.wakeUp() // what arrived meanwhile was not told
		reason := <-closes
		close(sess.gone)
		err = fmt.Errorf("rabbitmq: the connection was lost: %w", fleet.ErrUnavailable)
		if reason != nil {
			err = fmt.Errorf("rabbitmq: the connection was lost: %w", classify(reason))
		}
		s.set(nil, err)
		_ = l.raw.Close()
		if time.Since(began) > 5*time.Second {
			pause.Reset()
		}
		if pause.Wait(s.ctx) != nil {
			return
		}
	}
}

// set makes a session the one in use; false: closed.
func (s *Source) set(sess *session, down error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.sess, s.down = sess, down
	close(s.changed)
	s.changed = make(chan struct{})
	return true
}

// session returns the connection there is. It waits for the first attempt only:
// later, an error at once is worth more than one after the patience.
func (s *Source) session(ctx context.Context) (*session, error) {
	for {
		s.mu.Lock()
		sess, down, changed, closed := s.sess, s.down, s.changed, s.closed
		s.mu.Unlock()
		switch {
		case closed:
			return nil, errClosed
		case sess != nil:
			return sess, nil
		case down != nil:
			return nil, down
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return nil, errClosed
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func nonce() string { return rand.Text()[:12] }
