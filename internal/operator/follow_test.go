package operator

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"muster.dev/muster/internal/fleet"
)

// TestFollow: one object is seen, changed and gone; the others are not seen.
func TestFollow(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	f, err := Follow(ctx, c.Dynamic, Key{ns, "agents"}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	fleets := c.Dynamic.Resource(Resource).Namespace(ns)
	if _, err := fleets.Create(t.Context(), fleetOf(t, ns, "other", template), strict); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is known not to be there", 20*time.Second, func(context.Context) bool {
		_, err := f.Now()
		return errors.Is(err, fleet.ErrNotFound)
	})
	if _, err := fleets.Create(t.Context(), fleetOf(t, ns, "agents", carried), strict); err != nil {
		t.Fatal(err)
	}
	replicas := func(most int) func(context.Context) bool {
		return func(context.Context) bool {
			now, err := f.Now()
			return err == nil && now.Spec.Spec.HasConsumers() && now.Spec.Spec.Consumers.MaxReplicas == most && now.UID != ""
		}
	}
	eventually(t, "it is seen", 10*time.Second, replicas(9))
	patch(t, c, ns, "agents", map[string]any{"consumers": map[string]any{"maxReplicas": 4}})
	eventually(t, "the change is seen", 10*time.Second, replicas(4))
	if err := fleets.Delete(t.Context(), "agents", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is gone", 10*time.Second, func(context.Context) bool {
		_, err := f.Now()
		return errors.Is(err, fleet.ErrNotFound)
	})
}
