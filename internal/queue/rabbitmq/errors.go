package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"muster.dev/muster/internal/fleet"
)

var (
	errNoAnswer = fmt.Errorf("the broker did not answer within %s: %w", patience, fleet.ErrUnavailable)
	errClosed   = fmt.Errorf("the source is closed: %w", fleet.ErrUnavailable)
)

// classify gives an error of the client library its kind. Codes are those of
// the AMQP 0-9-1 specification, 1.2; what RabbitMQ adds to their meaning is
// known from its reply texts only.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, fleet.ErrUnavailable),
		errors.Is(err, fleet.ErrNotFound), errors.Is(err, fleet.ErrDenied), errors.Is(err, fleet.ErrInvalid), errors.Is(err, fleet.ErrFenced):
		return err
	}
	var e *amqp.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
	}
	kind := fleet.ErrUnavailable
	switch e.Code {
	case amqp.NotFound:
		// A durable queue whose node is down is told with the same code.
		if !strings.Contains(e.Reason, "down or inaccessible") {
			kind = fleet.ErrNotFound
		}
	case amqp.AccessRefused, amqp.ResourceLocked:
		kind = fleet.ErrDenied
	case amqp.NotAllowed:
		if !strings.Contains(e.Reason, "limit") { // of connections: may pass
			kind = fleet.ErrDenied
		}
	}
	return fmt.Errorf("%w: broker says %d %s", kind, e.Code, e.Reason)
}

func isMissing(err error) bool { return errors.Is(classify(err), fleet.ErrNotFound) }

// why says in a fenced error how a lease was lost.
func why(e *amqp.Error) string {
	switch {
	case e == nil:
		return "the channel was closed"
	case e.Code == amqp.PreconditionFailed && strings.Contains(e.Reason, "timed out"):
		return "the broker's consumer_timeout took the message back; raise it for this queue"
	}
	return fmt.Sprintf("the broker ended the channel: %d %s", e.Code, e.Reason)
}
