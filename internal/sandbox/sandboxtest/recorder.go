package sandboxtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// patience bounds every wait of the suite; a machine with others on it is
// slow, a hanging test is worse.
const patience = 60 * time.Second

// Recorder is a fleet.TaskSink that keeps everything and checks the contract
// of the calls as they come.
type Recorder struct {
	mu        sync.Mutex
	busy      bool
	log       []byte
	phases    []fleet.TaskState
	patch     []byte
	artifacts map[string][]byte
	report    *fleet.RunReport
	lost      error
	faults    []string
	fail      map[string]int // calls to fail, by method
	ended     chan struct{}
	grew      chan struct{}
}

// NewRecorder returns an empty recorder.
func NewRecorder() *Recorder {
	return &Recorder{
		artifacts: map[string][]byte{}, fail: map[string]int{},
		ended: make(chan struct{}), grew: make(chan struct{}),
	}
}

// Successor returns a recorder that goes on from what r has stored, as a
// restarted control plane does.
func (r *Recorder) Successor() *Recorder {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := NewRecorder()
	n.log = bytes.Clone(r.log)
	n.artifacts = maps.Clone(r.artifacts)
	return n
}

// FailNext makes the next n calls of a method (Log, Phase, Patch, Artifact,
// Done) fail.
func (r *Recorder) FailNext(method string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail[method] = n
}

var errSink = errors.New("the sink was told to fail")

// enter checks that calls do not overlap, and says whether this one is to
// fail.
func (r *Recorder) enter(method string) (leave func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy {
		r.faults = append(r.faults, method+" was called during another call")
	}
	r.busy = true
	if r.fail[method] > 0 {
		r.fail[method]--
		err = errSink
	}
	return func() {
		r.mu.Lock()
		r.busy = false
		r.mu.Unlock()
	}, err
}

// LogOffset implements fleet.TaskSink.
func (r *Recorder) LogOffset() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int64(len(r.log))
}

// Log implements fleet.TaskSink.
func (r *Recorder) Log(offset int64, at time.Time, stream fleet.Stream, data []byte) error {
	leave, err := r.enter("Log")
	defer leave()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	have := int64(len(r.log))
	switch {
	case offset > have:
		r.faults = append(r.faults, fmt.Sprintf("log at %d, but only %d bytes were stored", offset, have))
		return errors.New("gap in the log")
	case offset+int64(len(data)) <= have:
		return nil
	}
	if at.IsZero() || stream < fleet.StreamStdout || stream > fleet.StreamSystem {
		r.faults = append(r.faults, fmt.Sprintf("log with stream %d at %v", stream, at))
	}
	r.log = append(r.log, data[have-offset:]...)
	close(r.grew)
	r.grew = make(chan struct{})
	return nil
}

// Phase implements fleet.TaskSink.
func (r *Recorder) Phase(state fleet.TaskState, at time.Time) error {
	leave, err := r.enter("Phase")
	defer leave()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := time.Since(at); d < -time.Minute || d > time.Hour {
		r.faults = append(r.faults, fmt.Sprintf("phase %s at %v", state, at))
	}
	if n := len(r.phases); n == 0 || r.phases[n-1] != state {
		r.phases = append(r.phases, state)
	}
	return nil
}

// Patch implements fleet.TaskSink.
func (r *Recorder) Patch(size int64, rd io.Reader) error {
	leave, err := r.enter("Patch")
	defer leave()
	if err != nil {
		return err
	}
	b, err := io.ReadAll(rd)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if int64(len(b)) > size {
		r.faults = append(r.faults, fmt.Sprintf("patch of %d bytes, announced %d", len(b), size))
	}
	r.patch = b
	return nil
}

// Artifact implements fleet.TaskSink.
func (r *Recorder) Artifact(a fleet.Artifact, rd io.Reader) error {
	leave, err := r.enter("Artifact")
	defer leave()
	if err != nil {
		return err
	}
	b, err := io.ReadAll(rd)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.artifacts[a.Path] = b
	return nil
}

// Done implements fleet.TaskSink.
func (r *Recorder) Done(p fleet.RunReport) error {
	leave, err := r.enter("Done")
	defer leave()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.report != nil || r.lost != nil {
		r.faults = append(r.faults, "Done after the end")
		return nil
	}
	r.report = &p
	close(r.ended)
	return nil
}

// Lost implements fleet.TaskSink.
func (r *Recorder) Lost(err error) {
	leave, _ := r.enter("Lost")
	defer leave()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.faults = append(r.faults, "Lost without an error")
		err = errors.New("nil")
	}
	if r.report != nil || r.lost != nil {
		r.faults = append(r.faults, "Lost after the end")
		return
	}
	r.lost = err
	close(r.ended)
}

// Wait returns when the task has ended, one way or the other.
func (r *Recorder) Wait(t *testing.T) {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		t.Fatalf("the task did not end within %v; its log: %q", patience, r.Text())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.faults {
		t.Errorf("contract of TaskSink: %s", f)
	}
}

// Unended checks that the end of the task was not told.
func (r *Recorder) Unended(t *testing.T) {
	t.Helper()
	select {
	case <-r.ended:
		t.Errorf("the end was told: the task %s", r.how())
	default:
	}
}

// WaitLog returns when the log contains text.
func (r *Recorder) WaitLog(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		r.mu.Lock()
		found, grew := bytes.Contains(r.log, []byte(text)), r.grew
		r.mu.Unlock()
		if found {
			return
		}
		select {
		case <-grew:
		case <-r.ended:
			if !strings.Contains(r.Text(), text) {
				t.Fatalf("the task ended (%s) without %q in its log: %q", r.how(), text, r.Text())
			}
		case <-deadline:
			t.Fatalf("no %q in the log after %v: %q", text, patience, r.Text())
		}
	}
}

// Text is the log.
func (r *Recorder) Text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.log)
}

// Report is the report, which there must be.
func (r *Recorder) Report(t *testing.T) fleet.RunReport {
	t.Helper()
	r.Wait(t)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.report == nil {
		t.Fatalf("the task was lost: %v; its log: %q", r.lost, r.log)
	}
	return *r.report
}

// LostWith is the error of Lost, which there must be.
func (r *Recorder) LostWith(t *testing.T) error {
	t.Helper()
	r.Wait(t)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost == nil {
		t.Fatalf("the task was not lost but reported %+v", *r.report)
	}
	return r.lost
}

// Reason is how the task ended, by report or by loss.
func (r *Recorder) Reason(t *testing.T) fleet.TaskReason {
	t.Helper()
	r.Wait(t)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.report != nil {
		return r.report.Reason
	}
	var re *fleet.ReasonError
	if errors.As(r.lost, &re) {
		return re.Reason
	}
	return fleet.ReasonNodeLost
}

func (r *Recorder) how() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.report != nil {
		return fmt.Sprintf("reported %+v", *r.report)
	}
	return fmt.Sprintf("lost: %v", r.lost)
}
