package cluster

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"muster.dev/muster/internal/kube"
	"muster.dev/muster/internal/queue/queuetest/servers"
	kubetest "muster.dev/muster/test/kube"
)

// Workers of the team's own, a Deployment that takes from Redis, are sized by
// the plan, and scaled in by name: those that say that they are busy stay.
func TestTargets(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{group: kubetest.GroupOptions{Min: 1, Max: 1}})
	redis := servers.StartRedis(t)
	w.deployment("workers")
	between := func(min, max int) {
		w.apply("agents", w.fleetSpec(fmt.Sprintf(`
mode: scale
nodes: {}
queue: {type: redis, redis: {addresses: ["%s"], list: {name: tasks}}}
targets: [{apiVersion: apps/v1, kind: Deployment, name: workers, min: %d, max: %d}]`, redis.Address, min, max)))
	}
	between(0, 8)
	p := w.plane("serve", "").start()
	p.ready("agents")
	tell(t, redis, "LPUSH tasks 1 2 3 4 5 6")
	w.until(time.Minute, "six workers run", func() error {
		if n := w.running("workers"); len(n) < 6 {
			return fmt.Errorf("%d", len(n))
		}
		return nil
	})
	pods := w.running("workers")
	busy := map[string]bool{pods[0].Name: true, pods[len(pods)-1].Name: true}
	for i := range pods {
		w.say(pods[i].Name, fmt.Sprint(busy[pods[i].Name]))
	}
	tell(t, redis, "DEL tasks") // what came keeps the plan at six for a while
	between(1, 1)
	w.until(2*time.Minute, "only those at work are left", func() error {
		now := w.running("workers")
		kept := 0
		for i := range now {
			if busy[now[i].Name] {
				kept++
			}
		}
		if kept < 2 {
			t.Fatalf("%d of 2 workers at work are left", kept)
		}
		if len(now) > 2 {
			return fmt.Errorf("%d are left", len(now))
		}
		return nil
	})
	for name := range busy {
		w.say(name, "false")
	}
	w.until(2*time.Minute, "one is left", func() error {
		if n := w.running("workers"); len(n) != 1 {
			return fmt.Errorf("%d are left", len(n))
		}
		return nil
	})
}

// deployment makes a Deployment of workers, none of them wanted yet, that may
// run on the world's nodes.
func (w *world) deployment(name string) {
	w.t.Helper()
	none, labels := int32(0), map[string]string{"app": name}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{
		Replicas: &none, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"pool": w.ns},
			Tolerations:  []corev1.Toleration{{Key: kube.TaintDedicated, Operator: corev1.TolerationOpExists}},
			Containers:   []corev1.Container{{Name: "worker", Image: "example.test/worker:1", Command: []string{"sleep", "600"}}},
		}},
	}}
	if _, err := w.c.Client.AppsV1().Deployments(w.ns).Create(w.t.Context(), d, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// running are the pods of an app that run and are not about to go.
func (w *world) running(app string) (out []corev1.Pod) {
	w.t.Helper()
	l, err := w.c.Client.CoreV1().Pods(w.ns).List(w.t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range l.Items {
		if p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
			out = append(out, p)
		}
	}
	return out
}

// say is what a worker says of itself.
func (w *world) say(pod, busy string) {
	w.t.Helper()
	patch := fmt.Sprintf(`{"metadata": {"annotations": {"muster.dev/busy": %q}}}`, busy)
	if _, err := w.c.Client.CoreV1().Pods(w.ns).Patch(w.t.Context(), pod, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// tell gives a Redis one inline command.
func tell(t *testing.T, r *servers.Redis, command string) {
	t.Helper()
	c, err := net.Dial("tcp", r.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answer := make([]byte, 64)
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err = c.Write([]byte(command + "\r\n")); err == nil {
		_, err = c.Read(answer)
	}
	if err != nil || !strings.HasPrefix(string(answer), ":") {
		t.Fatalf("%s: %q, %v", command, answer, err)
	}
}
