package kubetest

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// pod is one that runs as its specification says.
type pod struct {
	kubelet *kubelet
	spec    *corev1.Pod
	o       KubeletOptions
	dir     string // of its volumes; empty: it only seems to run
	ip      string
	started metav1.Time
	cancel  context.CancelFunc
	done    chan struct{} // closed once nothing of it runs any more

	mu     sync.Mutex
	silent bool // its node is dead: what happens to it is not told
	asked  bool // to terminate
	child  *process
	output tail
}

// run takes the pod through its life.
func (p *pod) run(ctx context.Context) {
	defer close(p.done)
	if !sleep(ctx, p.o.Startup) {
		return
	}
	volumes, err := p.mount(ctx)
	if err != nil {
		p.fail(ctx, "CreateContainerConfigError", err)
		return
	}
	if !p.prepare(ctx, volumes) || !p.pull(ctx, p.spec.Spec.Containers, p.waitingStatus) {
		return
	}
	ready := func() { p.tell(ctx, p.runningStatus()) }
	code := 0
	switch first := &p.spec.Spec.Containers[0]; {
	case p.o.Runner != "":
		code, err = p.execute(ctx, first, volumes, ready)
	case p.o.InProcess != nil && p.environment(first, volumes)["MUSTER_IDENTITY"] != "":
		ready()
		code = p.o.InProcess(ctx, p.environment(first, volumes))
	default:
		ready()
		<-ctx.Done()
	}
	p.finish(ctx, nil, code, err)
}

// prepare takes the pod through its init containers; false: it gets no further.
func (p *pod) prepare(ctx context.Context, volumes *volumes) bool {
	inits := p.spec.Spec.InitContainers
	for i := range inits {
		if !p.pull(ctx, inits[i:i+1], func(_ int, reason, message string) corev1.PodStatus {
			return p.initWaitingStatus(i, reason, message)
		}) {
			return false
		}
		if p.o.Runner == "" {
			continue
		}
		if code, err := p.execute(ctx, &inits[i], volumes, nil); err != nil || code != 0 {
			p.finish(ctx, &inits[i], code, err)
			return false
		}
	}
	if p.o.Runner == "" {
		if err := p.hand(volumes); err != nil {
			p.fail(ctx, "CreateContainerConfigError", err)
			return false
		}
	}
	return true
}

// pull returns true where the images of containers are there. Where that of one
// is not it tells so, as kubelets do, until the pod goes.
func (p *pod) pull(ctx context.Context, of []corev1.Container, status func(n int, reason, message string) corev1.PodStatus) bool {
	missing := slices.IndexFunc(of, func(c corev1.Container) bool { return strings.Contains(c.Image, noImage) })
	if missing < 0 {
		return true
	}
	for n := 0; ; n++ {
		reason := []string{"ErrImagePull", "ImagePullBackOff"}[n%2]
		p.tell(ctx, status(missing, reason, "the image is not in the registry"))
		if !sleep(ctx, time.Duration(1+9*min(n, 1))*time.Second) {
			return false
		}
	}
}

// fail tells of a pod that cannot start, and waits until it goes.
func (p *pod) fail(ctx context.Context, reason string, err error) {
	if ctx.Err() == nil {
		if len(p.spec.Spec.InitContainers) > 0 {
			p.tell(ctx, p.initWaitingStatus(0, reason, err.Error()))
		} else {
			p.tell(ctx, p.waitingStatus(0, reason, err.Error()))
		}
	}
	<-ctx.Done()
}

// finish tells that a container has ended: the first one, or an init container
// that failed.
func (p *pod) finish(ctx context.Context, init *corev1.Container, code int, err error) {
	ended := corev1.ContainerStateTerminated{ExitCode: int32(code), Reason: "Completed", StartedAt: p.started, FinishedAt: metav1.Now()} //nolint:gosec // an exit code
	if code != 0 || err != nil {
		ended.Reason = "Error"
	}
	if err != nil {
		ended.Message = err.Error()
		ended.ExitCode = max(ended.ExitCode, 1)
	}
	p.tell(context.WithoutCancel(ctx), p.endedStatus(init, ended))
}

// tell writes a status, however long the API server is away, but not once the
// pod is over.
func (p *pod) tell(ctx context.Context, s corev1.PodStatus) {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		p.mu.Lock()
		silent := p.silent
		p.mu.Unlock()
		if silent || p.kubelet.ctx.Err() != nil {
			return
		}
		if p.patch(ctx, s) == nil || !sleep(ctx, wait) {
			return
		}
	}
}

// patch writes a status once; that the pod is gone is no error.
func (p *pod) patch(ctx context.Context, s corev1.PodStatus) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.spec.UID}, "status": s})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err = p.kubelet.cluster.Client.CoreV1().Pods(p.spec.Namespace).Patch(ctx, p.spec.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) || apierrors.IsInvalid(err) {
		return nil
	}
	return err
}

// terminate asks the pod to end, ends it after the grace, and calls back.
func (p *pod) terminate(grace time.Duration, ended func()) {
	p.mu.Lock()
	asked := p.asked
	p.asked = true
	p.mu.Unlock()
	if asked {
		return
	}
	go func() {
		p.end(grace)
		p.remove()
		ended()
	}()
}

// end ends the pod: what is a process gets the grace to end by itself.
func (p *pod) end(grace time.Duration) {
	p.mu.Lock()
	child := p.child
	p.mu.Unlock()
	if child != nil && grace > 0 {
		_ = syscall.Kill(child.cmd.Process.Pid, syscall.SIGTERM) // ESRCH: it has ended
		timer := time.NewTimer(grace)
		select {
		case <-child.done:
		case <-timer.C:
		}
		timer.Stop()
	}
	p.cancel()
	<-p.done
}

func (p *pod) finished() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// silence makes what happens to the pod from now on unheard.
func (p *pod) silence() {
	p.mu.Lock()
	p.silent = true
	p.mu.Unlock()
}

func (p *pod) said() string { return strings.TrimSpace(p.output.String()) }

func (p *pod) remove() { _ = os.RemoveAll(p.dir) } // what stays goes with the cluster's directory

// sleep waits; false: the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
