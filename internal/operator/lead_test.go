package operator

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	kubetest "muster.dev/muster/test/kube"
)

// candidate stands for election in the background.
type candidate struct {
	leads atomic.Bool
	stop  context.CancelFunc
	done  chan error
}

func stand(t *testing.T, config *rest.Config, ns, name string, both *atomic.Int32) *candidate {
	t.Helper()
	return standFor(t, config, Election{Namespace: ns, Name: "muster", Identity: name, Pod: name}, both)
}

// standFor stands for what an Election says of Lease and fleets.
func standFor(t *testing.T, config *rest.Config, e Election, both *atomic.Int32) *candidate {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &candidate{stop: stop, done: make(chan error, 1)}
	e.Client, e.Logger = client, slog.New(slog.DiscardHandler)
	go func() {
		c.done <- e.Lead(ctx, func(ctx context.Context) error {
			if both.Add(1) > 1 {
				t.Error("two lead at once")
			}
			c.leads.Store(true)
			<-ctx.Done()
			time.Sleep(200 * time.Millisecond) // winding down
			c.leads.Store(false)
			both.Add(-1)
			return ctx.Err()
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-c.done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		c.done <- nil
	})
	return c
}

func ownPod(t *testing.T, c *kubetest.Cluster, ns, name string) {
	t.Helper()
	_, err := c.Client.CoreV1().Pods(ns).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "muster", Image: "muster"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// TestElection: one leads, and its pod carries the label; one that stops hands
// over at once, one that is cut off within 15 s, and never do two lead.
func TestElection(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	ownPod(t, c, ns, "a")
	ownPod(t, c, ns, "b")
	var both atomic.Int32
	a := stand(t, c.Config, ns, "a", &both)
	eventually(t, "a leads", 20*time.Second, func(context.Context) bool { return a.leads.Load() })
	labelled := func(name string) func(context.Context) bool {
		return func(ctx context.Context) bool {
			list, err := c.Client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: LabelLeader + "=true"})
			return err == nil && len(list.Items) == 1 && list.Items[0].Name == name
		}
	}
	eventually(t, "its pod is labelled", 10*time.Second, labelled("a"))
	b := stand(t, c.Config, ns, "b", &both)
	time.Sleep(3 * time.Second)
	if b.leads.Load() {
		t.Fatal("both lead")
	}
	start := time.Now()
	a.stop()
	eventually(t, "b leads after a has stopped", 10*time.Second, func(context.Context) bool { return b.leads.Load() })
	t.Logf("a clean hand-over took %s", time.Since(start).Round(10*time.Millisecond))
	eventually(t, "b's pod is labelled", 10*time.Second, labelled("b"))
}

// TestElectionCutOff: a leader that cannot reach the API server any more stops
// before another one begins, and that is within 15 s.
func TestElectionCutOff(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	var both atomic.Int32
	config, cut := c.Config, make(chan struct{})
	cutOff := rest.CopyConfig(config)
	cutOff.Wrap(severed(cut))
	a := stand(t, cutOff, ns, "a", &both)
	eventually(t, "a leads", 20*time.Second, func(context.Context) bool { return a.leads.Load() })
	b := stand(t, config, ns, "b", &both)
	time.Sleep(time.Second)
	start := time.Now()
	close(cut)
	eventually(t, "b leads", 20*time.Second, func(context.Context) bool { return b.leads.Load() })
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("the hand-over took %s", took)
	} else {
		t.Logf("the hand-over took %s", took.Round(10*time.Millisecond))
	}
}
