package scaler

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"muster.dev/muster/internal/fleet"
)

const (
	// markSettles is how long a pod is marked before the replicas are lowered: the
	// controller that picks pods has to have seen the marks in its cache, and a
	// worker has time to say that it took work after all.
	markSettles = time.Second
	// stepEvery is how soon to look again while a step is being carried out.
	stepEvery = 250 * time.Millisecond
	// busyEvery and busyAtMost bound how soon to look again while busy workers
	// hold replicas.
	busyEvery, busyAtMost = time.Second, 10 * time.Second
)

// scaleIn lowers the replicas as far as nobody who works is hurt.
func (s *Scaler) scaleIn(ctx context.Context, now time.Time, sc *scaleObject, do order, out *outcome) error {
	if do.signals != "" {
		out.held = fmt.Sprintf("%d replicas stay where %d are wanted: the signals are not to be trusted (%s)", out.replicas, do.want, do.signals)
		return nil
	}
	if left := s.o.Settle - now.Sub(s.began); left > 0 {
		out.held = fmt.Sprintf("%d replicas stay where %d are wanted: started %s ago, and nothing is scaled in for %s", out.replicas, do.want, now.Sub(s.began).Round(time.Second), s.o.Settle)
		out.again = left
		return nil
	}
	if s.o.Reports == ReportsOff {
		return s.lower(ctx, sc, do.want, out)
	}
	ws, err := s.workers(ctx, now, sc)
	if err != nil {
		return err
	}
	if sc.Status.Selector == "" && s.o.Reports == ReportsRequired {
		out.held = fmt.Sprintf("%s names no selector in its /scale, so its workers cannot be asked, and reports are required", s.o.Target)
		return nil
	}
	if plain(ws, s.o.Reports) {
		return s.lower(ctx, sc, do.want, out)
	}
	if len(ws) > out.replicas { // the last step is still being carried out
		out.again = stepEvery
		return nil
	}
	s.askAll(ctx, ws)
	return s.byName(ctx, now, step{sc: sc, ws: ws, want: do.want}, out)
}

// plain says that there is nobody to go by name: there are no workers, or none
// of them has ever heard of the contract and it is optional.
func plain(ws []worker, r Reports) bool {
	for i := range ws {
		if ws[i].reports || !ws[i].leaving.IsZero() {
			return false
		}
	}
	return len(ws) == 0 || r == ReportsOptional
}

// step is a scale-in of workers that are known by name.
type step struct {
	sc   *scaleObject
	ws   []worker
	want int
}

// byName marks who may go and, once the marks have settled, lowers by as many.
func (s *Scaler) byName(ctx context.Context, now time.Time, st step, out *outcome) error {
	r, mixed := ruleOf(st.ws)
	for i := range st.ws {
		if st.ws[i].state == busy {
			out.busy++
		}
	}
	if mixed {
		out.held = fmt.Sprintf("%s is being rolled out: which of its pods go is not for us to say until it is done", s.o.Target)
		out.again = busyEvery
		return nil
	}
	have := out.replicas
	chosen := choose(st.ws, r, have-st.want)
	if err := s.remark(ctx, now, st.ws, chosen); err != nil {
		return err
	}
	settled := 0
	for _, w := range chosen {
		if w.leaving.IsZero() || now.Sub(w.leaving) < markSettles {
			out.again = stepEvery
			break
		}
		settled++
	}
	n, err := s.floor(ctx, st, r, chosen[:settled], have)
	if err != nil {
		return err
	}
	if n = max(st.want, n); n < have {
		if err := s.lower(ctx, st.sc, n, out); err != nil {
			return err
		}
	}
	if len(chosen) < have-st.want {
		out.held = fmt.Sprintf("%d replicas stay where %d are wanted: %d of %d workers are busy", out.replicas, st.want, out.busy, len(st.ws))
		if r == anyone && out.busy > 0 {
			out.held += ", and its controller does not say which would go"
		}
		if out.again == 0 {
			out.again = nextLook(now, st.ws)
		}
	}
	return nil
}

// floor is the lowest number of replicas at which only those go that are chosen.
// Pods that the set is still to create do not count as gone: they may come, and
// somebody else would go for them.
func (s *Scaler) floor(ctx context.Context, st step, r rule, chosen []*worker, have int) (int, error) {
	if r != byOrdinal {
		return have - len(chosen), nil
	}
	set, err := s.c.kube.AppsV1().StatefulSets(s.o.Namespace).Get(ctx, ownerName(st.ws[0].name), metav1.GetOptions{})
	if err != nil {
		return 0, call{"get", schema.GroupResource{Group: "apps", Resource: "statefulsets"}, "", &s.o}.wrap(err)
	}
	start := 0
	if o := set.Spec.Ordinals; o != nil {
		start = int(o.Start)
	}
	going := make(map[*worker]bool, len(chosen))
	for _, w := range chosen {
		going[w] = true
	}
	n := 0
	for i := range st.ws {
		if w := &st.ws[i]; !going[w] {
			n = max(n, w.ordinal-start+1)
		}
	}
	return min(n, have), nil
}

// ownerName is the name of a StatefulSet, given one of its pods.
func ownerName(pod string) string {
	for i := len(pod) - 1; i > 0; i-- {
		if pod[i] == '-' {
			return pod[:i]
		}
	}
	return pod
}

// nextLook is when a busy worker may be done.
func nextLook(now time.Time, ws []worker) time.Duration {
	d := busyAtMost
	for i := range ws {
		if w := &ws[i]; w.state == busy {
			if w.until.IsZero() {
				return 2 * busyEvery
			}
			d = min(d, w.until.Sub(now))
		}
	}
	return max(d, busyEvery)
}

// lower writes fewer replicas. Where somebody was faster everything is looked at
// again: what was found out about the workers belongs to the old number.
func (s *Scaler) lower(ctx context.Context, sc *scaleObject, n int, out *outcome) error {
	err := s.write(ctx, sc, n, out)
	if errors.Is(err, fleet.ErrConflict) {
		out.again = stepEvery
		return nil
	}
	if err == nil && s.marked {
		out.again = stepEvery
	}
	return err
}

// leavingCost is below what anybody sets by hand; the range is that of int32.
var leavingCost = strconv.Itoa(-1<<31 + 1)
