package operator

import (
	"cmp"
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"muster.dev/muster/internal/kube"
)

// Several control planes may share a namespace, each with a Lease of its own name.
// Then nothing but the Leases tells that two of them run the same fleets, from two
// stores: each would remove the other's sandboxes. So a Lease says whose fleets it
// is for, and of two for the same fleets the later one waits.
const (
	// LabelFleets is at a Lease the namespace of the fleets, or all.
	LabelFleets = kube.Group + "/fleets"
	allFleets   = "all"
	// firstLease was the only name there was, before Leases said what they are for.
	firstLease = "muster"
	// longGone is when a Lease that nobody gave back is not waited for: more than
	// clocks of one cluster differ.
	longGone = 10 * time.Minute
)

// scope is what the label of our Lease says.
func (e *Election) scope() string { return cmp.Or(e.Fleets, allFleets) }

// overlaps tells whether a Lease may be for some of our fleets.
func (e *Election) overlaps(l *coordinationv1.Lease) bool {
	switch theirs := l.Labels[LabelFleets]; theirs {
	case "":
		return l.Name == firstLease
	case allFleets, e.scope():
		return true
	}
	return e.scope() == allFleets
}

// sight is a Lease as it was when it changed last.
type sight struct {
	version string
	at      time.Time
}

// alone waits until no other control plane of this namespace runs our fleets;
// false: ctx ended before.
func (e *Election) alone(ctx context.Context) bool {
	seen := map[string]sight{}
	for said := ""; ; {
		rival, err := e.rival(ctx, time.Now(), seen)
		switch {
		case ctx.Err() != nil:
			return false
		case err != nil && rival == "":
			e.Logger.Warn("cannot see whether another control plane of this namespace runs the same fleets", "error", fault("list", "leases.coordination.k8s.io", e.Namespace, err))
			return true
		case rival == "":
			return true
		case rival != said:
			said = rival
			e.Logger.Warn("another control plane of this namespace runs the same fleets; standing by until it ends. Give one of the two another --namespace (fleets.namespace in the chart)",
				"lease", rival, "ours", e.Name, "fleets", e.scope())
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(retryPeriod):
		}
	}
}

// rival is the Lease of another control plane that is held, is for some of our
// fleets, and was there before ours; empty: there is none. What does not change
// for as long as a Lease holds counts as given up, by our own clock.
func (e *Election) rival(ctx context.Context, now time.Time, seen map[string]sight) (string, error) {
	list, err := e.Client.CoordinationV1().Leases(e.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	var own coordinationv1.Lease
	for i := range list.Items {
		if list.Items[i].Name == e.Name {
			own = list.Items[i]
		}
	}
	for i := range list.Items {
		l := &list.Items[i]
		if l.Name == e.Name || !e.overlaps(l) || !held(l, now) || !before(l, &own) {
			continue
		}
		s, known := seen[l.Name]
		if !known || s.version != l.ResourceVersion {
			s = sight{l.ResourceVersion, now}
			seen[l.Name] = s
		}
		if now.Sub(s.at) <= leaseDuration {
			return l.Name, nil
		}
	}
	return "", nil
}

// held tells whether a Lease has a holder that may live.
func held(l *coordinationv1.Lease, now time.Time) bool {
	if l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity == "" || l.Spec.RenewTime == nil {
		return false
	}
	return now.Sub(l.Spec.RenewTime.Time) < longGone
}

// before orders Leases by when their holders got them, so that of two that begin
// at once both know which it is.
func before(a, b *coordinationv1.Lease) bool {
	if a.Spec.AcquireTime == nil || b.Spec.AcquireTime == nil {
		return a.Spec.AcquireTime != nil || a.Name < b.Name
	}
	return cmp.Or(a.Spec.AcquireTime.Compare(b.Spec.AcquireTime.Time), cmp.Compare(a.Name, b.Name)) < 0
}
