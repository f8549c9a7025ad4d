package advise

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// minimum tries other standing minima of the first template.
func (a *advisor) minimum() lever {
	have := a.fleet.Spec.Capacity.Sandboxes.Min
	tries := []int{0, have / 4, have / 2, have - 1}
	if !a.present.Meets {
		tries = append(tries, 1, 2, 4, 8, 16)
	}
	l := lever{kind: fleet.AdviceMinimum}
	for _, n := range unlike(tries, have) {
		verb := "Lower"
		if n > have {
			verb = "Raise"
		}
		l.candidates = append(l.candidates, candidate{
			title: fmt.Sprintf("%s the standing minimum of warm sandboxes from %d to %d", verb, have, n),
			why:   a.standing(have, n),
			spec:  tree{"capacity": tree{"sandboxes": tree{"min": n}}},
		})
	}
	return l
}

func (a *advisor) standing(have, n int) string {
	if n < have {
		return "the stock that the planner keeps by itself, for what it expects, is enough on this history"
	}
	return fmt.Sprintf("%.2f %% of the tasks start within %s now, and 99 %% should", 100*a.present.Within, a.objective)
}

// nodesMinimum tries fewer nodes that are always there.
func (a *advisor) nodesMinimum() lever {
	have := a.fleet.Spec.Nodes.Min
	l := lever{kind: fleet.AdviceNodesMin}
	if a.out.Basis.FixedNodes > 0 {
		return l
	}
	for _, n := range unlike([]int{0, have / 2, have - 1}, have) {
		l.candidates = append(l.candidates, candidate{
			title: fmt.Sprintf("Lower the standing minimum of nodes from %d to %d", have, n),
			why:   "what the planner brings ahead of need is enough on this history",
			spec:  tree{"nodes": tree{"min": n}},
		})
	}
	return l
}

// unlike are the values that are not negative and not have, each once.
func unlike(values []int, have int) []int {
	slices.Sort(values)
	return slices.DeleteFunc(slices.Compact(values), func(n int) bool { return n < 0 || n == have })
}

// holds tries how long a warm stock and idle nodes outlive their cause.
func (a *advisor) holdTimes() lever {
	p := a.policy.WithDefaults()
	l := lever{kind: fleet.AdviceHold}
	for _, d := range []time.Duration{30 * time.Second, 2 * time.Minute, 5 * time.Minute, 15 * time.Minute} {
		if d != p.HoldWarm {
			l.candidates = append(l.candidates, candidate{
				title: fmt.Sprintf("Hold a warm stock for %s in place of %s after its cause is gone", short(d), short(p.HoldWarm)),
				why:   "tried on this history, between 30s and 15m", spec: tree{"scaling": tree{"holdWarm": short(d)}},
			})
		}
	}
	if a.out.Basis.FixedNodes > 0 {
		return l
	}
	for _, k := range []float64{1, 2, 4, 8} {
		if k != p.Nodes.Keep {
			l.candidates = append(l.candidates, candidate{
				title: fmt.Sprintf("Value a node that is there at %g times one to be booted, in place of %g (keepFactor)", k, p.Nodes.Keep),
				why:   "tried on this history, from 1 to 8: less gives idle nodes back sooner", spec: tree{"scaling": tree{"keepFactor": k}},
			})
		}
	}
	return l
}

// short writes a duration without zero parts.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

const (
	// mostPeaks bounds the peaks that a floor is tried for, and mostFloors the
	// floors that are tried to be left out.
	mostPeaks  = 4
	mostFloors = 8
)

// floors tries a floor for each named peak that nothing provides for, and to
// leave out each floor that there is.
func (a *advisor) floors() (out []lever) {
	written := a.writtenFloors()
	if a.forecast != nil {
		for i := range a.forecast.Peaks[:min(mostPeaks, len(a.forecast.Peaks))] {
			if l, ok := a.floorFor(&a.forecast.Peaks[i], written); ok {
				out = append(out, l)
			}
		}
		if len(a.forecast.Peaks) == 0 {
			a.withhold(fleet.AdviceFloor, "floors: no peak of the week is known: %s", a.forecast.Basis.Sentence)
		}
	}
	for i, f := range a.fleet.Spec.Capacity.Floors[:min(mostFloors, len(a.fleet.Spec.Capacity.Floors))] {
		if i >= len(written) {
			break
		}
		rest := slices.Delete(slices.Clone(written), i, i+1)
		out = append(out, lever{kind: fleet.AdviceFloor, candidates: []candidate{{
			title: fmt.Sprintf("Leave out the floor of %d at %q (%s)", f.Min, f.Cron, f.Timezone),
			why:   "tasks start as well without it on this history", spec: tree{"capacity": tree{"floors": rest}},
		}}})
	}
	return out
}

// floorFor is the floor that a peak asks for.
func (a *advisor) floorFor(p *fleet.ForecastPeak, written []any) (lever, bool) {
	late := p.WaitSeconds > a.out.Basis.ObjectiveSeconds
	if p.Floor <= p.Have || !late && a.present.Meets {
		a.withhold(fleet.AdviceFloor, "floors: %s %s: its tasks start in time without more", p.Days, p.From)
		return lever{}, false
	}
	var days []string
	for _, d := range p.Weekdays {
		days = append(days, strings.ToUpper(d.String()[:3]))
	}
	from, err1 := time.Parse("15:04", p.FloorFrom)
	until, err2 := time.Parse("15:04", strings.Replace(p.Until, "24:00", "00:00", 1))
	if err1 != nil || err2 != nil || len(days) == 0 {
		return lever{}, false
	}
	length := until.Sub(from)
	if length <= 0 {
		length += 24 * time.Hour
	}
	floor := tree{
		"cron":     fmt.Sprintf("%d %d * * %s", from.Minute(), from.Hour(), strings.Join(days, ",")),
		"timezone": a.forecast.Timezone, "for": short(length), "min": p.Floor,
	}
	why := p.Sentence
	if late {
		why = fmt.Sprintf("95 of 100 tasks start within %s then, and the objective is %s: %s", secondsText(p.WaitSeconds), a.objective, p.Sentence)
	}
	return lever{kind: fleet.AdviceFloor, candidates: []candidate{{
		title: fmt.Sprintf("Keep %d warm sandboxes on %s from %s to %s (%s)", p.Floor, p.Days, p.FloorFrom, p.Until, a.forecast.Timezone),
		why:   why, spec: tree{"capacity": tree{"floors": append(slices.Clone(written), floor)}},
	}}}, true
}

// nodeSizes tries the other instance types of the price list.
func (a *advisor) nodeSizes() lever {
	l := lever{kind: fleet.AdviceNodeSize}
	k := a.fleet.Spec.Nodes.Kubernetes
	if a.out.Basis.FixedNodes > 0 || k == nil {
		return l
	}
	seen := a.lab.Seen
	for _, name := range a.types {
		if name == seen.Kind.InstanceType {
			continue
		}
		shape, how, ok := shapeOf(name, &seen)
		if !ok {
			a.withhold(fleet.AdviceNodeSize, "nodes of type %s: none of them has been seen, so that their size is not known", name)
			continue
		}
		shape.Slots = 0
		n := shape.Holds(a.meanCPU, a.meanMemory, mostPods)
		kind := fleet.NodeKind{Group: "", InstanceType: name, Capacity: seen.Kind.Capacity}
		shape.Slots = n
		l.candidates = append(l.candidates, candidate{
			title: fmt.Sprintf("Use nodes of type %s in place of %s, with %d sandboxes on each", name, seen.Kind.InstanceType, n),
			why:   "its price is in the price list, and " + how,
			note:  "the cluster must have a node group of that type which the fleet's selector fits",
			spec:  tree{"nodes": tree{"slots": n, "kubernetes": tree{"nodeSelector": tree{instanceLabel: name}}}},
			kind:  &nodeKind{kind: kind, shape: shape},
		})
	}
	return l
}

// instanceLabel is where Kubernetes says what type a node is of:
// https://kubernetes.io/docs/reference/labels-annotations-taints/.
const instanceLabel = "node.kubernetes.io/instance-type"

// mostPods leaves room for a node's own pods below the 110 that kubelets take
// by default (https://kubernetes.io/docs/setup/best-practices/cluster-large/).
const mostPods = 100

// instanceTypes are those of a price list, on demand, in its order.
func instanceTypes(c *v1alpha1.Cost) (out []string) {
	for i := range c.Prices {
		if p := &c.Prices[i]; p.InstanceType != "" && !slices.Contains(out, p.InstanceType) {
			out = append(out, p.InstanceType)
		}
	}
	return out
}

// times is a size of an instance type as a multiple of xlarge: 4 of 4xlarge; 0
// where the name does not say. Sizes from xlarge on are whole multiples of it in
// processors and memory: https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html.
func times(size string) int {
	switch n, ok := strings.CutSuffix(size, "xlarge"); {
	case !ok:
		return 0
	case n == "":
		return 1
	default:
		k, err := strconv.Atoi(n)
		if err != nil || k < 1 {
			return 0
		}
		return k
	}
}
