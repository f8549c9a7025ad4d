package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"muster.dev/muster/internal/fleet"
)

var (
	errClosed   = fmt.Errorf("closed: %w", fleet.ErrUnavailable)
	errLost     = fmt.Errorf("the partition went to another consumer: %w", fleet.ErrFenced)
	errReadOnly = fmt.Errorf("the queue is open to be read only, others work it off: %w", fleet.ErrInvalid)
)

// kinds are the errors of brokers that say more than that something failed.
var kinds = []struct {
	kind error
	of   []error
}{
	{fleet.ErrDenied, []error{
		kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState,
		kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed,
	}},
	{fleet.ErrNotFound, []error{kerr.UnknownTopicOrPartition, kerr.UnknownTopicID}},
	{fleet.ErrInvalid, []error{kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidTopicException, kerr.InvalidSessionTimeout, kerr.PolicyViolation}},
}

// failure names the operation and tells the kind of an error. An ended context
// of the caller's is passed on; one of ours is a server that does not answer.
func failure(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("kafka: %s: %w", op, ctx.Err())
	}
	for _, k := range []error{fleet.ErrUnavailable, fleet.ErrDenied, fleet.ErrNotFound, fleet.ErrFenced, fleet.ErrInvalid} {
		if errors.Is(err, k) {
			return fmt.Errorf("kafka: %s: %w", op, err)
		}
	}
	for _, k := range kinds {
		for _, e := range k.of {
			if errors.Is(err, e) {
				return fmt.Errorf("kafka: %s: %w: %w", op, k.kind, err)
			}
		}
	}
	return fmt.Errorf("kafka: %s: %w: %w", op, fleet.ErrUnavailable, err)
}
