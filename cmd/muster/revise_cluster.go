package main

import (
	"context"

	"k8s.io/client-go/dynamic"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/operator"
	"muster.dev/muster/internal/server"
)

// clusterReviser rolls a Fleet object back: what becomes of it comes through
// the watch, as after every other change.
type clusterReviser struct {
	client dynamic.Interface
	key    operator.Key
	unit   *unit
}

// Rollback implements server.Reviser.
func (c *clusterReviser) Rollback(ctx context.Context, o server.Order) (server.Outcome, error) {
	var out server.Outcome
	next, err := parseInCluster(c.key, o.Revision.Spec)
	if err != nil {
		return out, &server.StaleError{Number: o.Revision.Number, Err: err}
	}
	if c.unit.now.Load().MustBeRestarted(next) {
		out.Warnings = append(out.Warnings, "the fleet's loop starts anew to take this over; running tasks go on")
	}
	more, err := operator.PutBack(ctx, c.client, operator.Change{
		Key: c.key, Written: o.Revision.Spec, By: apiAuthor(o.By), Note: o.Note, Dry: o.Dry, Force: o.Force,
	})
	out.Warnings = append(out.Warnings, more...)
	return out, err
}

// parseInCluster reads a revision as the operator reads an object.
func parseInCluster(key operator.Key, written []byte) (*v1alpha1.Fleet, error) {
	spec, err := v1alpha1.SpecOf(written)
	if err != nil {
		return nil, err
	}
	return v1alpha1.FromCluster(v1alpha1.Metadata{Namespace: key.Namespace, Name: key.Name}, spec)
}

// revisionInCluster is an object's spec as it is put on record.
func revisionInCluster(f operator.Fleet) fleet.Revision {
	return fleet.Revision{Author: f.Author, Source: fleet.FromCluster, Note: f.Note, Spec: f.Written}
}
