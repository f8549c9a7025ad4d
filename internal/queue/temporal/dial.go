package temporal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// dial makes a connection that connects when it is used, and again after it
// broke.
func dial(c Config) (*grpc.ClientConn, error) {
	var secure credentials.TransportCredentials = renewed{TLS: c.TLS, TransportCredentials: credentials.NewTLS(nil)}
	if !c.TLS.Enabled {
		secure = insecure.NewCredentials()
	}
	return grpc.NewClient(c.Address,
		grpc.WithTransportCredentials(secure), grpc.WithNoProxy(), grpc.WithUserAgent("muster"),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: 3 * time.Second}, MinConnectTimeout: 3 * time.Second,
		}),
		// A connection that a lost network left behind is noticed, and made anew.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}))
}

// renewed reads certificates at each connection, so that renewed ones are taken
// up.
type renewed struct {
	connect.TLS
	credentials.TransportCredentials
}

// ClientHandshake implements credentials.TransportCredentials.
func (r renewed) ClientHandshake(ctx context.Context, authority string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conf, err := r.Config()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(conf).ClientHandshake(ctx, authority, c)
}

// Clone implements credentials.TransportCredentials.
func (r renewed) Clone() credentials.TransportCredentials { return r }

var errNoStats = errors.New("the answer has no statistics; a newer server of Temporal tells them")

// said makes an error of gRPC one of fleet.Signal.
func (s *Signal) said(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s.ctx.Err() != nil {
		return fmt.Errorf("the connection is closed: %w", fleet.ErrUnavailable)
	}
	st, ok := status.FromError(err)
	if !ok {
		for _, kind := range []error{fleet.ErrInvalid, fleet.ErrNotFound, fleet.ErrDenied, fleet.ErrUnavailable} {
			if errors.Is(err, kind) {
				return err // of a credential
			}
		}
		return fmt.Errorf("%w: %w", err, fleet.ErrUnavailable)
	}
	kind := fleet.ErrUnavailable
	switch st.Code() { //nolint:exhaustive // all others are fleet.ErrUnavailable
	case codes.Unauthenticated, codes.PermissionDenied:
		kind = fleet.ErrDenied
		s.secret.Forget()
	case codes.NotFound:
		kind = fleet.ErrNotFound
	case codes.InvalidArgument:
		kind = fleet.ErrInvalid
	case codes.DeadlineExceeded:
		return fmt.Errorf("no answer within %s: %w", s.conf.Timeout, kind)
	}
	return fmt.Errorf("%s: %s: %w", st.Code(), s.secret.Redact(st.Message()), kind)
}

func closing(err error) bool { return status.Code(err) == codes.Canceled }
