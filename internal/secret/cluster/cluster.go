// Package cluster resolves names to values at claim time (an adapter of
// fleet.Secrets) from one Secret of a Kubernetes cluster, each key of which is a
// secret. It asks for that one object by name, so that a right to get it is
// enough; nothing is listed or watched. It imports package fleet and client-go.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"muster.dev/muster/internal/fleet"
)

// fresh is how long what was read is used again: a burst of claims asks once. A
// rotated secret is used that much later.
const fresh = time.Second

// Source reads secrets. One without a Name knows none.
type Source struct {
	Client    kubernetes.Interface
	Namespace string
	Name      string

	mu   sync.Mutex
	read time.Time
	data map[string][]byte
}

// Secret implements fleet.Secrets. Errors never hold a value.
func (s *Source) Secret(ctx context.Context, name string) (string, error) {
	if s.Name == "" {
		return "", fmt.Errorf("secret %q: the fleet names no Secret in spec.secrets.kubernetes: %w", name, fleet.ErrNotFound)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.read) > fresh {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		o, err := s.Client.CoreV1().Secrets(s.Namespace).Get(ctx, s.Name, metav1.GetOptions{})
		if err != nil {
			return "", s.fault(name, err)
		}
		s.data, s.read = o.Data, time.Now()
	}
	v, ok := s.data[name]
	if !ok {
		return "", fmt.Errorf("secret %q is no key of Secret %s/%s: %w", name, s.Namespace, s.Name, fleet.ErrNotFound)
	}
	return string(v), nil
}

func (s *Source) fault(name string, err error) error {
	where := s.Namespace + "/" + s.Name
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("secret %q: there is no Secret %s: %w", name, where, fleet.ErrNotFound)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return fmt.Errorf("secret %q: the service account may not get secret %s; grant it in its Role: %w", name, where, errors.Join(fleet.ErrDenied, err))
	}
	return fmt.Errorf("secret %q: get Secret %s: %w", name, where, errors.Join(fleet.ErrUnavailable, err))
}
