package storetest

import (
	"time"

	"muster.dev/muster/internal/fleet"
)

// from is a task made from a message.
func from(queue, message, receipt string) fleet.Task {
	t := plain("p")
	t.Spec.Origin = &fleet.Origin{Queue: queue, Message: message, At: time.Now().UTC()}
	t.Receipt = receipt
	return t
}

func (f *fixture) heldMessages(queue string) []fleet.HeldMessage {
	f.Helper()
	got, err := f.s.HeldMessages(f.ctx, queue)
	if err != nil {
		f.Fatal(err)
	}
	return got
}

func testMessages(f *fixture) {
	if got := f.heldMessages("q"); got == nil || len(got) != 0 {
		f.Errorf("of an empty store: %v", got)
	}
	keyed := from("q", "m1", "r1")
	keyed.Spec.IdempotencyKey = "q m1"
	one := f.submit(keyed)[0]
	if one.Receipt != "" || one.Spec.Origin == nil || one.Spec.Origin.Message != "m1" {
		f.Errorf("submitted %+v", one)
	}
	time.Sleep(time.Millisecond) // ids sort by time
	two := f.submit(from("q", "m2", "r2"))[0]
	f.submit(from("other", "m1", "r3"), plain("p"))
	f.same("held", []fleet.HeldMessage{
		{Task: one.ID, Queue: "q", Message: "m1", Receipt: "r1", State: fleet.TaskQueued},
		{Task: two.ID, Queue: "q", Message: "m2", Receipt: "r2", State: fleet.TaskQueued},
	}, f.heldMessages("q"))

	// Delivered again: the task is found by its key, whatever else the delivery
	// says, and holds what it held until told otherwise.
	again := from("q", "m1", "r9")
	again.Spec.IdempotencyKey, again.Spec.Origin.At = "q m1", time.Time{}
	if got := f.submit(again)[0]; got.ID != one.ID {
		f.Errorf("the second delivery made task %s, not %s", got.ID, one.ID)
	}
	if got := f.heldMessages("q"); got[0].Receipt != "r1" {
		f.Errorf("held under %s", got[0].Receipt)
	}
	if err := f.s.HoldMessage(f.ctx, fleet.HeldMessage{Task: one.ID, Queue: "q", Message: "m1", Receipt: "r9"}); err != nil {
		f.Fatal(err)
	}
	if _, err := f.s.Cancel(f.ctx, one.ID, "", time.Now()); err != nil {
		f.Fatal(err)
	}
	if got := f.heldMessages("q"); len(got) != 2 || got[0].Receipt != "r9" || got[0].State != fleet.TaskCancelled {
		f.Errorf("held %+v", got)
	}
	for range 2 { // the second time nothing is there to forget
		if err := f.s.ReleaseMessage(f.ctx, one.ID); err != nil {
			f.Fatal(err)
		}
	}
	if got := f.heldMessages("q"); len(got) != 1 || got[0].Task != two.ID {
		f.Errorf("held %+v", got)
	}
	f.is(f.s.HoldMessage(f.ctx, fleet.HeldMessage{Task: "t00000000000000000000", Queue: "q"}), fleet.ErrNotFound, "message of no task")

	if _, err := f.s.Cancel(f.ctx, two.ID, "", time.Now()); err != nil {
		f.Fatal(err)
	}
	if _, err := f.s.Prune(f.ctx, time.Now().Add(time.Hour), 10); err != nil {
		f.Fatal(err)
	}
	if got := f.heldMessages("q"); len(got) != 0 {
		f.Errorf("a pruned task holds %+v", got)
	}
	if got := f.heldMessages("other"); len(got) != 1 {
		f.Errorf("the other queue's: %+v", got)
	}
	if f.Reopen == nil {
		return
	}
	f.s = f.Reopen(f).Store
	if got := f.heldMessages("other"); len(got) != 1 || got[0].Receipt != "r3" {
		f.Errorf("after a restart: %+v", got)
	}
}
