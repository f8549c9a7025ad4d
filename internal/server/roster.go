package server

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

const (
	// rosterShare is how many times as long as a reading of all records took
	// there is at least before the next: who looks at ten thousand sandboxes
	// costs the server a twentieth of a core, however many look.
	rosterShare = 20
	rosterLeast = time.Second
	rosterMost  = 30 * time.Second
	// usageOld is how old a reading of a sandbox's counters may be.
	usageOld = time.Second
	// usageSweep is how many sandboxes beyond those in view are read at once, in
	// turn, so that their lines have begun when they come into view.
	usageSweep = 200
	// trailsKept is how long trails are kept after the last one who looked.
	trailsKept = time.Minute
)

// roster is what exists, joined with the tasks it works on and with what each
// used of late. Nothing of it is read unless somebody asks, and what was read
// serves all who ask.
type roster struct {
	s       *Server
	reading sync.Mutex // held while records are read: one reads for all

	mu      sync.Mutex
	lines   []*line // in order of id; what they hold does not change
	at      time.Time
	took    time.Duration
	trails  map[fleet.SandboxID]*trail
	next    int // where the sweep goes on
	looking int // streams
	forget  *time.Timer
}

// line is one sandbox.
type line struct {
	view v1alpha1.SandboxView // with its work; the usage is that on record
	text string               // what a search looks at, in lower case
	live bool                 // it has counters that can be read
}

func newRoster(s *Server) *roster {
	return &roster{s: s, trails: map[fleet.SandboxID]*trail{}}
}

// read returns what exists, read at most old ago.
func (r *roster) read(ctx context.Context, old time.Duration) ([]*line, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	if lines, ok := r.fresh(old); ok {
		return lines, nil
	}
	began := time.Now()
	boxes, err := r.s.Store.Sandboxes(ctx, time.Time{})
	if err != nil {
		return nil, err
	}
	lines, err := r.s.lines(ctx, boxes)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines, r.at, r.took = lines, began, time.Since(began)
	there := make(map[fleet.SandboxID]bool, len(lines))
	for _, l := range lines {
		there[l.view.ID] = true
	}
	for id := range r.trails {
		if !there[id] {
			delete(r.trails, id)
		}
	}
	return lines, nil
}

func (r *roster) fresh(old time.Duration) ([]*line, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lines, !r.at.IsZero() && time.Since(r.at) < old
}

// pace is how often a stream reads all records.
func (r *roster) pace() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return min(max(rosterShare*r.took, rosterLeast), rosterMost)
}

// lines joins sandboxes with the tasks they have.
func (s *Server) lines(ctx context.Context, boxes []fleet.Sandbox) ([]*line, error) {
	work := map[fleet.TaskID]*v1alpha1.SandboxWork{}
	if slices.ContainsFunc(boxes, func(b fleet.Sandbox) bool { return b.Task != "" }) {
		f := fleet.TaskFilter{States: activeStates, Limit: maxList}
		for {
			tasks, err := s.Store.Tasks(ctx, f)
			if err != nil {
				return nil, err
			}
			for _, t := range tasks {
				work[t.ID] = newWork(t)
			}
			if len(tasks) < maxList {
				break
			}
			f.Before = tasks[len(tasks)-1].ID
		}
	}
	out := make([]*line, 0, len(boxes))
	for _, b := range boxes {
		l := &line{view: v1alpha1.NewSandboxView(b), live: b.State == fleet.SandboxReady || b.State == fleet.SandboxClaimed}
		l.view.Work = work[b.Task]
		l.text = l.words()
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *line) int { return cmp.Compare(a.view.ID, b.view.ID) })
	return out, nil
}

// workShown bounds what a list shows of a command, in characters.
const workShown = 120

func newWork(t fleet.Task) *v1alpha1.SandboxWork {
	command := strings.Join(t.Spec.Command, " ")
	if cut := []rune(command); len(cut) > workShown {
		command = string(cut[:workShown-1]) + "…"
	}
	return &v1alpha1.SandboxWork{Name: t.Spec.Name, Command: command, Tenant: t.Spec.Tenant, Labels: t.Spec.Labels, State: t.State}
}

// words are what a search looks at.
func (l *line) words() string {
	v := l.view
	all := []string{string(v.ID), string(v.Pool), string(v.Node), string(v.Task), string(v.State), v.Message, string(v.Isolation.Runtime), string(v.Isolation.Network)}
	if v.State == fleet.SandboxReady {
		all = append(all, "warm")
	}
	if w := v.Work; w != nil {
		all = append(all, w.Name, string(w.Tenant), string(w.State), w.Command)
		for k, label := range w.Labels {
			all = append(all, k+"="+label)
		}
	}
	return strings.ToLower(strings.Join(all, "\n"))
}

// measure reads the counters of those whose last reading is older than usageOld.
func (r *roster) measure(ctx context.Context, lines []*line) {
	for _, l := range lines {
		if !l.live || ctx.Err() != nil || !r.due(l.view.ID) {
			continue
		}
		u, err := r.s.Engine.SandboxUsage(ctx, l.view.ID)
		if err != nil {
			continue // it ended just now, or is another process's: what is on record shows
		}
		r.mu.Lock()
		t := r.trails[l.view.ID]
		if t == nil {
			t = &trail{}
			r.trails[l.view.ID] = t
		}
		t.add(u, time.Now())
		r.mu.Unlock()
	}
}

func (r *roster) due(id fleet.SandboxID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.trails[id]
	return t == nil || time.Since(t.read) >= usageOld
}

// sweep reads the next few of all.
func (r *roster) sweep(ctx context.Context, lines []*line) {
	if len(lines) == 0 {
		return
	}
	r.mu.Lock()
	from := r.next % len(lines)
	n := min(usageSweep, len(lines))
	r.next = from + n
	r.mu.Unlock()
	r.measure(ctx, lines[from:min(from+n, len(lines))])
	r.measure(ctx, lines[:max(0, from+n-len(lines))])
}

// used is what a sandbox uses, as far as it is known.
func (r *roster) used(l *line) v1alpha1.UsageView {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.trails[l.view.ID]; t != nil && l.live {
		return v1alpha1.NewUsageView(t.last)
	}
	return l.view.Usage
}

// whole is a sandbox as it is shown, with its trail where that is wanted.
func (r *roster) whole(l *line, withTrail bool) v1alpha1.SandboxView {
	v := l.view
	v.Usage = r.used(l)
	if withTrail && l.live {
		r.mu.Lock()
		defer r.mu.Unlock()
		if t := r.trails[v.ID]; t != nil {
			v.Trail = t.view()
		}
	}
	return v
}

// look counts one who looks; the returned function ends that.
func (r *roster) look() func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looking++
	if r.forget != nil {
		r.forget.Stop()
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.looking--; r.looking == 0 {
			r.forget = time.AfterFunc(trailsKept, r.drop)
		}
	}
}

// drop forgets everything, unless somebody looks again.
func (r *roster) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.looking == 0 {
		r.lines, r.at, r.trails = nil, time.Time{}, map[fleet.SandboxID]*trail{}
	}
}

// stop ends what waits.
func (r *roster) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.forget != nil {
		r.forget.Stop()
	}
}
