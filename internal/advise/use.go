package advise

import (
	"fmt"
	"slices"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/whatif"
)

const (
	// enough is how many tasks have to be measured before a limit is advised.
	enough = 20
	// room is what a limit has above the largest peak that was measured.
	room = 1.25
	// worth is how much smaller a limit has to become to be worth a change.
	worth = 0.8
	// step is what limits are multiples of, in bytes.
	step = 64 << 20
)

// useOf is what tasks of a template were measured to use.
func useOf(h *whatif.History, t *fleet.Template) fleet.TemplateUse {
	u := fleet.TemplateUse{Template: t.Name, MemoryLimit: t.Resources.MemoryBytes, MilliCPULimit: t.Resources.MilliCPU}
	at := slices.Index(h.Templates, t.Name)
	var peaks, cpus []int64
	var ratios []float64
	var byteSeconds, span, held float64
	for i := range h.Tasks {
		x := &h.Tasks[i]
		if int(x.Template) != at || x.Own || x.Limits.MemoryBytes != t.Resources.MemoryBytes {
			continue
		}
		if x.Reason == fleet.ReasonOOM {
			u.OutOfMemory++
		}
		d := x.Duration.Seconds()
		if x.Usage.MemoryPeakBytes <= 0 || d <= 0 {
			continue // not measured
		}
		peaks = append(peaks, x.Usage.MemoryPeakBytes)
		cpus = append(cpus, int64(1000*x.Usage.CPU.Seconds()/d))
		byteSeconds, span, held = byteSeconds+float64(x.Usage.MemoryByteSeconds), span+d, held+x.Usage.CPUThrottled.Seconds()
		if mean := float64(x.Usage.MemoryByteSeconds) / d; mean > 0 {
			ratios = append(ratios, float64(x.Usage.MemoryPeakBytes)/mean)
		}
	}
	if u.Tasks = len(peaks); u.Tasks == 0 {
		return u
	}
	u.MemoryP50, u.MemoryP95, u.MemoryMax = quantile(peaks, 0.5), quantile(peaks, 0.95), quantile(peaks, 1)
	u.MilliCPUP50, u.MilliCPUP95 = quantile(cpus, 0.5), quantile(cpus, 0.95)
	u.MemoryMean, u.Throttled = int64(byteSeconds/span), min(1, held/span)
	if len(ratios) > 0 {
		u.PeakOverMean = quantile(ratios, 0.5)
	}
	return u
}

func quantile[T int64 | float64](v []T, q float64) T {
	slices.Sort(v)
	return v[int(q*float64(len(v)-1)+0.5)]
}

// fitting is the limit that fits what was measured: the largest peak and room
// above it.
func fitting(peak int64) int64 {
	return max(2*step, (int64(room*float64(peak))+step-1)/step*step)
}

// sizes advises memory limits.
func (a *advisor) sizes() []lever {
	var out []lever
	for i := range a.templates {
		t := &a.templates[i]
		u := useOf(a.lab.History, t)
		if slices.Contains(a.lab.History.Templates, t.Name) {
			a.out.Use = append(a.out.Use, u)
		}
		switch want := fitting(u.MemoryMax); {
		case u.Tasks < enough && !slices.Contains(a.lab.History.Templates, t.Name):
		case u.Tasks < enough:
			a.withhold(fleet.AdviceMemory, "template %s: not enough measured yet: the use of %d of its tasks is known, and %d are needed", t.Name, u.Tasks, enough)
		case u.OutOfMemory > 0:
			out = append(out, a.larger(t, &u))
		case float64(want) <= worth*float64(u.MemoryLimit):
			out = append(out, a.smaller(t, &u, want))
		default:
			a.withhold(fleet.AdviceMemory, "template %s: its memory limit of %s fits: the largest peak of %d tasks is %s", t.Name, size(u.MemoryLimit), u.Tasks, size(u.MemoryMax))
		}
		a.cpus(&u)
	}
	return out
}

func (a *advisor) smaller(t *fleet.Template, u *fleet.TemplateUse, want int64) lever {
	spec := memoryPatch(t.Name, want)
	note := ""
	if n := a.slotsFor(t.Name, want); n > a.present.Slots && a.slotsBind() {
		spec["nodes"] = tree{"slots": n}
		note = "with spec.nodes.slots raised to what then fits on a node"
	}
	return lever{kind: fleet.AdviceMemory, wants: moreRoom, candidates: []candidate{{
		title: fmt.Sprintf("Lower the memory limit of template %s from %s to %s", t.Name, size(u.MemoryLimit), size(want)),
		why: fmt.Sprintf("of %d tasks the memory peak is %s at the median, %s at p95 and %s at most, %.1f times their mean; the new limit is the largest and a quarter more",
			u.Tasks, size(u.MemoryP50), size(u.MemoryP95), size(u.MemoryMax), u.PeakOverMean),
		spec: spec, note: note,
	}}}
}

func (a *advisor) larger(t *fleet.Template, u *fleet.TemplateUse) lever {
	want := (u.MemoryLimit*3/2 + step - 1) / step * step
	return lever{kind: fleet.AdviceMemory, wants: safety, candidates: []candidate{{
		title: fmt.Sprintf("Raise the memory limit of template %s from %s to %s", t.Name, size(u.MemoryLimit), size(want)),
		why:   fmt.Sprintf("%d of %d tasks were killed at the limit; what they would have needed is not known, so look again after a while", u.OutOfMemory, u.Tasks),
		spec:  memoryPatch(t.Name, want),
	}}}
}

func memoryPatch(template string, bytes int64) tree {
	return tree{"templates": []any{tree{"name": template, "resources": tree{"memory": size(bytes)}}}}
}

// cpus says why no limit of processors is advised.
func (a *advisor) cpus(u *fleet.TemplateUse) {
	if u.Tasks < enough {
		return
	}
	const lowered = "template %s: tasks use %s cores on average (p95 %s) of %s; their peaks are not recorded, and a limit is never advised from a mean"
	if u.Throttled >= 0.1 {
		a.withhold(fleet.AdviceCPU, "template %s: tasks were held back by the limit of %s cores for %.0f %% of their time; with more they may end sooner, which cannot be simulated",
			u.Template, cores(u.MilliCPULimit), 100*u.Throttled)
		return
	}
	a.withhold(fleet.AdviceCPU, lowered, u.Template, cores(u.MilliCPUP50), cores(u.MilliCPUP95), cores(u.MilliCPULimit))
}

func cores(milli int64) string { return fmt.Sprintf("%.3g", float64(milli)/1000) }

// size writes bytes as a fleet does.
func size(b int64) string {
	switch {
	case b%(1<<30) == 0 && b > 0:
		return fmt.Sprintf("%dGi", b>>30)
	case b >= 1<<20:
		return fmt.Sprintf("%dMi", (b+(1<<20)-1)>>20)
	case b >= 1<<10:
		return fmt.Sprintf("%dKi", (b+(1<<10)-1)>>10)
	}
	return fmt.Sprint(b)
}
