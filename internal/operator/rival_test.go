package operator

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
)

// TestControlPlanesOfOneNamespace: those of different fleets lead side by side;
// of two for the same fleets one leads, and the other follows it.
func TestControlPlanesOfOneNamespace(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	var left, right atomic.Int32 // leaders of each side
	a := standFor(t, c.Config, Election{Namespace: ns, Name: "muster", Identity: "a", Fleets: "team-a"}, &left)
	b := standFor(t, c.Config, Election{Namespace: ns, Name: "second", Identity: "b", Fleets: "team-b"}, &right)
	eventually(t, "both lead", time.Minute, func(context.Context) bool { return a.leads.Load() && b.leads.Load() })
	lease := func(name string) *coordinationv1.Lease {
		l, err := c.Client.CoordinationV1().Leases(ns).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if l := lease("second"); l.Labels[LabelFleets] != "team-b" || *l.Spec.HolderIdentity != "b" {
		t.Errorf("%v, held by %s", l.Labels, *l.Spec.HolderIdentity)
	}
	same := standFor(t, c.Config, Election{Namespace: ns, Name: "third", Identity: "c", Fleets: "team-a"}, &left)
	eventually(t, "the third has its own Lease", time.Minute, func(ctx context.Context) bool {
		l, err := c.Client.CoordinationV1().Leases(ns).Get(ctx, "third", metav1.GetOptions{})
		return err == nil && l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity == "c"
	})
	for range 3 { // of its looks
		time.Sleep(retryPeriod)
		if same.leads.Load() {
			t.Fatal("two lead the fleets of team-a")
		}
	}
	a.stop()
	eventually(t, "the third follows the first", time.Minute, func(context.Context) bool { return same.leads.Load() })
	if !b.leads.Load() {
		t.Error("the one of other fleets does not lead any more")
	}
}

// TestRival: which Leases of the namespace are another control plane's that runs
// our fleets, or may.
func TestRival(t *testing.T) {
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	lease := func(name, fleets, holder string, acquired, renewed time.Duration) *coordinationv1.Lease {
		at, renew := metav1.NewMicroTime(now.Add(acquired)), metav1.NewMicroTime(now.Add(renewed))
		l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, ResourceVersion: "1"}}
		if fleets != "" {
			l.Labels = map[string]string{LabelFleets: fleets}
		}
		l.Spec = coordinationv1.LeaseSpec{HolderIdentity: &holder, AcquireTime: &at, RenewTime: &renew}
		return l
	}
	own := lease("ours", "team-a", "us", -time.Second, 0)
	for name, x := range map[string]struct {
		other  *coordinationv1.Lease
		fleets string // ours
		want   string
	}{
		"of the same fleets":                   {lease("b", "team-a", "b", -time.Hour, -time.Second), "team-a", "b"},
		"of other fleets":                      {lease("b", "team-b", "b", -time.Hour, -time.Second), "team-a", ""},
		"of all, and ours are some":            {lease("b", "all", "b", -time.Hour, -time.Second), "team-a", "b"},
		"of some, and ours are all":            {lease("b", "team-b", "b", -time.Hour, -time.Second), "", "b"},
		"of an older version":                  {lease("muster", "", "b", -time.Hour, -time.Second), "team-a", "muster"},
		"of another program":                   {lease("ingress", "", "b", -time.Hour, -time.Second), "", ""},
		"given back":                           {lease("b", "team-a", "", -time.Hour, -time.Second), "team-a", ""},
		"of one that was removed long ago":     {lease("b", "team-a", "b", -time.Hour, -longGone), "team-a", ""},
		"renewed by a clock that is behind":    {lease("b", "team-a", "b", -time.Hour, -longGone/2), "team-a", "b"},
		"taken after ours":                     {lease("b", "team-a", "b", 0, 0), "team-a", ""},
		"taken at the same moment, named less": {lease("b", "team-a", "b", -time.Second, 0), "team-a", "b"},
		"taken at the same moment, named more": {lease("z", "team-a", "b", -time.Second, 0), "team-a", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := Election{Client: fake.NewClientset(own, x.other), Namespace: "ns", Name: "ours", Fleets: x.fleets, Logger: slog.New(slog.DiscardHandler)}
			seen := map[string]sight{}
			if got, err := e.rival(t.Context(), now, seen); err != nil || got != x.want {
				t.Fatalf("%q %v, want %q", got, err, x.want)
			}
			if got, err := e.rival(t.Context(), now.Add(leaseDuration), seen); err != nil || got != x.want {
				t.Errorf("at the end of its term: %q %v, want %q", got, err, x.want)
			}
			if got, err := e.rival(t.Context(), now.Add(leaseDuration+time.Second), seen); err != nil || got != "" {
				t.Errorf("it was not renewed, and is waited for: %q %v", got, err)
			}
		})
	}
}

// TestRivalsUnseen: who may not list Leases leads as before there were others.
func TestRivalsUnseen(t *testing.T) {
	client := fake.NewClientset()
	client.PrependReactor("list", "leases", func(ktesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("forbidden") })
	e := Election{Client: client, Namespace: "ns", Name: "ours", Logger: slog.New(slog.DiscardHandler)}
	if !e.alone(t.Context()) {
		t.Error("it does not lead")
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if e.alone(ended) {
		t.Error("it leads though it was told to end")
	}
}
