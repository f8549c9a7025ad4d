package virtual

import (
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/nodes/nodestest"
)

func TestConformance(t *testing.T) {
	nodestest.Run(t, nodestest.Subject{
		New: func(t *testing.T) fleet.Nodes {
			n := New(Options{Node: fleet.Node{MilliCPU: 8000, MemoryBytes: 32 << 30, DiskBytes: 200 << 30, Slots: 8}, Boot: 45 * time.Second, Max: 50})
			if err := n.Scale(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(45 * time.Second)
			synctest.Wait()
			return n
		},
		Elastic: true, TooMany: 51, Boot: 45 * time.Second,
	})
}
