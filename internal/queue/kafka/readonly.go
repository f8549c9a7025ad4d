package kafka

import "muster.dev/muster/internal/fleet"

// readOnlyTraits: how much is in flight, and how old the oldest is, a group
// tells nobody who is no member; it is estimated by the reader.
func (s *Source) readOnlyTraits() fleet.SignalTraits {
	return fleet.SignalTraits{Arrived: true, Dead: s.cfg.DeadTopic != ""}
}

// ofOthers makes a count into what can be told of a group of others: all that
// is not settled waits. Where Muster itself is the group, the notes say what
// was handed out; that is no less work for it, and counts too.
func ofOthers(st fleet.SignalStats) fleet.SignalStats {
	st.Backlog += st.InFlight
	st.InFlight = 0
	return st
}
