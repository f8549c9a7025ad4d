package kube

import (
	"testing"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/nodes/nodestest"
)

func TestConformance(t *testing.T) {
	for _, h := range []Headroom{HeadroomPlaceholder, HeadroomBuffer, HeadroomNone} {
		t.Run(string(h), func(t *testing.T) {
			nodestest.Run(t, nodestest.Subject{
				New: func(t *testing.T) fleet.Nodes {
					c := newCluster(t)
					c.node("first")
					o := c.options()
					o.Headroom = h
					return start(t, o)
				},
				Elastic: h != HeadroomNone, TooMany: 51, Boot: served,
			})
		})
	}
}
