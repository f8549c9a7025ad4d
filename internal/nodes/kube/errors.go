package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"muster.dev/muster/internal/fleet"
)

// fault gives an answer of the API server the kind that callers act on. What
// was asked is the verb and the resource, so that a refusal says which
// permission is missing.
func fault(verb, resource string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s %s: %w", verb, resource, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s %s: %w: %w", verb, resource, fleet.ErrNotFound, err)
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return fmt.Errorf("%s %s: %w: %w", verb, resource, fleet.ErrConflict, err)
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota"):
		return fmt.Errorf("%s %s: %w: %w", verb, resource, fleet.ErrFull, err)
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "no PriorityClass"):
		return fmt.Errorf("%s %s: %w: %w; create it (the chart does), or name one that is there in spec.nodes.kubernetes.placeholderPriorityClass",
			verb, resource, fleet.ErrInvalid, err)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s %s: %w: the service account lacks this permission: %w", verb, resource, fleet.ErrDenied, err)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return fmt.Errorf("%s %s: %w: %w", verb, resource, fleet.ErrInvalid, err)
	}
	return fmt.Errorf("%s %s: %w: %w", verb, resource, fleet.ErrUnavailable, err)
}
