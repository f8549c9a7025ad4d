package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/store/memory"
	"muster.dev/muster/internal/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var t0 = time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)

// anyWorld draws an observation, sane or not.
func anyWorld(t *rapid.T, now time.Time) plan.Observation {
	n := func(most int, name string) int { return rapid.IntRange(0, most).Draw(t, name) }
	q := plan.Queue{Name: "q", AsOf: now.Add(-time.Duration(n(20, "age")) * time.Second)}
	if n(9, "outage") == 0 {
		q.Error = "down <&>"
	}
	o := plan.Observation{Nodes: []plan.Node{{ID: "n", State: fleet.NodeReady, Slots: n(40, "slots"), Capacity: plan.Size{MilliCPU: 64_000, MemoryBytes: 64 << 30, DiskBytes: 1 << 40}}}}
	for i := range n(3, "pools") {
		p := plan.Pool{
			Key: fleet.PoolKey(fmt.Sprint("p", i)), Template: fmt.Sprint("p", i), Revision: "r", Size: plan.Size{MilliCPU: 1000, MemoryBytes: 1 << 30},
			Starting: n(9, "starting"), Running: n(9, "running"), Started: int64(n(9, "started")), Failed: int64(n(9, "failed")), Finished: int64(n(9, "finished")),
			Lead:     fleet.Lead{P50: time.Duration(n(3_000_000_000, "lead")), P95: time.Duration(n(5_000_000_000, "p95")), Samples: n(3, "samples")},
			Seasonal: n(3, "seasonal"), Failure: rapid.SampledFrom([]string{"", "no <image>", "ünïcode\u2028"}).Draw(t, "failure"),
		}
		for k := range n(9, "ready") {
			p.Ready++
			at := now.Add(-time.Duration(n(1_000_000_000_000, "idle")))
			p.Idle = append(p.Idle, plan.Idle{ID: fleet.SandboxID(fmt.Sprint(p.Key, "-", k)), Node: "n", Created: at, Since: at, Stale: n(5, "stale") == 0})
		}
		o.Pools = append(o.Pools, p)
		o.Nodes[0].Used += p.Ready + p.Starting + p.Running
		q.Pools = append(q.Pools, plan.Demand{
			Pool: p.Key, Backlog: n(40, "backlog"), InFlight: n(9, "in flight"), Arrived: int64(n(500, "arrived")),
			Oldest: now.Add(-time.Duration(n(1_000_000_000_000, "oldest"))),
		})
	}
	o.Queues = []plan.Queue{q}
	return o
}

// journal decides worlds that a test draws, and appends each decision to a
// store, as the loop does.
func journal(t *rapid.T, to fleet.Journal) {
	now, state := t0, plan.State{}
	for range rapid.IntRange(1, 10).Draw(t, "decisions") {
		p := plan.Policy{Min: rapid.IntRange(0, 9).Draw(t, "min"), Max: 20, First: "p0", Quantile: rapid.Float64Range(0.5, 0.999).Draw(t, "quantile")}
		now = now.Add(time.Duration(rapid.IntRange(-30_000_000_000, 90_000_000_000).Draw(t, "step")))
		o := anyWorld(t, now)
		got, next := plan.Decide(now, o, p, state)
		r := fleet.DecisionRecord{At: now, Changed: true, Version: plan.Version, Observation: encode(t, o), Plan: encode(t, got), State: encode(t, state)}
		if _, err := to.AppendDecision(context.Background(), r, encode(t, p)); err != nil {
			t.Fatal(err)
		}
		state = next
	}
}

func encode(t *rapid.T, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWhatIsJournaledIsReplayed: any decision, through either store and a
// file, is made again bit for bit.
func TestWhatIsJournaledIsReplayed(t *testing.T) {
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "muster.db"), sqlite.Options{BackupEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var last int64
	rapid.Check(t, func(t *rapid.T) {
		var store fleet.Journal = memory.New(memory.Options{})
		after := int64(0)
		if rapid.Bool().Draw(t, "on disk") {
			store, after = db, last
		}
		journal(t, store)
		var file bytes.Buffer
		span, err := export(&file, &storeSource{store, after})
		if err != nil {
			t.Fatal(err)
		}
		read, err := NewReader(&file)
		if err != nil {
			t.Fatal(err)
		}
		if store == db {
			last = span.Last.Seq
		}
		for _, src := range []Source{&storeSource{store, after}, read} {
			r, err := Check(context.Background(), src, Range{})
			if err != nil {
				t.Fatal(err)
			}
			if r.Same != span.Decisions || r.Decisions != span.Decisions || !r.Reproduced() {
				t.Fatalf("%+v", r)
			}
		}
	})
}

// list is a source of records under one policy.
type list struct {
	records []fleet.DecisionRecord
	policy  []byte
}

func (l *list) Next(context.Context) (fleet.DecisionRecord, error) {
	if len(l.records) == 0 {
		return fleet.DecisionRecord{}, io.EOF
	}
	r := l.records[0]
	l.records = l.records[1:]
	return r, nil
}

func (l *list) Policy(_ context.Context, digest string) ([]byte, error) {
	if digest != fleet.PolicyDigest(l.policy) && digest != "stale" {
		return nil, fleet.ErrNotFound
	}
	return l.policy, nil
}

// one is a decision of the present version.
func one(t *testing.T, seq int64) (fleet.DecisionRecord, []byte) {
	t.Helper()
	marshal := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	p := plan.Policy{Min: 2, Max: 9, First: "default"}
	o := plan.Observation{Queues: []plan.Queue{{Name: "q", AsOf: t0}}, Pools: []plan.Pool{{Key: "default", Template: "default"}}}
	got, _ := plan.Decide(t0, o, p, plan.State{})
	policy := marshal(p)
	return fleet.DecisionRecord{
		Seq: seq, At: t0.Add(time.Duration(seq) * time.Minute), Version: plan.Version, Policy: fleet.PolicyDigest(policy),
		Observation: marshal(o), State: marshal(plan.State{}), Plan: marshal(got),
	}, policy
}

func TestCheckTellsWhatDiffers(t *testing.T) {
	change := func(from, to string) func(*fleet.DecisionRecord) {
		return func(r *fleet.DecisionRecord) {
			b := bytes.Replace(r.Plan, []byte(from), []byte(to), 1)
			if bytes.Equal(b, r.Plan) {
				t.Errorf("%s is not in %s", from, r.Plan)
			}
			r.Plan = b
		}
	}
	for name, c := range map[string]struct {
		change                     func(*fleet.DecisionRecord)
		same, reworded, diff, old_ int
		want                       string
	}{
		"nothing":      {change: func(*fleet.DecisionRecord) {}, same: 1},
		"spaces":       {change: change(`{"consumers":`, "{ \n\t\"consumers\": "), same: 1},
		"words":        {change: change("want 2 (backlog", "wants two (backlog"), reworded: 1},
		"a target":     {change: change(`"desired":2`, `"desired":7`), diff: 1, want: "pools[default].desired 7 2"},
		"an absence":   {change: change(`"warm":2,`, ``), diff: 1, want: "pools[default].warm  2"},
		"an addition":  {change: change(`"rate":0`, `"drained":3,"rate":0`), diff: 1, want: "pools[default].drained 3 "},
		"a last bit":   {change: change(`"rate":0`, `"rate":1e-300`), diff: 1, want: "pools[default].rate 1e-300 0"},
		"no plan":      {change: func(r *fleet.DecisionRecord) { r.Plan = []byte("{") }, diff: 1, want: "decision 1: its plan cannot be read"},
		"no world":     {change: func(r *fleet.DecisionRecord) { r.Observation = []byte("[]") }, diff: 1, want: "decision 1: its observation cannot be read"},
		"no policy":    {change: func(r *fleet.DecisionRecord) { r.Policy, r.Version = "", 0 }, old_: 1},
		"another time": {change: func(r *fleet.DecisionRecord) { r.At = r.At.Add(time.Hour) }, diff: 1, want: "signal"},
	} {
		t.Run(name, func(t *testing.T) {
			d, policy := one(t, 1)
			d.At = t0
			c.change(&d)
			r, err := Check(t.Context(), &list{[]fleet.DecisionRecord{d}, policy}, Range{})
			if err != nil {
				t.Fatal(err)
			}
			if r.Same != c.same || r.Reworded != c.reworded || r.Different != c.diff || r.Older != c.old_ || r.Reproduced() != (c.same+c.reworded > 0) {
				t.Errorf("%+v", r)
			}
			got := ""
			for _, x := range r.Differences {
				got += x.Problem
				for _, f := range x.Fields {
					got += fmt.Sprintln(f.Path, f.Recorded, f.Replayed)
				}
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q in it", got, c.want)
			}
		})
	}
}

func TestCheckRefuses(t *testing.T) {
	d, policy := one(t, 1)
	for name, c := range map[string]struct {
		change func(*fleet.DecisionRecord)
		in     Range
		kind   error
		want   string
	}{
		"a newer planner":   {func(r *fleet.DecisionRecord) { r.Version = plan.Version + 1 }, Range{}, fleet.ErrInvalid, "decision 1 was made by version 3 of the planner, and this muster has version 2; want a muster"},
		"an unknown policy": {func(r *fleet.DecisionRecord) { r.Policy = "abc" }, Range{}, fleet.ErrNotFound, "decision 1 was made under policy abc, which the journal does not have"},
		"another policy":    {func(r *fleet.DecisionRecord) { r.Policy = "stale" }, Range{}, fleet.ErrCorrupt, "the policy of decision 1 has changed since"},
		"an empty range":    {func(*fleet.DecisionRecord) {}, Range{From: 5}, fleet.ErrInvalid, "the journal has decisions 1 (2026-01-05 09:01:00 UTC) to 1"},
		"a time of none":    {func(*fleet.DecisionRecord) {}, Range{Until: t0}, fleet.ErrInvalid, "there is no decision in this range"},
	} {
		t.Run(name, func(t *testing.T) {
			d := d
			c.change(&d)
			_, err := Check(t.Context(), &list{[]fleet.DecisionRecord{d}, policy}, c.in)
			if !errors.Is(err, c.kind) || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, err := Check(t.Context(), &list{}, Range{}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("of nothing: %v", err)
	}
}

func TestCheckCountsWhatItDoesNotShow(t *testing.T) {
	var all []fleet.DecisionRecord
	var policy []byte
	for seq := range int64(30) {
		var d fleet.DecisionRecord
		d, policy = one(t, seq+1)
		d.At = t0
		d.Plan = bytes.Replace(d.Plan, []byte(`"desired":2`), []byte(`"desired":7`), 1)
		all = append(all, d)
	}
	r, err := Check(t.Context(), &list{all, policy}, Range{From: 3, To: 25})
	if err != nil || r.Different != 23 || len(r.Differences) != mostDifferences || r.Differences[0].Seq != 3 || r.Last.Seq != 25 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestCompare(t *testing.T) {
	journal := record(t)
	same, err := Compare(t.Context(), reader(t, journal), Range{To: 5}, spec(2, 10, "default"))
	if err != nil {
		t.Fatal(err)
	}
	if same.Different != 0 || len(same.Moments) != 0 || same.Decisions != 5 {
		t.Errorf("under the same specification: %+v", same)
	}
	if p := same.Pools[0]; p.Recorded != p.Other || p.Recorded.DesiredMax < 2 || p.Recorded.DesiredMean <= 0 {
		t.Errorf("%+v", p)
	}
	c, err := Compare(t.Context(), reader(t, journal), Range{}, spec(9, 30, "default", "extra"))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Pools) != 2 || c.Different == 0 || len(c.Moments) == 0 || len(c.Moments) > mostMoments || len(c.Unknown) != 0 {
		t.Fatalf("%+v", c)
	}
	p := c.Pools[0]
	if p.Other.WarmMean < 8 || p.Other.WarmMax < 9 || p.Recorded.WarmMean >= p.Other.WarmMean || p.Recorded.DesiredMax > 10 || p.Other.DesiredMax <= 10 {
		t.Errorf("%+v", p)
	}
	if p.Recorded.Starts == 0 || p.Recorded.Drains == 0 || p.Other.Starts == 0 {
		t.Errorf("%+v", p)
	}
	for _, m := range c.Moments {
		if m.Recorded.Reason == "" || m.Other.Reason == "" || m.weight() == 0 {
			t.Errorf("%+v", m)
		}
	}
	// What the recorded policy held up is not held against the other.
	low, err := Compare(t.Context(), reader(t, journal), Range{}, spec(0, 10, "default"))
	if err != nil || low.Pools[0].Other.WarmMean >= low.Pools[0].Recorded.WarmMean {
		t.Errorf("%+v, %v", low.Pools, err)
	}
	gone, err := Compare(t.Context(), reader(t, journal), Range{}, spec(1, 10, "another"))
	if err != nil || len(gone.Unknown) != 1 || gone.Unknown[0] != "default" {
		t.Errorf("%+v, %v", gone, err)
	}
}

// FuzzReader: whatever the file holds, it is read or refused with a line, and
// what is read can be exported again.
func FuzzReader(f *testing.F) {
	head := `{"journal":{"format":1}}` + "\n"
	policy := fmt.Sprintf(`{"policy":{"digest":"%s","policy":{"min":1}}}`+"\n", fleet.PolicyDigest([]byte(`{"min":1}`)))
	d := fmt.Sprintf(`{"decision":{"seq":1,"at":"2026-01-05T09:00:00Z","changed":true,"version":1,"policy":"%s","observation":{},"state":{},"plan":{}}}`+"\n", fleet.PolicyDigest([]byte(`{"min":1}`)))
	for _, s := range []string{"", head, head + policy + d + `{"end":{"decisions":1}}`, head + d, head + `{"end":{"decisions":0}}` + "\n{}", head + "null\n", `{"journal":{"format":9}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b))
		if err == nil {
			_, err = export(io.Discard, r)
		}
		var wrong *fleet.FieldError
		if err != nil && !errors.As(err, new(*EmptyError)) && (!errors.As(err, &wrong) || wrong.Line < 1) {
			t.Fatalf("%v has no line", err)
		}
	})
}
