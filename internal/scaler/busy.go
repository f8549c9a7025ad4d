package scaler

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
)

// The contract with the workers: annotations of their own pods.
const (
	// AnnotationBusy is "true", "false", or a time (RFC 3339) until which the
	// worker is busy unless it says so again. Anything else counts as busy.
	AnnotationBusy = "muster.dev/busy"
	// AnnotationBusyPort is the port of the pod that answers GET /busy with
	// {"busy": bool, "until": time}. No answer counts as busy.
	AnnotationBusyPort = "muster.dev/busy-port"
	// AnnotationDrain, "true", says that the worker takes PUT /drain on the same
	// port (take no more work; answered like GET /busy) and DELETE /drain (go on).
	AnnotationDrain = "muster.dev/busy-drain"
	// AnnotationLeaving is ours: since when the pod is marked to go.
	AnnotationLeaving = "muster.dev/leaving"
	// AnnotationCostBefore is ours: the deletion cost that the pod had before.
	AnnotationCostBefore = "muster.dev/deletion-cost-before"
)

// asksAtOnce bounds how many workers are asked, or marked, at a time.
const asksAtOnce = 32

// reported is what the annotations of a running pod say of it.
func (s *Scaler) reported(now time.Time, p *corev1.Pod, w *worker) {
	w.state = unknown
	if s.o.Reports == ReportsRequired {
		w.state = busy
	}
	if v, ok := p.Annotations[AnnotationBusy]; ok {
		w.reports, w.said = true, true
		w.state, w.until = parseBusy(v, now)
	}
	v, ok := p.Annotations[AnnotationBusyPort]
	if !ok {
		return
	}
	w.reports = true
	if n, err := strconv.ParseUint(v, 10, 16); err != nil || n == 0 || net.ParseIP(p.Status.PodIP) == nil {
		w.state = busy // it wants to be asked, and cannot be
		return
	}
	w.ask = net.JoinHostPort(p.Status.PodIP, v)
}

// parseBusy reads AnnotationBusy.
func parseBusy(v string, now time.Time) (state, time.Time) {
	switch v {
	case "true":
		return busy, time.Time{}
	case "false":
		return idle, time.Time{}
	}
	until, err := time.Parse(time.RFC3339, v)
	if err == nil && !now.Before(until) {
		return idle, time.Time{}
	}
	return busy, until
}

// askAll asks those that want to be asked. Who is marked is told to take no more
// work, where it understands that: an idle one then stays idle.
func (s *Scaler) askAll(ctx context.Context, ws []worker) {
	var g errgroup.Group
	g.SetLimit(asksAtOnce)
	for i := range ws {
		w := &ws[i]
		if w.ask == "" {
			continue
		}
		g.Go(func() error {
			method, path := http.MethodGet, "/busy"
			if w.drains && !w.leaving.IsZero() {
				method, path = http.MethodPut, "/drain"
			}
			st, until := s.askOne(ctx, w.ask, method, path)
			// An annotation that says busy is not overruled.
			if w.state != busy || !w.said {
				w.state, w.until = st, until
			}
			return nil
		})
	}
	_ = g.Wait() // nothing above fails: no answer is an answer
}

// answer is what a worker answers.
type answer struct {
	Busy  *bool     `json:"busy"`
	Until time.Time `json:"until"`
}

// askOne asks one worker; whatever is not a plain "not busy" is busy.
func (s *Scaler) askOne(ctx context.Context, host, method, path string) (state, time.Time) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, nil)
	if err != nil {
		return busy, time.Time{}
	}
	resp, err := s.c.web.Do(r)
	if err != nil {
		return busy, time.Time{}
	}
	defer func() { _ = resp.Body.Close() }()
	var a answer
	err = json.NewDecoder(io.LimitReader(resp.Body, 4<<10)).Decode(&a)
	if err != nil || resp.StatusCode != http.StatusOK || a.Busy == nil || *a.Busy {
		return busy, a.Until
	}
	return idle, time.Time{}
}
