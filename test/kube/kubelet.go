package kubetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// KubeletOptions say how the pods of a namespace run.
type KubeletOptions struct {
	Namespace string
	// Runner is the path of the muster-runner program that pods find under this
	// name: a container whose command is muster-runner, in whatever directory,
	// or that has no command, runs it. Empty: InProcess.
	Runner string
	// InProcess is called instead of the first container of a pod that has the
	// variable MUSTER_IDENTITY, after the token of the pod was put where that
	// says, and runs until the context ends (the pod is deleted) or it returns
	// the exit code. env is what the container would see, with paths of this
	// machine. Nil, and no Runner: pods are ready and do nothing.
	InProcess func(ctx context.Context, env map[string]string) int
	// Startup is how long a pod takes from its node to its first container.
	Startup time.Duration
}

// kubelet runs the pods of every node: those of namespaces that a test has
// asked for as it says, all others as pods that are ready at once.
type kubelet struct {
	cluster *Cluster
	ctx     context.Context
	queue   workqueue.TypedInterface[string]
	workers sync.WaitGroup

	mu     sync.Mutex
	spaces map[string]KubeletOptions
	pods   map[types.UID]*pod
	dead   map[string]bool // nodes that Kill has killed
	ips    int
}

func newKubelet(ctx context.Context, c *Cluster) *kubelet {
	return &kubelet{
		cluster: c, ctx: ctx, queue: workqueue.NewTyped[string](),
		spaces: map[string]KubeletOptions{}, pods: map[types.UID]*pod{}, dead: map[string]bool{},
	}
}

func (k *kubelet) enqueue(key string) { k.queue.Add(key) }

func (k *kubelet) run() {
	for range 16 {
		k.workers.Go(func() {
			for {
				key, done := k.queue.Get()
				if done {
					return
				}
				if !k.sync(key) {
					time.AfterFunc(200*time.Millisecond, func() { k.queue.Add(key) })
				}
				k.queue.Done(key)
			}
		})
	}
}

// wait returns once every pod has ended, after the context has.
func (k *kubelet) wait() {
	k.queue.ShutDown()
	k.workers.Wait()
	k.mu.Lock()
	pods := make([]*pod, 0, len(k.pods))
	for _, p := range k.pods {
		pods = append(pods, p)
	}
	k.mu.Unlock()
	for _, p := range pods {
		p.end(0)
	}
}

// Kubelet runs the pods of a namespace, from now to the end of the test, by
// their specification: volumes, init containers and the first container as
// processes of this machine, with the container's environment and, where this
// process is root, its user. Paths in commands, arguments and variables that
// begin with the path of a volume lead to a directory of the pod's own. Limits,
// probes and images are not obeyed, but an image whose name holds
// "no-such-image" is never pulled: images are pulled one container after the
// other, so init containers before it run.
func (c *Cluster) Kubelet(t testing.TB, o KubeletOptions) {
	t.Helper()
	if o.Namespace == "" {
		t.Fatal("kubetest: KubeletOptions.Namespace is empty; name the namespace whose pods are to run")
	}
	if o.Runner != "" {
		program, err := c.adopt(o.Runner)
		if err != nil {
			t.Fatalf("kubetest: KubeletOptions.Runner: %v", err)
		}
		o.Runner = program
	}
	k := c.kubelet
	k.mu.Lock()
	_, taken := k.spaces[o.Namespace]
	k.spaces[o.Namespace] = o
	k.mu.Unlock()
	if taken {
		t.Fatalf("kubetest: two kubelets for the namespace %s", o.Namespace)
	}
	t.Cleanup(func() {
		for _, p := range k.leave(o.Namespace) {
			p.end(0)
			if said := p.said(); t.Failed() && said != "" {
				t.Logf("pod %s said at the end:\n%s", p.spec.Name, said)
			}
			p.remove()
		}
	})
}

// adopt copies a program to where the users of pods can run it, once.
func (c *Cluster) adopt(program string) (string, error) {
	from, err := os.Stat(program)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(c.dir, fmt.Sprintf("program-%d-%d", from.ModTime().UnixNano(), from.Size()))
	to := filepath.Join(dir, runnerName)
	if _, err := os.Stat(to); err == nil {
		return to, nil
	}
	b, err := os.ReadFile(program)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // run by users of pods
		return "", err
	}
	return to, os.WriteFile(to, b, 0o755) //nolint:gosec // run by users of pods
}

// leave forgets a namespace, and returns what still runs in it.
func (k *kubelet) leave(namespace string) []*pod {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.spaces, namespace)
	var left []*pod
	for uid, p := range k.pods {
		if p.spec.Namespace == namespace {
			left = append(left, p)
			delete(k.pods, uid)
		}
	}
	return left
}

// sync does what is next for a pod; false: try again soon.
func (k *kubelet) sync(key string) bool {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return true
	}
	spec, err := k.cluster.watch.pods.Pods(namespace).Get(name)
	k.forget(namespace, name, spec)
	if err != nil || spec.Spec.NodeName == "" {
		return true
	}
	k.mu.Lock()
	dead, running := k.dead[spec.Spec.NodeName], k.pods[spec.UID]
	k.mu.Unlock()
	switch over := spec.Status.Phase == corev1.PodSucceeded || spec.Status.Phase == corev1.PodFailed; {
	case dead:
		return true
	case spec.DeletionTimestamp != nil:
		return k.delete(spec, running)
	case over || running != nil:
		return true
	}
	return k.begin(spec)
}

// forget ends what runs under the name of a pod that is gone, or is another
// one now.
func (k *kubelet) forget(namespace, name string, now *corev1.Pod) {
	k.mu.Lock()
	var gone []*pod
	for uid, p := range k.pods {
		if p.spec.Namespace == namespace && p.spec.Name == name && (now == nil || now.UID != uid) {
			gone = append(gone, p)
			delete(k.pods, uid)
		}
	}
	k.mu.Unlock()
	for _, p := range gone {
		p.end(0)
		p.remove()
	}
}

// delete ends a pod in the time it is given, and then removes it.
func (k *kubelet) delete(spec *corev1.Pod, running *pod) bool {
	if running != nil && !running.finished() {
		grace := time.Duration(0)
		if s := spec.DeletionGracePeriodSeconds; s != nil {
			grace = time.Duration(*s) * time.Second
		}
		running.terminate(grace, func() { k.enqueue(spec.Namespace + "/" + spec.Name) })
		return true
	}
	now := int64(0)
	err := k.cluster.Client.CoreV1().Pods(spec.Namespace).Delete(k.ctx, spec.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &spec.UID},
	})
	return err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err)
}

// begin starts a pod that has just got its node.
func (k *kubelet) begin(spec *corev1.Pod) bool {
	ctx, cancel := context.WithCancel(k.ctx)
	k.mu.Lock()
	o, ours := k.spaces[spec.Namespace]
	k.ips++
	p := &pod{
		kubelet: k, spec: spec, o: o, cancel: cancel, done: make(chan struct{}), started: metav1.Now(),
		ip: fmt.Sprintf("10.%d.%d.%d", 128+k.ips>>16&63, k.ips>>8&255, k.ips&255),
	}
	if ours || hopeless(spec) {
		p.dir = filepath.Join(k.cluster.dir, "pods", string(spec.UID))
		k.pods[spec.UID] = p
	}
	k.mu.Unlock()
	if p.dir == "" {
		defer cancel()
		return p.patch(ctx, p.runningStatus()) == nil
	}
	go p.run(ctx)
	return true
}

// noImage is in the names of images that are in no registry.
const noImage = "no-such-image"

// hopeless says that an image of the pod cannot be pulled.
func hopeless(spec *corev1.Pod) bool {
	for _, list := range [][]corev1.Container{spec.Spec.InitContainers, spec.Spec.Containers} {
		if slices.ContainsFunc(list, func(c corev1.Container) bool { return strings.Contains(c.Image, noImage) }) {
			return true
		}
	}
	return false
}

// kill ends every pod of a node as a loss of power would: nobody is told.
func (k *kubelet) kill(node string) {
	k.mu.Lock()
	k.dead[node] = true
	var lost []*pod
	for _, p := range k.pods {
		if p.spec.Spec.NodeName == node {
			p.silence()
			lost = append(lost, p)
		}
	}
	k.mu.Unlock()
	for _, p := range lost {
		p.end(0)
	}
}
