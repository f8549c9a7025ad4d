package operator

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"muster.dev/muster/internal/fleet"
)

// fault gives an error of the API server our kinds, and names the right that is
// missing where one is.
func fault(verb, resource, namespace string, err error) error {
	where := " in all namespaces"
	if namespace != "" {
		where = " in namespace " + namespace
	}
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return fmt.Errorf("the service account may not %s %s%s; grant it in its Role: %w", verb, resource, where, errors.Join(fleet.ErrDenied, err))
	case apierrors.IsNotFound(err) && verb == "list":
		return fmt.Errorf("the cluster does not know %s; apply deploy/crds: %w", resource, errors.Join(fleet.ErrNotFound, err))
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s %s%s: %w", verb, resource, where, errors.Join(fleet.ErrNotFound, err))
	case apierrors.IsConflict(err):
		return fmt.Errorf("%s %s%s: %w", verb, resource, where, errors.Join(fleet.ErrConflict, err))
	}
	return fmt.Errorf("%s %s%s: %w", verb, resource, where, errors.Join(fleet.ErrUnavailable, err))
}
