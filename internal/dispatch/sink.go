package dispatch

import (
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"muster.dev/muster/internal/fleet"
)

// sink receives what the runner of one run sends; see fleet.TaskSink.
type sink run

func (s *sink) LogOffset() int64 {
	n, err := s.d.Archive.LogSize(s.task.ID, s.lease.Attempt)
	if err != nil {
		return 0 // the runner sends again from the start; AppendLog skips what it has
	}
	return n
}

func (s *sink) Log(offset int64, at time.Time, stream fleet.Stream, data []byte) error {
	return s.d.Archive.AppendLog(s.task.ID, s.lease.Attempt, fleet.LogRecord{Offset: offset, At: at, Stream: stream, Data: data})
}

func (s *sink) Phase(state fleet.TaskState, at time.Time) error {
	(*run)(s).acceptedAt(at)
	c := fleet.Change{State: state}
	s.mu.Lock()
	first := !s.started
	switch state {
	case fleet.TaskStarting:
		c.StartedAt = at
		s.started = true
	case fleet.TaskRunning:
		c.RunningAt = at
		if first {
			c.StartedAt = at
		}
		s.started = true
	default:
		first = false
	}
	s.mu.Unlock()
	if first && s.d.Observe != nil {
		s.d.Observe.Started(s.task.Spec.Pool, s.task.Launch, max(0, at.Sub(s.task.DueAt)))
	}
	err := s.d.Tasks.Change(s.d.base, s.task.ID, s.lease.Fence, c)
	if errors.Is(err, fleet.ErrFenced) {
		return nil // the report will be fenced, too, and ends it
	}
	return err
}

func (s *sink) Patch(size int64, r io.Reader) error {
	_, err := s.d.Archive.PutFile(s.task.ID, "patch", io.LimitReader(r, size))
	return err
}

func (s *sink) Artifact(a fleet.Artifact, r io.Reader) error {
	_, err := s.d.Archive.PutFile(s.task.ID, path.Join("artifacts", path.Clean("/"+a.Path)), io.LimitReader(r, a.Bytes))
	return err
}

// Done settles the task. An error makes the runner send its report again, so
// only what may succeed later is one.
func (s *sink) Done(rep fleet.RunReport) error {
	r := (*run)(s)
	if rep.Task != r.task.ID || rep.Fence != r.held {
		return fmt.Errorf("report of task %s fence %d on the sandbox of task %s fence %d: %w", rep.Task, rep.Fence, r.task.ID, r.held, fleet.ErrInvalid)
	}
	r.mu.Lock()
	if r.ended {
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()
	d := r.d
	usage, uerr := r.usage(d.base)
	if uerr != nil {
		d.Logger.Debug("usage of a finished task could not be read", "task", r.task.ID, "error", uerr)
	}
	reason := ReasonOf(rep, usage)
	if reason == fleet.ReasonExit && r.task.Spec.Retries.OnExit && MayRetry(r.task) {
		if !r.end() {
			return nil
		}
		err := r.retry(Backoff(r.task.Spec.Retries.Backoff, r.task.Attempt), fmt.Sprintf("exit code %d", rep.ExitCode))
		if errors.Is(err, fleet.ErrFenced) && r.yielded() {
			return fmt.Errorf("retry task %s: %w", r.task.ID, err)
		}
		r.finish("task to be retried")
		return nil
	}
	t, err := d.Tasks.Settle(d.base, r.task.ID, r.lease.Fence, r.settlement(rep, reason, usage))
	if err != nil && !errors.Is(err, fleet.ErrFenced) || err != nil && r.yielded() {
		return fmt.Errorf("settle task %s: %w", r.task.ID, err) // the runner keeps its report, for the new owner
	}
	if r.end() {
		if err == nil {
			d.settled(t)
		}
		r.finish("task ended")
	}
	return nil
}

func (r *run) settlement(rep fleet.RunReport, reason fleet.TaskReason, u fleet.Usage) fleet.Settlement {
	u.MilliCPUNow = 0 // it is over
	logBytes, _ := r.d.Archive.LogSize(r.task.ID, r.lease.Attempt)
	p := r.task.Phases
	r.acceptedAt(r.task.ClaimedAt)
	r.mu.Lock()
	p.Claim = max(0, r.accepted.Sub(r.task.DueAt.Add(p.Queue)))
	r.mu.Unlock()
	p.Start, p.Setup, p.Run, p.Collect = rep.Start, rep.Setup, rep.Run, rep.Collect
	return fleet.Settlement{
		State: StateOf(reason), Phases: p, EndedAt: r.d.Clock(),
		Result: fleet.Result{
			Reason: reason, Message: message(reason, r.current(), rep, u), ExitCode: rep.ExitCode, Signal: rep.Signal,
			LogBytes: logBytes, LogDropped: rep.LogDropped, PatchBytes: rep.PatchBytes, PatchNote: rep.PatchNote,
			Artifacts: rep.Artifacts, ArtifactNote: rep.ArtifactNote, Usage: u, Model: r.modelUse(),
		},
	}
}

// Lost says the sandbox ended without a report.
func (s *sink) Lost(err error) { (*run)(s).lost(err) }
