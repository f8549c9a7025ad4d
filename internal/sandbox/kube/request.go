package kube

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"muster.dev/muster/internal/fleet"
)

const (
	// fieldManager names us to the API server.
	fieldManager = "muster"
	// requestTime bounds one request.
	requestTime = 15 * time.Second
	// tries bounds requests that fail for a while: about 4 s in all.
	tries      = 6
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
	// longestPause bounds what a server may ask us to wait.
	longestPause = 15 * time.Second
)

// try makes a request, again after failures that may pass: with growing pauses
// and jitter, or the pause that the server asks for. What is "create pods" and
// the like, the right it needs. The request under way is not broken off when
// ctx ends, so that what became of it is known.
func (s *Sandboxes) try(ctx context.Context, what string, call func(context.Context) error) error {
	pause := firstPause
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		rc, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime)
		err := call(rc)
		cancel()
		if err == nil {
			return nil
		}
		if n == tries || !passing(err) {
			return s.explain(what, err)
		}
		wait := pause/2 + rand.N(pause)
		if asked, ok := apierrors.SuggestsClientDelay(err); ok && asked > 0 {
			wait = min(time.Duration(asked)*time.Second, longestPause) + rand.N(firstPause)
		}
		pause = min(2*pause, lastPause)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%w (%w)", s.explain(what, err), ctx.Err())
		}
	}
}

// passing reports whether a failure may pass by itself.
func passing(err error) bool {
	var n net.Error
	switch {
	case apierrors.IsTooManyRequests(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err),
		apierrors.IsServiceUnavailable(err), apierrors.IsInternalError(err), apierrors.IsUnexpectedServerError(err),
		utilnet.IsConnectionRefused(err), utilnet.IsConnectionReset(err), utilnet.IsProbableEOF(err),
		utilnet.IsHTTP2ConnectionLost(err), errors.Is(err, context.DeadlineExceeded), errors.As(err, &n):
		return true
	}
	return false
}

// refused reports whether an API server answered, and did nothing.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) ||
		apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err) || apierrors.IsTooManyRequests(err)
}

// explain gives an error of the API server its kind, and says what would mend
// it.
func (s *Sandboxes) explain(what string, err error) error {
	in := " in namespace " + s.o.Namespace
	text := err.Error()
	switch {
	case isKind(err):
		return err
	case passing(err):
		return fmt.Errorf("%s%s: %w: %w", what, in, fleet.ErrUnavailable, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s%s: %w: the API server does not know us: %w", what, in, fleet.ErrDenied, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s%s: %w: %w", what, in, fleet.ErrNotFound, err)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return fmt.Errorf("%s%s: %w: %w", what, in, fleet.ErrInvalid, err)
	case !apierrors.IsForbidden(err):
		return fmt.Errorf("%s%s: %w", what, in, err)
	case strings.Contains(text, "exceeded quota"):
		return fmt.Errorf("%s%s: %w: a ResourceQuota is used up; raise it or lower the fleet's maximum: %w", what, in, fleet.ErrFull, err)
	case apierrors.HasStatusCause(err, "NamespaceTerminating"), strings.Contains(text, "being terminated"):
		return fmt.Errorf("%s%s: %w: the namespace is being deleted: %w", what, in, fleet.ErrUnavailable, err)
	case strings.Contains(text, " cannot "): // RBAC's wording
		return fmt.Errorf("%w: our service account lacks the right to %s%s: %w", fleet.ErrDenied, what, in, err)
	}
	return fmt.Errorf("%s%s: %w: an admission rule of the cluster refuses it: %w", what, in, fleet.ErrDenied, err)
}

// isKind reports whether err has one of our kinds already.
func isKind(err error) bool {
	for _, k := range []error{fleet.ErrConflict, fleet.ErrNotFound, fleet.ErrInvalid, fleet.ErrUnavailable, fleet.ErrDenied, fleet.ErrFull} {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}
