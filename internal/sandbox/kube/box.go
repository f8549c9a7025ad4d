package kube

import (
	"context"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/egress"
	"muster.dev/muster/internal/sandbox/gateway"
	"muster.dev/muster/internal/sandbox/link"
)

// box is one sandbox that this process holds.
type box struct {
	id      fleet.SandboxID
	spec    fleet.SandboxSpec
	attempt string                  // of the pod that this process makes; empty: adopted
	class   string                  // its RuntimeClass
	runtime fleet.Runtime           // which is this
	fail    context.CancelCauseFunc // ends Create
	settled chan struct{}           // closed when Create or Adopt has its answer

	// Set by establish, before the exchange knows the box.
	uid     string
	links   *gateway.Listener
	outs    *gateway.Listener // nil without a proxy
	session *link.Session
	proxy   *egress.Proxy

	// Set before settled is closed, then constant.
	err       error
	isolation fleet.Isolation

	meter meter

	mu       sync.Mutex
	pod      *corev1.Pod // as seen last; nil: never
	sent     bool        // a request to make the pod may have arrived
	released bool
	ended    bool // the pod is over
	leaving  bool // Destroy was called
	done     bool // a report was delivered: its end is no surprise
	task     fleet.TaskID
}

func newBox(spec fleet.SandboxSpec, fail context.CancelCauseFunc) *box {
	return &box{id: spec.ID, spec: spec, fail: fail, settled: make(chan struct{})}
}

// ready reports whether it was created and lives.
func (b *box) ready() bool {
	select {
	case <-b.settled:
	default:
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err == nil && !b.ended && !b.leaving && !b.released
}

// await waits for the Create that is under way.
func (b *box) await(ctx context.Context) (fleet.Isolation, error) {
	select {
	case <-ctx.Done():
		return fleet.Isolation{}, ctx.Err()
	case <-b.settled:
	}
	if b.err == nil && !b.ready() {
		return fleet.Isolation{}, fmt.Errorf("the sandbox has ended: %w", fleet.ErrConflict)
	}
	return b.isolation, b.err
}

// seen is the pod as it was seen last.
func (b *box) seen() *corev1.Pod {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pod
}

// establish listens for the runner of a pod that exists, and lets the gateway
// and the watch find it.
func (s *Sandboxes) establish(b *box, pod *corev1.Pod) error {
	b.uid = string(pod.UID)
	b.links = gateway.NewListener()
	b.session = link.Serve(b.links, link.Options{
		Token: s.o.Sessions.Session(b.uid), Prepare: b.spec.Prepare, Env: b.spec.Env, Startup: b.spec.Startup,
		Logger: s.o.Logger.With("sandbox", b.id),
	})
	if b.spec.Network.Mode == fleet.NetworkProxy {
		outs := gateway.NewListener()
		var err error
		if b.proxy, err = egress.Serve(outs, b.spec.Network, s.proxyOptions(b.session)); err != nil {
			return fmt.Errorf("serve the proxy: %w", err)
		}
		b.outs = outs
	}
	s.o.Exchange.add(b.uid, b)
	s.observe(pod) // and what the watch told before we knew whose it was:
	if p, err := s.pods.Get(pod.Name); err == nil && string(p.UID) == b.uid {
		s.observe(p)
	}
	return nil
}

// proxyOptions has refused names told in the task's log.
func (s *Sandboxes) proxyOptions(session *link.Session) egress.Options {
	o := s.o.Proxy
	told := o.OnDeny
	o.OnDeny = func(name, why string) {
		if told != nil {
			told(name, why)
		}
		_ = session.Note("proxy: " + name + " " + why) // best effort: the client has its answer
	}
	return o
}

// release lets go of everything this process holds and leaves the pod be.
func (s *Sandboxes) release(b *box) error {
	b.mu.Lock()
	was := b.released
	b.released = true
	b.mu.Unlock()
	if was || b.uid == "" {
		return nil
	}
	s.o.Exchange.remove(b.uid, b)
	var errs []error
	if b.session != nil {
		errs = append(errs, b.session.Close())
	}
	if b.proxy != nil {
		errs = append(errs, b.proxy.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("release sandbox %s: %w", b.id, err)
	}
	return nil
}

// drop forgets a sandbox.
func (s *Sandboxes) drop(b *box) {
	if err := s.release(b); err != nil {
		s.o.Logger.Debug("letting go of a sandbox", "sandbox", b.id, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.boxes[b.id] == b {
		delete(s.boxes, b.id)
	}
}
