package cluster

import (
	"context"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"muster.dev/muster/internal/kube"
	"muster.dev/muster/internal/runner"
	"muster.dev/muster/internal/runner/dialout"
	kubetest "muster.dev/muster/test/kube"
)

// podWatch counts what happens to pods, as the API server tells it.
type podWatch struct {
	mu      sync.Mutex
	created map[string]int            // by role
	of      map[string]int            // sandboxes created, by template
	names   map[string]int            // sandboxes by name: how often created
	deleted map[string]*corev1.Pod    // sandboxes as they were when they went
	peak    int                       // most sandboxes at once
	now     map[string]bool           // sandboxes
	states  map[string]map[string]int // name -> state label -> times seen
	first   chan time.Time            // takes when the next sandbox was created; nil: nobody waits
}

func watchPods(t testing.TB, c *kubetest.Cluster, ns string) *podWatch {
	t.Helper()
	p := &podWatch{created: map[string]int{}, of: map[string]int{}, names: map[string]int{}, deleted: map[string]*corev1.Pod{}, now: map[string]bool{}, states: map[string]map[string]int{}}
	f := informers.NewSharedInformerFactoryWithOptions(c.Client, 0, informers.WithNamespace(ns))
	inf := f.Core().V1().Pods().Informer()
	_, err := inf.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { p.add(o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { p.see(o.(*corev1.Pod)) },
		DeleteFunc: func(o any) {
			if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = d.Obj
			}
			p.remove(o.(*corev1.Pod))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.Start(ctx.Done())
	t.Cleanup(func() { cancel(); f.Shutdown() })
	if !cache.WaitForCacheSync(t.Context().Done(), inf.HasSynced) {
		t.Fatal("the watch of pods did not begin")
	}
	return p
}

func (p *podWatch) add(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	role := pod.Labels[kube.LabelRole]
	p.created[role]++
	if role == kube.RoleSandbox {
		p.names[pod.Name]++
		p.of[pod.Labels[kube.LabelTemplate]]++
		p.now[pod.Name] = true
		p.peak = max(p.peak, len(p.now))
		if p.first != nil {
			p.first <- time.Now()
			p.first = nil
		}
	}
}

func (p *podWatch) see(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := pod.Labels[kube.LabelState]; s != "" {
		if p.states[pod.Name] == nil {
			p.states[pod.Name] = map[string]int{}
		}
		p.states[pod.Name][s]++
	}
}

func (p *podWatch) remove(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pod.Labels[kube.LabelRole] == kube.RoleSandbox {
		p.deleted[pod.Name] = pod
		delete(p.now, pod.Name)
	}
}

// next takes the time at which the next sandbox is created.
func (p *podWatch) next() <-chan time.Time {
	c := make(chan time.Time, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.first = c
	return c
}

// counts are how many sandboxes and seats were created so far.
func (p *podWatch) counts() (sandboxes, seats, peak int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.created[kube.RoleSandbox], p.created[kube.RoleSeat], p.peak
}

// ofTemplate is how many sandboxes of a template were created so far.
func (p *podWatch) ofTemplate(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of[name]
}

// twice lists sandboxes that were created more than once.
func (p *podWatch) twice() (names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, times := range p.names {
		if times > 1 {
			names = append(names, n)
		}
	}
	return names
}

// runInProcess is a runner as a goroutine. It does what cmd/muster-runner/pod
// does, but for what a process of its own can do: drop rights.
func runInProcess(ctx context.Context, env map[string]string) int {
	bearer, err := os.ReadFile(env["MUSTER_IDENTITY"])
	if err != nil {
		return 1
	}
	_ = os.Remove(env["MUSTER_IDENTITY"])
	d, err := dialout.New(dialout.Options{Gateway: env["MUSTER_GATEWAY"], CA: []byte(env["MUSTER_CA"]), Bearer: string(bearer)})
	if err != nil {
		return 1
	}
	err = runner.Run(ctx, runner.Config{
		Dial: func(ctx context.Context) (io.ReadWriteCloser, error) { return d.Link(ctx) }, Token: d.Session,
		Home: env["MUSTER_HOME"], Workspace: env["MUSTER_WORKSPACE"], LongestPause: time.Second,
	})
	if err != nil {
		return 1
	}
	return 0
}
