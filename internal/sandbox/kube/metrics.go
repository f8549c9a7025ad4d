package kube

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"muster.dev/muster/internal/fleet"
)

const (
	// metricsEvery is how long one answer serves: metrics-server itself looks
	// every 15 s.
	metricsEvery = 10 * time.Second
	// metricsRetry is how long it is left alone after a failure.
	metricsRetry = 30 * time.Second
)

var podMetrics = schema.GroupVersionResource{Group: "metrics.k8s.io", Version: "v1beta1", Resource: "pods"}

// metrics reads what the cluster measures of the fleet's pods: one request
// for all of them, however many ask.
type metrics struct {
	o Options

	mu    sync.Mutex // held during the request: whoever asks meanwhile wants its answer
	asked time.Time
	err   error
	pods  map[string]reading
}

// reading is one measurement of a pod.
type reading struct {
	at       time.Time
	milliCPU int64 // over the last window
	memory   int64 // bytes, the working set
}

func newMetrics(o Options) *metrics { return &metrics{o: o} }

// of returns the newest reading of a pod.
func (m *metrics) of(ctx context.Context, name string) (reading, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	every := metricsEvery
	if m.err != nil {
		every = metricsRetry
	}
	if now := m.o.Clock(); m.asked.IsZero() || now.Sub(m.asked) >= every {
		m.pods, m.err = m.ask(ctx)
		if ctx.Err() != nil {
			m.asked = time.Time{}
			return reading{}, ctx.Err()
		}
		m.asked = now
	}
	if m.err != nil {
		return reading{}, m.err
	}
	r, ok := m.pods[name]
	if !ok {
		return reading{}, fmt.Errorf("the cluster has not measured it yet: %w", fleet.ErrUnavailable)
	}
	return r, nil
}

func (m *metrics) ask(ctx context.Context) (map[string]reading, error) {
	if m.o.Dynamic == nil {
		return nil, fmt.Errorf("readings were not asked for: %w", fleet.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	list, err := m.o.Dynamic.Resource(podMetrics).Namespace(m.o.Namespace).List(ctx,
		metav1.ListOptions{LabelSelector: m.o.selector().String()})
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("this cluster serves no metrics.k8s.io (metrics-server): %w", fleet.ErrUnavailable)
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("our service account lacks the right to list pods.metrics.k8s.io: %w: %w", fleet.ErrDenied, err)
	case err != nil:
		return nil, fmt.Errorf("read metrics.k8s.io: %w: %w", fleet.ErrUnavailable, err)
	}
	pods := make(map[string]reading, len(list.Items))
	for i := range list.Items {
		if r, ok := readingOf(&list.Items[i]); ok {
			pods[list.Items[i].GetName()] = r
		}
	}
	return pods, nil
}

// readingOf adds up the containers of one PodMetrics; false when it is not
// what it should be.
func readingOf(o *unstructured.Unstructured) (reading, bool) {
	var r reading
	text, _, _ := unstructured.NestedString(o.Object, "timestamp")
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return r, false
	}
	r.at = at
	containers, ok, _ := unstructured.NestedSlice(o.Object, "containers")
	for _, c := range containers {
		usage, _ := c.(map[string]any)
		cpu, _, _ := unstructured.NestedString(usage, "usage", "cpu")
		memory, _, _ := unstructured.NestedString(usage, "usage", "memory")
		qc, errc := resource.ParseQuantity(cpu)
		qm, errm := resource.ParseQuantity(memory)
		if errc != nil || errm != nil {
			return r, false
		}
		r.milliCPU += qc.MilliValue()
		r.memory += qm.Value()
	}
	return r, ok && len(containers) > 0
}

// meter adds readings up over time: the cluster keeps no counters.
type meter struct {
	mu sync.Mutex
	u  fleet.Usage
}

// longestStep bounds the time that one rate is taken to hold for: after an
// outage nobody knows what happened meanwhile.
const longestStep = 2 * time.Minute

func (m *meter) add(r reading) fleet.Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.at.After(m.u.At) {
		if !m.u.At.IsZero() {
			dt := min(r.at.Sub(m.u.At), longestStep)
			m.u.CPU += time.Duration(r.milliCPU) * dt / 1000
			m.u.MemoryByteSeconds += int64(float64(r.memory+m.u.MemoryBytes) / 2 * dt.Seconds())
		}
		m.u.At, m.u.MilliCPUNow, m.u.MemoryBytes = r.at, r.milliCPU, r.memory
		m.u.MemoryPeakBytes = max(m.u.MemoryPeakBytes, r.memory)
	}
	return m.u
}
