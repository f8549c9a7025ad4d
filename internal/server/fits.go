package server

import (
	"context"
	"errors"
	"fmt"

	"muster.dev/muster/internal/fleet"
)

// Fits refuses a task that asks for more than the largest node has: it would
// wait for as long as it may, and never start. Only a task with limits of its
// own is looked at; what a template asks for is the fleet's business. Disk is
// left out, since a node counts what is free at the moment.
func (s *Server) Fits(ctx context.Context, at string, t fleet.TaskSpec) error {
	if t.Pool == fleet.PoolKey(t.Template) {
		return nil
	}
	v, err := s.Engine.View(ctx)
	if err != nil || len(v.Nodes) == 0 {
		return nil //nolint:nilerr // not known yet; the task may wait for it
	}
	var most fleet.Resources
	for _, n := range v.Nodes {
		if t.Resources.MilliCPU <= n.MilliCPU && t.Resources.MemoryBytes <= n.MemoryBytes {
			return nil
		}
		most.MilliCPU, most.MemoryBytes = max(most.MilliCPU, n.MilliCPU), max(most.MemoryBytes, n.MemoryBytes)
	}
	const wrong = "is more than a node of this fleet can give"
	var problems []error
	if t.Resources.MilliCPU > most.MilliCPU {
		problems = append(problems, &fleet.FieldError{Field: at + ".resources.cpus", Wrong: wrong, Right: fmt.Sprintf("at most %g", float64(most.MilliCPU)/1000)})
	}
	if t.Resources.MemoryBytes > most.MemoryBytes {
		problems = append(problems, &fleet.FieldError{Field: at + ".resources.memory", Wrong: wrong, Right: fmt.Sprintf("at most %dMi", most.MemoryBytes>>20)})
	}
	if len(problems) == 0 {
		problems = append(problems, &fleet.FieldError{Field: at + ".resources", Wrong: "together are more than a node of this fleet can give"})
	}
	return errors.Join(problems...)
}
