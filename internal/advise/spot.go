package advise

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/whatif"
)

// reclaims are how long a spot node may last, in the mean, before its provider
// takes it back: what is tried, from bad to good. What providers tell of is
// milder than the first ones: the worst class of AWS is more than 20 of 100 in a
// month (https://aws.amazon.com/ec2/spot/instance-advisor/).
var reclaims = []time.Duration{6 * time.Hour, spotLife, 7 * 24 * time.Hour, 30 * 24 * time.Hour}

// spotLife is how long a spot node is taken to last where it is advised: as
// nothing of it was measured, much less than what providers tell.
const spotLife = 24 * time.Hour

// spotLabels say that a node is a spot node, by the beginning of the labels
// that a fleet's selector already uses.
var spotLabels = map[string][2]string{
	"karpenter.sh/":         {"karpenter.sh/capacity-type", "spot"},            // https://karpenter.sh/docs/concepts/scheduling/
	"eks.amazonaws.com/":    {"eks.amazonaws.com/capacityType", "SPOT"},        // https://docs.aws.amazon.com/eks/latest/userguide/managed-node-groups.html
	"cloud.google.com/":     {"cloud.google.com/gke-spot", "true"},             // https://cloud.google.com/kubernetes-engine/docs/concepts/spot-vms
	"kubernetes.azure.com/": {"kubernetes.azure.com/scalesetpriority", "spot"}, // https://learn.microsoft.com/azure/aks/spot-node-pool
}

// spotLabel is the label that selects spot nodes with this provider.
func (a *advisor) spotLabel() (label [2]string, known bool) {
	for _, k := range slices.Sorted(maps.Keys(a.fleet.Spec.Nodes.Kubernetes.NodeSelector)) {
		if i := strings.IndexByte(k, '/'); i >= 0 {
			if label, known = spotLabels[k[:i+1]]; known {
				return label, true
			}
		}
	}
	return label, false
}

// spot tries spot nodes of the type there is, where the price list has them and
// the fleet brings its nodes by itself: what a node that is taken back costs is
// the work begun again, and the wait for another.
func (a *advisor) spot(ctx context.Context) error {
	seen := a.lab.Seen.Kind
	if a.out.Basis.FixedNodes > 0 || seen.Capacity == "spot" || a.fleet.Spec.Nodes.Kubernetes == nil {
		return nil
	}
	tariff, err := a.lab.Rules.Tariff(a.fleet)
	if err != nil {
		return err
	}
	kind := fleet.NodeKind{InstanceType: seen.InstanceType, Capacity: "spot"}
	prices, _ := tariff.For(kind, a.lab.Now)
	p, now := int64(prices.PerHour(a.lab.Now)), a.out.Basis.NodeHourMicroUSD
	if p <= 0 || p >= now {
		return nil
	}
	label, known := a.spotLabel()
	spec := tree{}
	if known {
		spec = tree{"nodes": tree{"kubernetes": tree{"nodeSelector": tree{label[0]: label[1]}}}}
	}
	c := candidate{title: "Use spot nodes", spec: spec, kind: &nodeKind{kind: kind, shape: a.lab.Seen.Shape}}
	price := fmt.Sprintf("spot nodes cost $%.4g an hour where %s cost $%.4g", float64(p)/1e6, orThese(seen.InstanceType), float64(now)/1e6)
	t, life, err := a.lasts(ctx, c)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		a.withhold(fleet.AdviceSpot, "%s; there was no time left to try them: ask about a shorter time", price)
	case err != nil:
		return err
	case life == 0:
		a.withhold(fleet.AdviceSpot, "%s; %s even if each is taken back but once in %s: it is none that saves 1 %% without letting more tasks be late", price, a.spotEffect(t), inWords(reclaims[len(reclaims)-1]))
	case life > spotLife:
		a.withhold(fleet.AdviceSpot, "%s; %s while each is taken back no more often than once in %s: more often than that is not ruled out here, as it was not measured", price, a.spotEffect(t), inWords(life))
	case !known:
		a.withhold(fleet.AdviceSpot, "%s; %s while each is taken back no more often than once in %s; which nodes are spot is for nodes.kubernetes.nodeSelector to say, and what it says now does not tell whose labels you use", price, a.spotEffect(t), inWords(life))
	default:
		return a.adviseSpot(ctx, t, life, price, label)
	}
	return nil
}

// adviseSpot advises it as it is if nodes last no longer than spotLife.
func (a *advisor) adviseSpot(ctx context.Context, t *tried, life time.Duration, price string, label [2]string) error {
	if life < spotLife {
		c := t.candidate
		c.lasts = spotLife
		var err error
		if t, err = a.try(ctx, c); err != nil {
			return err
		}
	}
	holds, err := a.holds(ctx, money, t)
	if err != nil {
		return err
	}
	if !holds {
		a.withhold(fleet.AdviceSpot, "%s; they looked better over the whole time, and are not on the later half of it by itself", price)
		return nil
	}
	t.why = fmt.Sprintf("%s; each is taken to be taken back once in %s, which was not measured: providers tell of far less. It holds up to once in %s", price, inWords(spotLife), inWords(life))
	t.note = fmt.Sprintf("the cluster must have nodes with %s=%s that the rest of the fleet's selector fits; a task on a node that is taken back begins again elsewhere (maxAttempts)", label[0], label[1])
	i := a.item(fleet.AdviceSpot, t)
	i.Effect += fmt.Sprintf("; %d of %d tasks begin again", t.after.Lost, t.after.Tasks)
	a.out.Items = append(a.out.Items, i)
	return nil
}

// lasts is how soon nodes may be taken back for a candidate to be good, and how
// it does then; 0 and how it does in the best case where it is not good in any.
func (a *advisor) lasts(ctx context.Context, c candidate) (t *tried, life time.Duration, err error) {
	for _, life := range reclaims {
		c.lasts = life
		if t, err = a.try(ctx, c); err != nil {
			return nil, 0, err
		}
		if money.good(&a.present, &t.after) {
			return t, life, nil
		}
	}
	return t, 0, nil
}

func (a *advisor) spotEffect(t *tried) string {
	s := whatif.Saving(&a.present, &t.after)
	return fmt.Sprintf("%s, and %d of %d tasks begin again,", a.effect(&s, &t.after), t.after.Lost, t.after.Tasks)
}

// inWords is a time in hours or days.
func inWords(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return fmt.Sprintf("%d hours", d/time.Hour)
}

func orThese(v string) string {
	if v == "" {
		return "these"
	}
	return v
}
