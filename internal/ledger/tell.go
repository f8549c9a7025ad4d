package ledger

import (
	"time"

	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
)

// fresh is what was charged since the last posting.
type fresh struct {
	by    map[freshKey]cost.Micro
	nodes time.Duration
	busy  time.Duration
}

type freshKey struct {
	cause  cost.Cause
	tenant fleet.TenantID
}

func newFresh() fresh { return fresh{by: map[freshKey]cost.Micro{}} }

// tell passes on what has just been written down. What was charged and then
// lost by an error is charged again, and told then.
func (s *Service) tell() {
	f := s.m.fresh
	s.m.fresh = newFresh()
	if s.o.Charged == nil {
		return
	}
	out := fleet.Charged{NodeSeconds: f.nodes.Seconds(), BusySeconds: f.busy.Seconds(), PerHour: int64(s.perHour(s.now()))}
	for k, amount := range f.by {
		out.By = append(out.By, fleet.ChargedFor{Cause: string(k.cause), Tenant: k.tenant, MicroUSD: int64(amount)})
	}
	s.o.Charged(out)
}

// perHour is what the nodes that are there cost in the hour that begins now.
func (s *Service) perHour(now time.Time) (sum cost.Micro) {
	for _, l := range s.m.state.Lives {
		if n := &l.Node; n.Released.IsZero() {
			sum += n.Bill(now.Add(time.Hour)) - n.Bill(now)
		}
	}
	return sum
}
