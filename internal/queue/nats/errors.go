package nats

import (
	"context"
	"errors"
	"fmt"

	sdk "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"muster.dev/muster/internal/fleet"
)

// kinds are the errors of the port; what wraps one has been explained.
var kinds = []error{fleet.ErrUnavailable, fleet.ErrDenied, fleet.ErrNotFound, fleet.ErrInvalid, fleet.ErrFenced}

// denials are how a server and the client refuse credentials.
var denials = []error{
	sdk.ErrAuthorization, sdk.ErrAuthExpired, sdk.ErrAuthRevoked, sdk.ErrAccountAuthExpired,
	sdk.ErrPermissionViolation, sdk.ErrNkeysNotSupported,
}

// errReadOnly is the answer to whatever would take or change a message.
var errReadOnly = fmt.Errorf("the queue is open to be read only, others work it off: %w", fleet.ErrInvalid)

func oneOf(err error, of []error) bool {
	for _, k := range of {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

// explain gives an error of the client its kind.
func explain(err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil || oneOf(err, kinds) || errors.Is(err, context.Canceled):
		return err
	case oneOf(err, denials):
		return fmt.Errorf("%w: %w", fleet.ErrDenied, err)
	case errors.Is(err, sdk.ErrNoResponders):
		return fmt.Errorf("%w: nobody answers for JetStream: it is off, or domain or apiPrefix is wrong", fleet.ErrUnavailable)
	case errors.Is(err, jetstream.ErrMsgNotFound), errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, jetstream.ErrConsumerDeleted):
		return fmt.Errorf("%w: %w", fleet.ErrNotFound, err)
	case errors.As(err, &api):
		return explainAPI(err, api)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, sdk.ErrTimeout):
		// Not wrapped: the caller's own deadline did not end.
		return fmt.Errorf("%w: no answer within %s", fleet.ErrUnavailable, callTimeout)
	case errors.Is(err, sdk.ErrMaxPayload):
		return fmt.Errorf("%w: %w: raise max_payload of the server", fleet.ErrInvalid, err)
	}
	return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
}

func explainAPI(err error, api *jetstream.APIError) error {
	switch {
	case api.ErrorCode == jetstream.JSErrCodeJetStreamNotEnabled || api.ErrorCode == jetstream.JSErrCodeJetStreamNotEnabledForAccount:
		return fmt.Errorf("%w: %w: switch JetStream on for this account", fleet.ErrUnavailable, err)
	case api.Code >= 500: // no leader, no resources: may pass
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
	case api.Code == 404:
		return fmt.Errorf("%w: %w", fleet.ErrNotFound, err)
	}
	return fmt.Errorf("%w: %w", fleet.ErrInvalid, err)
}
