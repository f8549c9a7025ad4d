package keda

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"muster.dev/muster/internal/fleet"
)

// Config is what a Service works with.
type Config struct {
	// Targets is what the fleet should be now; cheap, called ten times a second
	// for each open stream.
	Targets func() fleet.Targets
	TLS     *tls.Config  // nil: in the clear, for a loopback or mesh address
	Logger  *slog.Logger // default: discard
	// Every is how often a stream looks whether something changed; default
	// 100 ms.
	Every time.Duration
}

// Service is a gRPC server of KEDA's external-scaler protocol.
type Service struct {
	pb.UnimplementedExternalScalerServer
	c    Config
	grpc *grpc.Server
}

// New returns a Service; Serve starts it.
func New(c Config) *Service {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Every <= 0 {
		c.Every = 100 * time.Millisecond
	}
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(64 << 10), grpc.MaxConcurrentStreams(1000),
		// A client that has gone without a word is noticed.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
	if c.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(c.TLS)))
	}
	s := &Service{c: c, grpc: grpc.NewServer(options...)}
	pb.RegisterExternalScalerServer(s.grpc, s)
	return s
}

// Serve serves until Stop; the listener is closed then.
func (s *Service) Serve(l net.Listener) error { return s.grpc.Serve(l) }

// Stop ends every call and stream.
func (s *Service) Stop() { s.grpc.Stop() }

// IsActive tells whether there should be any replica.
func (s *Service) IsActive(_ context.Context, ref *pb.ScaledObjectRef) (*pb.IsActiveResponse, error) {
	a, t, err := s.now(ref)
	if err != nil {
		return nil, err
	}
	active, err := a.active(t)
	if err != nil {
		return nil, coded(err)
	}
	return &pb.IsActiveResponse{Result: active}, nil
}

// StreamIsActive tells it at once and then whenever it changes.
func (s *Service) StreamIsActive(ref *pb.ScaledObjectRef, out grpc.ServerStreamingServer[pb.IsActiveResponse]) error {
	var last *bool
	return s.watch(out.Context(), ref, func(a ask, t *fleet.Targets) error {
		active, err := a.active(t)
		if err != nil {
			return coded(err)
		}
		if last != nil && *last == active {
			return nil
		}
		last = &active
		return out.Send(&pb.IsActiveResponse{Result: active})
	})
}

// GetMetricSpec names the metric and its target.
func (s *Service) GetMetricSpec(_ context.Context, ref *pb.ScaledObjectRef) (*pb.GetMetricSpecResponse, error) {
	a, err := parse(ref.GetScalerMetadata())
	if err != nil {
		return nil, coded(err)
	}
	return a.spec(), nil
}

// spec is constant: the target does not depend on the load.
func (a ask) spec() *pb.GetMetricSpecResponse {
	target := a.target
	return &pb.GetMetricSpecResponse{MetricSpecs: []*pb.MetricSpec{{MetricName: a.name(), TargetSize: int64(max(1, target)), TargetSizeFloat: target}}}
}

// StreamMetricSpec sends the target, which never changes while the trigger's
// metadata do not, and keeps the stream open.
func (s *Service) StreamMetricSpec(ref *pb.ScaledObjectRef, out grpc.ServerStreamingServer[pb.GetMetricSpecResponse]) error {
	a, err := parse(ref.GetScalerMetadata())
	if err != nil {
		return coded(err)
	}
	if err := out.Send(a.spec()); err != nil {
		return err
	}
	<-out.Context().Done()
	return nil
}

// GetMetrics is the wanted count.
func (s *Service) GetMetrics(_ context.Context, r *pb.GetMetricsRequest) (*pb.GetMetricsResponse, error) {
	a, t, err := s.now(r.GetScaledObjectRef())
	if err != nil {
		return nil, err
	}
	if n := r.GetMetricName(); n != "" && n != a.name() {
		return nil, status.Errorf(codes.NotFound, "metric %q is not that of this trigger, which is %s", n, a.name())
	}
	v, err := a.reading(t)
	if err != nil {
		return nil, coded(err)
	}
	return &pb.GetMetricsResponse{MetricValues: []*pb.MetricValue{{MetricName: a.name(), MetricValue: int64(v + 0.5), MetricValueFloat: v}}}, nil
}

// now reads the trigger and the targets; the error has a code.
func (s *Service) now(ref *pb.ScaledObjectRef) (ask, *fleet.Targets, error) {
	a, err := parse(ref.GetScalerMetadata())
	if err != nil {
		return a, nil, coded(err)
	}
	t := s.c.Targets()
	if t.At.IsZero() {
		return a, nil, status.Error(codes.Unavailable, "muster has not decided yet")
	}
	return a, &t, nil
}

// watch calls f with the targets again and again until the client goes. Until
// something was decided there is nothing to tell.
func (s *Service) watch(ctx context.Context, ref *pb.ScaledObjectRef, f func(ask, *fleet.Targets) error) error {
	a, err := parse(ref.GetScalerMetadata())
	if err != nil {
		return coded(err)
	}
	tick := time.NewTicker(s.c.Every)
	defer tick.Stop()
	for {
		if t := s.c.Targets(); !t.At.IsZero() {
			if err := f(a, &t); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// coded gives an error its gRPC code.
func coded(err error) error {
	code := codes.Internal
	switch {
	case errors.Is(err, fleet.ErrInvalid):
		code = codes.InvalidArgument
	case errors.Is(err, fleet.ErrNotFound):
		code = codes.NotFound
	case errors.Is(err, fleet.ErrUnavailable):
		code = codes.FailedPrecondition
	}
	return status.Error(code, err.Error())
}
