package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"muster.dev/muster/internal/kube"
)

// The times of an election: a leader that cannot renew stops after
// renewDeadline, and another one begins after leaseDuration, or at once where
// the Lease was given back. A hand-over thus takes at most
// leaseDuration + 2 × retryPeriod, 14 s.
const (
	leaseDuration = 10 * time.Second
	renewDeadline = 7 * time.Second
	retryPeriod   = 2 * time.Second
)

// Election is among whom, and for what.
type Election struct {
	Client    kubernetes.Interface
	Namespace string // of the Lease
	Name      string // of the Lease
	// Fleets is the namespace of the fleets that the leader runs; empty: of all.
	Fleets string
	// Identity is this process's own; no other ever has it.
	Identity string
	// Pod is our own pod, which carries the label of the leader while we lead, so
	// that Services find it; empty: none.
	Pod    string
	Logger *slog.Logger
}

// LabelLeader is "true" at the pod that leads.
const LabelLeader = kube.Group + "/leader"

// Lead waits until this process is elected and calls work, whose context ends
// when leadership does: work must return within two seconds then. After that it
// stands again, until ctx ends or work fails. Where another Lease of the namespace
// is held for some of the same fleets, it waits for that one, too. The Lease is given back only after
// work has returned.
func (e Election) Lead(ctx context.Context, work func(ctx context.Context) error) error {
	for ctx.Err() == nil {
		err := e.once(ctx, work)
		if err != nil {
			return err
		}
	}
	return nil
}

func (e Election) once(ctx context.Context, work func(context.Context) error) error {
	// Not ctx itself: that would give the Lease back while work still winds down.
	election, cease := context.WithCancel(context.WithoutCancel(ctx))
	defer cease()
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		worked bool
		closed bool // the election is over
		failed error
	)
	leading := func(term context.Context) {
		run, stop := context.WithCancel(term)
		defer stop()
		defer context.AfterFunc(ctx, stop)()
		var err error
		if e.alone(run) {
			e.Logger.Info("leading", "identity", e.Identity)
			e.mark(ctx, true)
			err = work(run)
			e.mark(context.WithoutCancel(ctx), false)
		}
		mu.Lock()
		if worked = true; err != nil && !errors.Is(err, context.Canceled) {
			failed = err
		}
		mu.Unlock()
		cease()
	}
	started := false
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: e.Namespace, Name: e.Name},
			Client:     e.Client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: e.Identity},
			Labels:     map[string]string{LabelFleets: e.scope()},
		},
		LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(term context.Context) {
				mu.Lock()
				if closed {
					mu.Unlock()
					return
				}
				started = true
				wg.Add(1)
				mu.Unlock()
				defer wg.Done()
				leading(term)
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("stand for election: %w", err)
	}
	stand := context.AfterFunc(ctx, func() {
		mu.Lock()
		idle := !started || worked
		mu.Unlock()
		if idle {
			cease()
		}
	})
	defer stand()
	elector.Run(election)
	mu.Lock()
	begun := started
	closed = true
	mu.Unlock()
	if begun {
		wg.Wait()
		e.Logger.Info("not leading any more", "identity", e.Identity)
	}
	mu.Lock()
	defer mu.Unlock()
	return failed
}

// mark labels our own pod. A failure keeps Services from finding us, and is
// said.
func (e Election) mark(ctx context.Context, leads bool) {
	if e.Pod == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var value any
	if leads {
		value = "true"
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{LabelLeader: value}}})
	if err == nil {
		_, err = e.Client.CoreV1().Pods(e.Namespace).Patch(ctx, e.Pod, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil {
		e.Logger.Error("cannot label our own pod as the leader; Services may not find it", "pod", e.Pod, "error", fault("patch", "pods", e.Namespace, err))
	}
}
