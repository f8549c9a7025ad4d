package main

import (
	"context"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/operator"
)

// check says what of a fleet cannot be done by this control plane or in this
// cluster, with fleet.ErrInvalid, before what runs is ended for it.
func (k *cluster) check(f operator.Fleet) error {
	if err := k.canCarry(f); err != nil {
		return err
	}
	if _, err := tariffOf(f.Spec); err != nil {
		return err
	}
	if _, err := controlSpec(f.Spec); err != nil || f.Spec.Spec.Follows() || f.Spec.Spec.HasConsumers() {
		return err
	}
	_, err := k.agentSandbox(f.Spec.Spec.Nodes.Kubernetes.Warm)
	return err
}

// past reads the specifications that a fleet had from its store.
func (k *cluster) past(ctx context.Context, key operator.Key) ([]fleet.Revision, error) {
	return k.c.store.revisions(ctx, k.c.store.placeOf(k.c.dir, key.Namespace, key.Name))
}
