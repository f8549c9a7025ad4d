package nats

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	sdk "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

const (
	dialTimeout  = 2 * time.Second
	pingInterval = 2 * time.Second // a server that hangs is left after three
)

// session is one connection; a new one is made when it breaks, so that
// credentials and certificates are read anew.
type session struct {
	nc   *sdk.Conn
	js   jetstream.JetStream
	gone chan struct{} // closed with the connection
	// confirm is the inbox that signs of life are answered to.
	confirm string

	mu     sync.Mutex
	denied error // what the server refused last: such a request has no answer
	since  time.Time
	queue  *queue
}

// dialer ends with the Source.
type dialer struct{ ctx context.Context }

func (d dialer) Dial(network, address string) (net.Conn, error) {
	nd := net.Dialer{Timeout: dialTimeout}
	return nd.DialContext(d.ctx, network, address)
}

// connect makes a connection; it does not look for the stream.
func (s *Source) connect() (*session, error) {
	ses := &session{gone: make(chan struct{})}
	options, err := s.options(ses)
	if err != nil {
		return nil, err
	}
	servers := slices.Clone(s.cfg.Servers)
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	if ses.nc, err = sdk.Connect(strings.Join(servers, ","), options...); err != nil {
		return nil, fmt.Errorf("connect: %w", explain(err))
	}
	switch {
	case s.cfg.Domain != "":
		ses.js, err = jetstream.NewWithDomain(ses.nc, s.cfg.Domain)
	case s.cfg.APIPrefix != "":
		ses.js, err = jetstream.NewWithAPIPrefix(ses.nc, strings.TrimSuffix(s.cfg.APIPrefix, "."))
	default:
		ses.js, err = jetstream.New(ses.nc)
	}
	if err == nil {
		ses.confirm = ses.nc.NewInbox()
		_, err = ses.nc.Subscribe(ses.confirm+".*", s.confirmed)
	}
	if err != nil {
		ses.nc.Close()
		return nil, fmt.Errorf("connect: %w", explain(err))
	}
	return ses, nil
}

func (s *Source) options(ses *session) ([]sdk.Option, error) {
	o := []sdk.Option{
		sdk.Name(s.cfg.Name), sdk.NoReconnect(), sdk.Timeout(dialTimeout), sdk.SetCustomDialer(dialer{s.ctx}),
		sdk.PingInterval(pingInterval), sdk.MaxPingsOutstanding(2), sdk.DontRandomize(),
		sdk.ClosedHandler(func(*sdk.Conn) { close(ses.gone) }),
		sdk.ErrorHandler(func(_ *sdk.Conn, _ *sdk.Subscription, err error) {
			if oneOf(err, denials) {
				ses.refuse(err)
			}
		}),
	}
	if s.cfg.InboxPrefix != "" {
		o = append(o, sdk.CustomInboxPrefix(s.cfg.InboxPrefix))
	}
	tls, err := s.cfg.TLS.Config()
	if err != nil {
		return nil, err
	}
	if tls != nil {
		o = append(o, sdk.Secure(tls))
	}
	access, err := s.access()
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	return append(o, access...), nil
}

// access reads the credentials as they are now. No error shows a part of them.
func (s *Source) access() ([]sdk.Option, error) {
	ctx, cancel := context.WithTimeout(s.ctx, callTimeout)
	defer cancel()
	read := func(c connect.Credential) (string, error) {
		v, err := c.Value(ctx)
		if err != nil && !oneOf(err, kinds) {
			err = fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
		}
		return strings.TrimSpace(v), err
	}
	switch c := s.cfg; {
	case c.User != "":
		v, err := c.Password.Value(ctx)
		return []sdk.Option{sdk.UserInfo(c.User, v)}, err
	case c.Token != nil:
		v, err := read(c.Token)
		return []sdk.Option{sdk.Token(v)}, err
	case c.NKeySeed != nil:
		v, err := read(c.NKeySeed)
		if err != nil {
			return nil, err
		}
		return nkey([]byte(v))
	case c.Credentials != nil:
		v, err := read(c.Credentials)
		if err != nil {
			return nil, err
		}
		if _, err := nkeys.ParseDecoratedJWT([]byte(v)); err != nil {
			return nil, fmt.Errorf("credentials hold no JWT: want the content of a .creds file: %w", fleet.ErrInvalid)
		}
		if _, err := nkeys.ParseDecoratedNKey([]byte(v)); err != nil {
			return nil, fmt.Errorf("credentials hold no seed: want the content of a .creds file: %w", fleet.ErrInvalid)
		}
		return []sdk.Option{sdk.UserCredentialBytes([]byte(v))}, nil
	}
	return nil, nil
}

func nkey(seed []byte) ([]sdk.Option, error) {
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		return nil, fmt.Errorf("nkeySeed is no seed: want the one of a user, which begins with SU: %w", fleet.ErrInvalid)
	}
	public, err := pair.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("nkeySeed has no public key: %w", fleet.ErrInvalid)
	}
	return []sdk.Option{sdk.Nkey(public, pair.Sign)}, nil
}

// refuse notes that the server refused a request.
func (ses *session) refuse(err error) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.denied, ses.since = err, time.Now()
}

// refusal is what the server refused while a call may have waited; nil for none.
func (ses *session) refusal() error {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if time.Since(ses.since) > 2*callTimeout {
		return nil
	}
	return ses.denied
}

// run keeps a session until the Source is closed.
func (s *Source) run() {
	defer s.wg.Done()
	var pause connect.Backoff
	for s.ctx.Err() == nil {
		ses, err := s.connect()
		if err != nil {
			s.set(nil, err)
			_ = pause.Wait(s.ctx) // the loop ends with it
			continue
		}
		pause.Reset()
		s.set(ses, nil)
		select {
		case <-ses.gone:
			// Calls wait for the first attempt to reconnect, which is at once.
			s.set(nil, nil)
		case <-s.ctx.Done():
		}
		ses.nc.Close()
		<-ses.gone
	}
}

// set tells the calls that wait what there is now.
func (s *Source) set(ses *session, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ses, s.down = ses, err
	close(s.changed)
	s.changed = make(chan struct{})
}

// session returns the connection, waits for one that is being made, and fails
// at once where the last attempt failed.
func (s *Source) session(ctx context.Context) (*session, error) {
	for {
		s.mu.Lock()
		ses, err, changed := s.ses, s.down, s.changed
		s.mu.Unlock()
		switch {
		case s.ctx.Err() != nil:
			return nil, fmt.Errorf("the source is closed: %w", fleet.ErrUnavailable)
		case ses != nil:
			return ses, nil
		case err != nil:
			return nil, err
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// call runs one operation with the bound that the contract sets.
func (s *Source) call(ctx context.Context, op string, do func(context.Context, *session) error) error {
	err := ctx.Err()
	if err == nil {
		var ses *session
		bound, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if ses, err = s.session(bound); err == nil {
			err = ses.run(bound, do)
		}
		if over := ctx.Err(); over != nil && err != nil {
			err = over
		} else {
			err = explain(err)
		}
	}
	if err != nil {
		return fmt.Errorf("nats: %s: %w", op, err)
	}
	return nil
}

// run does one operation; once more where the queue that was known is gone, and
// perhaps another has taken its place.
func (ses *session) run(ctx context.Context, do func(context.Context, *session) error) error {
	ses.mu.Lock()
	known := ses.queue != nil
	ses.mu.Unlock()
	err := explain(do(ctx, ses))
	if errors.Is(err, fleet.ErrNotFound) {
		ses.detach()
		if known {
			err = explain(do(ctx, ses))
		}
	}
	if errors.Is(err, fleet.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		if no := ses.refusal(); no != nil {
			return explain(no)
		}
	}
	return err
}
