package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/fleet"
	nkube "muster.dev/muster/internal/nodes/kube"
	"muster.dev/muster/internal/operator"
	"muster.dev/muster/internal/plan"
	skube "muster.dev/muster/internal/sandbox/kube"
	"muster.dev/muster/internal/scaler"
	ksecret "muster.dev/muster/internal/secret/cluster"
	"muster.dev/muster/internal/server"
)

// fleetInCluster runs one Fleet object; it is an operator.Runner.
type fleetInCluster struct {
	*unit
	k     *cluster
	f     operator.Fleet
	place *v1alpha1.KubernetesNodes // nil where others run the workers
	keep  *kept
	boxes *skube.Sandboxes // likewise
	nodes *nkube.Nodes     // likewise
	scale []*scaler.Scaler
	began time.Time

	over chan struct{} // closed when Run has ended
	told teller
}

var _ operator.Runner = (*fleetInCluster)(nil)

// start opens what a fleet works with.
func (k *cluster) start(ctx context.Context, f operator.Fleet) (_ operator.Runner, err error) {
	r := &fleetInCluster{k: k, f: f, place: f.Spec.Spec.Nodes.Kubernetes, over: make(chan struct{}), began: time.Now()}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if err = k.canCarry(f); err != nil {
		return nil, err
	}
	if r.keep, err = k.c.store.open(ctx, f.Spec, k.c.store.placeOf(k.c.dir, f.Namespace, f.Name)); err != nil {
		return nil, err
	}
	if r.keep.pg != nil {
		if _, err = r.keep.pg.Lead(ctx); err != nil {
			return nil, err
		}
	}
	back := &clusterReviser{client: k.dynamic, key: f.Key}
	c := unitConfig{
		written: revisionInCluster(f), reviser: back,
		parse: func(spec []byte) (*v1alpha1.Fleet, error) { return parseInCluster(f.Key, spec) },
		fleet: f.Spec, store: r.keep.store, embedded: r.keep.queue, archive: r.keep.archive, token: k.front.ground.token,
		secrets: k.secrets(f),
		hosts:   k.c.hosts, parallel: k.c.parallel, log: k.log.With("fleet", f.Key.String()),
		name: "muster-" + f.Namespace + "-" + f.Name,
	}
	if !f.Spec.Spec.Follows() {
		if err = r.openSandboxes(ctx); err != nil {
			return nil, err
		}
		c.sandboxes, c.nodes, c.policy = r.boxes, r.nodes, r.policy
	}
	if f.Spec.Spec.HasConsumers() {
		c.forward = &server.Forwarding{Transport: k.peers, Path: server.FleetPath(f.Namespace, f.Name)}
		k.owners.set(f.Key, r.keep.store)
	}
	if r.unit, err = openUnit(ctx, c); err != nil {
		return nil, err
	}
	back.unit = r.unit
	if err = r.openScalers(); err != nil {
		return nil, err
	}
	r.told.open(ctx, r.keep.store)
	k.front.Add(f.Namespace, f.Name, r.server)
	return r, nil
}

// secrets are those that a fleet's tasks and queues name.
func (k *cluster) secrets(f operator.Fleet) fleet.Secrets {
	return &ksecret.Source{Client: k.client, Namespace: f.Namespace, Name: f.Spec.Spec.Secrets.Kubernetes}
}

// openSandboxes opens the fleet's pods and nodes.
func (r *fleetInCluster) openSandboxes(ctx context.Context) (err error) {
	k, p := r.k, r.place
	if r.boxes, err = k.openBoxes(ctx, r.f); err != nil {
		return err
	}
	log := k.log.With("fleet", r.f.Key.String())
	slot, err := r.f.Spec.SlotResources()
	if err != nil {
		return err
	}
	o := nkube.Options{
		Client: k.client, Dynamic: k.dynamic, Watch: k.watch, Fleet: r.f.Name, Namespace: r.f.Namespace,
		Selector: p.NodeSelector, Dedicated: !p.Shared && len(p.NodeSelector) > 0, Tolerations: append(tolerations(p), dedicated),
		Slots: r.f.Spec.Spec.Nodes.Slots, Slot: slot, Max: r.f.Spec.Spec.Nodes.Max,
		Headroom: nkube.Headroom(p.Headroom), NodePool: p.NodePool, PriorityClass: p.PlaceholderPriorityClass,
		Image: k.image, Command: []string{"/muster", "wait-here"}, Logger: log,
	}
	if !r.elastic() {
		o.Headroom = nkube.HeadroomNone
		if len(o.Selector) == 0 {
			o.Selector = anyNode
		}
	}
	r.nodes, err = nkube.New(o)
	return err
}

// openBoxes opens the pods of a fleet, for whoever orders or carries them.
func (k *cluster) openBoxes(ctx context.Context, f operator.Fleet) (*skube.Sandboxes, error) {
	p := f.Spec.Spec.Nodes.Kubernetes
	classes := map[fleet.Runtime]string{}
	for runtime, class := range map[fleet.Runtime]string{fleet.RuntimeGVisor: p.RuntimeClasses.GVisor, fleet.RuntimeKata: p.RuntimeClasses.Kata} {
		if class != "" {
			classes[runtime] = class
		}
	}
	warm := p.Warm
	if f.Spec.Spec.HasConsumers() {
		warm = v1alpha1.WarmPods // agent-sandbox's pools are sized by one process
	}
	pools, err := k.agentSandbox(warm)
	if err != nil {
		return nil, err
	}
	return skube.New(ctx, skube.Options{
		Client: k.client, Dynamic: k.dynamic, AgentSandbox: pools, Namespace: f.Namespace, Fleet: f.Name,
		Owner: &metav1.OwnerReference{
			APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindFleet, Name: f.Name, UID: types.UID(f.UID),
		},
		Sessions: k.gateway, Exchange: k.exchange, Door: k.door, RunnerImage: k.image, Logger: k.log.With("fleet", f.Key.String()),
		Pods: skube.PodOptions{
			NodeSelector: p.NodeSelector, Tolerations: tolerations(p), RuntimeClasses: classes,
			ImagePullSecrets: p.ImagePullSecrets, PriorityClass: p.PriorityClass, ServiceAccount: p.ServiceAccount,
		},
	})
}

// elastic tells whether nodes are brought and returned.
func (r *fleetInCluster) elastic() bool {
	return len(r.place.NodeSelector) > 0 && r.place.Headroom != v1alpha1.HeadroomNone
}

// policy completes what follows from the nodes of the cluster.
func (r *fleetInCluster) policy(s *control.Spec) {
	n := &r.f.Spec.Spec.Nodes
	p := &s.Policy.Nodes
	p.Scalable, p.Slots, p.Min, p.Max = r.elastic(), n.Slots, n.Min, n.Max
	if boot, err := time.ParseDuration(n.Boot); err == nil { // validation has passed
		p.BootLead = boot
	}
	if slot, err := r.f.Spec.SlotResources(); err == nil {
		many := int64(n.Slots)
		p.Size = plan.Size{MilliCPU: many * slot.MilliCPU, MemoryBytes: many * slot.MemoryBytes, DiskBytes: many * slot.DiskBytes}
	}
}

// openScalers makes what drives the fleet's targets.
func (r *fleetInCluster) openScalers() error {
	for i, t := range r.f.Spec.Spec.Targets {
		s, err := scaler.New(scaler.Options{
			Config: r.k.config, Namespace: r.f.Namespace, Fleet: r.f.Name, Targets: r.control.Targets,
			Target: scaler.Target{APIVersion: t.APIVersion, Kind: t.Kind, Name: t.Name},
			Drives: scaler.Drives(t.Drives), Pool: fleet.PoolKey(t.Template), PerReplica: t.PerReplica,
			Min: t.Min, Max: t.Max, Reports: scaler.Reports(t.Reports), Logger: r.log,
		})
		if err != nil {
			return fmt.Errorf("spec.targets[%d]: %w", i, err)
		}
		r.scale = append(r.scale, s)
	}
	return nil
}

// Run implements operator.Runner.
func (r *fleetInCluster) Run(ctx context.Context) error {
	defer close(r.over)
	work := newCrew(ctx)
	defer work.stop()
	work.start(r.parts()...)
	if r.nodes != nil {
		work.start(part{"nodes", func(ctx context.Context) error { r.nodes.Run(ctx); return nil }})
	}
	for _, s := range r.scale {
		work.start(part{"targets", s.Run})
	}
	var err error
	select {
	case <-ctx.Done():
	case <-r.drained():
	case err = <-work.failed:
	}
	// Nothing more is decided from here on: another replica may lead already.
	work.stop()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if serr := r.server.Shutdown(bounded); serr != nil {
		r.log.Info("some requests were cut off", "error", serr)
	}
	work.wg.Wait()
	return err
}

// drained is closed when Drain wants Run to end.
func (r *fleetInCluster) drained() <-chan struct{} { return r.told.end }

// Restarts implements operator.Runner.
func (r *fleetInCluster) Restarts(f operator.Fleet) bool { return r.f.Spec.MustBeRestarted(f.Spec) }

// Update implements operator.Runner.
func (r *fleetInCluster) Update(f operator.Fleet) error {
	r.f = f
	if err := r.update(f.Spec); err != nil {
		return err
	}
	r.keepRevision(context.Background(), revisionInCluster(f))
	return nil
}

// Close implements operator.Runner.
func (r *fleetInCluster) Close() {
	var errs []error
	if r.told.end != nil {
		r.told.close()
	}
	if r.keep != nil {
		r.k.owners.unset(r.f.Key, r.keep.store)
	}
	if r.unit != nil {
		r.k.front.Remove(r.f.Namespace, r.f.Name, r.server)
		errs = append(errs, r.unit.close())
	}
	if r.boxes != nil {
		errs = append(errs, r.boxes.Close())
	}
	if r.keep != nil {
		errs = append(errs, r.keep.close())
	}
	if err := errors.Join(errs...); err != nil {
		r.k.log.Warn("a fleet was not closed well", "fleet", r.f.Key.String(), "error", err)
	}
}

// Report implements operator.Runner.
func (r *fleetInCluster) Report() operator.Report {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	out := operator.Report{Endpoint: server.FleetPath(r.f.Namespace, r.f.Name), Events: r.told.events(ctx)}
	out.Consumers = r.consumers(ctx, &out.Problem)
	v, err := r.control.View(ctx)
	if err != nil {
		out.Problem = operator.Problem{Reason: "Unknown", Message: err.Error()}
		return out
	}
	out.Ready, out.Sentence = r.control.Ready(ctx) == nil, v.Sentence
	out.Queued, out.Nodes = v.Backlog+v.Delayed, len(v.Nodes)
	for _, p := range v.Pools {
		out.Running += p.Running
		out.Standby += p.Ready
		out.Starting += p.Starting
		out.Desired += p.Desired
	}
	if worst := r.problem(&v); worst != (operator.Problem{}) {
		out.Problem = worst
	}
	return out
}

// problem is the worst that is wrong with a fleet.
func (r *fleetInCluster) problem(v *fleet.View) operator.Problem {
	for i, s := range r.scale {
		if err := s.Status().Err; err != nil {
			return operator.Problem{Reason: "TargetNotScaled", Message: fmt.Sprintf("spec.targets[%d]: %v", i, err)}
		}
	}
	if v.SignalsError != "" {
		return operator.Problem{Reason: "QueueNotRead", Message: v.SignalsError}
	}
	if v.NodesError != "" {
		return operator.Problem{Reason: "NodesNotComing", Message: v.NodesError}
	}
	for _, p := range v.Pools {
		if p.Breaker.Open {
			return operator.Problem{Reason: "StartsFail", Message: "sandboxes of template " + p.Template + ": " + p.Breaker.Reason}
		}
	}
	if d := v.Dedication; d != nil && len(d.Trespasses) > 0 {
		t := d.Trespasses[0]
		return operator.Problem{Reason: "NotDedicated", Message: fmt.Sprintf("%d breaches; the first: %s on node %s (%s)", len(d.Trespasses), t.Workload, t.Node, t.Kind)}
	}
	return operator.Problem{}
}
