package dispatch

import (
	"errors"
	"io"

	"muster.dev/muster/internal/agentout"
	"muster.dev/muster/internal/fleet"
)

// lookBack is how much of the end of each attempt's log is looked through for
// what the agent reports of itself, in bytes: it does so at the end.
const lookBack = 16 << 20

// modelUse is what the agent reports of the models it used, in all attempts;
// nil where it does not. What cannot be read reports nothing.
func (r *run) modelUse() *fleet.ModelUse {
	var sum *fleet.ModelUse
	for attempt := 1; attempt <= r.lease.Attempt; attempt++ {
		use := r.d.reported(r.task.ID, attempt)
		if use == nil {
			continue
		}
		if sum == nil {
			sum = &fleet.ModelUse{}
		}
		sum.Add(*use)
	}
	return sum
}

// reported looks through the log of one attempt.
func (d *Dispatcher) reported(id fleet.TaskID, attempt int) *fleet.ModelUse {
	size, err := d.Archive.LogSize(id, attempt)
	if err != nil || size == 0 {
		return nil
	}
	var read agentout.Reader
	end := errors.New("the log grew")
	from := max(0, size-lookBack)
	err = d.Archive.ReadLog(id, attempt, from, func(rec fleet.LogRecord) error {
		if rec.Offset >= size {
			return end
		}
		if rec.Stream == fleet.StreamStdout {
			_, _ = read.Write(rec.Data) // never fails
		}
		return nil
	})
	if err != nil && !errors.Is(err, end) && !errors.Is(err, io.EOF) {
		d.Logger.Debug("the log of a task could not be read for what its agent reports", "task", id, "attempt", attempt, "error", err)
	}
	return read.Use()
}
