// Package memory is a fake of fleet.Store and fleet.Queue that keeps
// everything in maps. It is for tests: it obeys the same contract as the
// stores that persist (storetest and queuetest pass on it), favours plain code
// over speed (a lease looks at every waiting task), works inside a
// testing/synctest bubble, and fails on demand:
//
//	s := memory.New(memory.Options{})
//	defer s.Close()
//	s.Fail("Settle", fleet.ErrFull)      // every Settle, until Fail("Settle", nil)
//	s.FailOnce("Lease", fleet.ErrUnavailable)
//	q := s.Queue()
//
// Operations are named as the methods of the ports are.
//
// # Leases
//
// A task that was leased but has not claimed a sandbox is delivered again
// when its lease ends; the earlier holder is fenced from that instant on. A
// task that has claimed a sandbox is owned by that claim: its lease ends only
// with Settle, Retry, Nack or DeadLetter, whatever the clock says, so that a
// control plane which slept, or was restarted, never has a second sandbox run
// the task beside the first.
package memory
