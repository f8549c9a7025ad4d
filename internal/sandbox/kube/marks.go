package kube

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

const (
	// markAfter is how long a task runs before its pod says so: node
	// autoscalers look every ten seconds, and what is over by then needs no
	// write.
	markAfter   = time.Second
	markWorkers = 4
	markTries   = 8
)

// marks writes on claimed pods that they are, behind the claims and never in
// their way.
type marks struct {
	s     *Sandboxes
	queue workqueue.TypedRateLimitingInterface[fleet.SandboxID]
	wg    sync.WaitGroup
}

func newMarks(s *Sandboxes) *marks {
	limit := workqueue.NewTypedItemExponentialFailureRateLimiter[fleet.SandboxID](200*time.Millisecond, 30*time.Second)
	return &marks{s: s, queue: workqueue.NewTypedRateLimitingQueue(limit)}
}

func (m *marks) start() {
	for range markWorkers {
		m.wg.Go(m.work)
	}
}

func (m *marks) stop() {
	m.queue.ShutDown()
	m.wg.Wait()
}

// taken notes that a sandbox holds a task.
func (s *Sandboxes) taken(b *box, task fleet.TaskID) {
	b.mu.Lock()
	b.task = task
	b.mu.Unlock()
	if s.follower != nil {
		s.follower.claimed(b, task)
	}
	s.marks.queue.AddAfter(b.id, markAfter)
}

func (m *marks) work() {
	for {
		id, closed := m.queue.Get()
		if closed {
			return
		}
		err := m.mark(id)
		switch {
		case err == nil, m.s.ctx.Err() != nil:
			m.queue.Forget(id)
		case passing(err) && m.queue.NumRequeues(id) < markTries:
			m.queue.AddRateLimited(id)
		default:
			m.queue.Forget(id)
			m.s.o.Logger.Warn("a pod with a task could not be marked: its node may be taken away under it",
				"sandbox", id, "error", m.s.explain("patch pods", err))
		}
		m.queue.Done(id)
	}
}

// mark writes once; nothing where the sandbox is about to go.
func (m *marks) mark(id fleet.SandboxID) error {
	s := m.s
	s.mu.Lock()
	b := s.boxes[id]
	s.mu.Unlock()
	if b == nil || !b.ready() {
		return nil
	}
	b.mu.Lock()
	task, done, name := b.task, b.done, string(b.id)
	if b.pod != nil {
		name = b.pod.Name
	}
	b.mu.Unlock()
	if done || task == "" {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":    b.uid, // of another pod with this name nothing is changed
		"labels": map[string]string{kube.LabelState: stateTaken},
		"annotations": map[string]string{
			kube.AnnotationTask: string(task), kube.AnnotationSafeToEvict: "false", kube.AnnotationDoNotDisrupt: "true",
		},
	}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, requestTime)
	defer cancel()
	_, err = s.o.Client.CoreV1().Pods(s.o.Namespace).Patch(ctx, name, types.MergePatchType, patch,
		metav1.PatchOptions{FieldManager: fieldManager})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
