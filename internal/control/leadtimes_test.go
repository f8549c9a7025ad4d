package control

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
)

func (w *world) leadTimes() (all fleet.LeadTimes, by map[fleet.Stage]fleet.StageLead) {
	w.t.Helper()
	l, err := w.engine.LeadTimes(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	by = map[fleet.Stage]fleet.StageLead{}
	for _, s := range l.Stages {
		if s.Template == "" {
			by[s.Stage] = s
		}
	}
	return l, by
}

// TestLeadTimes: a burst that finds no sandbox is one reaction, whose stages are
// those of the fleet, and the stock that is ready begins none.
func TestLeadTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(4 * time.Second), Script: busy(20 * time.Second)})
		w.up()
		if l, _ := w.leadTimes(); len(l.Reactions) != 0 {
			t.Errorf("before anything came: %+v", l.Reactions)
		}
		sleep(30 * time.Second)
		w.submit(12)
		sleep(2 * time.Second)
		if l, _ := w.leadTimes(); len(l.Reactions) != 1 || !l.Reactions[0].Ran.IsZero() {
			t.Errorf("while they wait: %+v", l.Reactions)
		}
		sleep(time.Minute)
		l, by := w.leadTimes()
		if len(l.Reactions) != 1 {
			t.Fatalf("reactions %+v", l.Reactions)
		}
		r := l.Reactions[0]
		for _, at := range []struct {
			what     string
			from, to time.Time
			most     time.Duration
		}{{"detect", r.Due, r.Seen, time.Second}, {"decide", r.Seen, r.Applied, time.Second}, {"ask", r.Applied, r.Ready, 5 * time.Second}, {"claim", r.Ready, r.Ran, time.Second}} {
			if took := at.to.Sub(at.from); at.from.IsZero() || took < 0 || took > at.most {
				t.Errorf("%s took %s: %+v", at.what, took, r)
			}
		}
		if whole := r.Ran.Sub(r.Due); by[fleet.StageReact].P50 != whole || whole < 3*time.Second || whole > 6*time.Second {
			t.Errorf("the whole is %s, told as %+v; a start takes 4 s", whole, by[fleet.StageReact])
		}
		if s := by[fleet.StageSandbox]; s.P50 != 4*time.Second || s.Samples < 10 {
			t.Errorf("sandbox: %+v", s)
		}
		if by[fleet.StageClaim].Samples != 12 || by[fleet.StageDetect].Samples != 1 || by[fleet.StageDecide].Samples != 1 {
			t.Errorf("%+v", by)
		}
		if _, told := by[fleet.StageImage]; told {
			t.Error("the fake does not tell of images")
		}
		w.submit(1) // there is stock by now
		sleep(30 * time.Second)
		if l, _ := w.leadTimes(); len(l.Reactions) != 1 {
			t.Errorf("one that found a sandbox: %+v", l.Reactions)
		}
		w.end()
	})
}

// TestOneBurstIsOneReaction, also where it is larger than what may be started.
func TestOneBurstIsOneReaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(2 * time.Second), Script: busy(5 * time.Second)})
		w.spec.Policy.Max = 3
		w.up()
		sleep(30 * time.Second)
		w.submit(20)
		sleep(3 * time.Minute)
		l, by := w.leadTimes()
		if len(l.Reactions) != 1 || by[fleet.StageDetect].Max > time.Second {
			t.Errorf("detect %+v of %+v", by[fleet.StageDetect], l.Reactions)
		}
		w.submit(20)
		sleep(3 * time.Minute)
		if l, _ := w.leadTimes(); len(l.Reactions) != 2 || !l.Reactions[0].Due.After(l.Reactions[1].Due) {
			t.Errorf("after the second: %+v", l.Reactions)
		}
		w.end()
	})
}

// TestReactionGivenUp: tasks that are cancelled while they wait leave no
// reaction behind.
func TestReactionGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(10 * time.Second), Script: busy(time.Second)})
		w.up()
		sleep(time.Minute)
		for _, task := range w.submit(9) {
			sleep(time.Millisecond)
			if _, err := w.engine.Cancel(t.Context(), task.ID, "test"); err != nil {
				t.Fatal(err)
			}
		}
		sleep(2 * time.Minute)
		if l, _ := w.leadTimes(); len(l.Reactions) != 0 {
			t.Errorf("%+v", l.Reactions)
		}
		w.end()
	})
}

func TestStagesAreBounded(t *testing.T) {
	var s stages
	now := time.Now()
	for i := range 2 * mostStages {
		s.note(fleet.StageClaim, "default~abc", now.Add(time.Duration(i)*time.Second), time.Duration(i))
	}
	s.note(fleet.StageClaim, "default", now, -time.Second) // the clock was set back
	if list := s.of[stageKey{fleet.StageClaim, "default"}]; len(list) != mostStages || list[0].Lead != mostStages {
		t.Errorf("%d samples from %v on", len(list), list[0])
	}
}

// TestStockIsInDoubt: tasks that were seen with sandboxes enough, and are seen
// without in the very next look, wait only if the look after it says so, too.
func TestStockIsInDoubt(t *testing.T) {
	at := func(s int) time.Time { return time.Date(2026, 3, 2, 9, 0, s, 0, time.UTC) }
	type look struct {
		short      bool
		oldest, at int
		due        int // 0: none
	}
	for name, looks := range map[string][]look{
		"a burst":                {{false, 0, 1, 0}, {true, 2, 3, 2}, {true, 2, 4, 0}, {false, 0, 5, 0}, {true, 6, 7, 6}},
		"the first look":         {{true, 1, 5, 1}},
		"a torn look":            {{false, 0, 1, 0}, {false, 2, 8, 0}, {true, 2, 9, 0}, {false, 0, 10, 0}},
		"sandboxes that went":    {{false, 1, 8, 0}, {true, 1, 9, 0}, {true, 1, 11, 9}, {true, 1, 12, 0}},
		"all on lease":           {{true, 1, 3, 1}, {false, 0, 4, 0}, {true, 2, 5, 0}, {true, 2, 6, 0}, {false, 0, 7, 0}, {true, 8, 9, 8}},
		"nobody to measure from": {{true, 0, 5, 0}},
	} {
		k := &stock{}
		for i, l := range looks {
			oldest := time.Time{}
			if l.oldest > 0 {
				oldest = at(l.oldest)
			}
			want := time.Time{}
			if l.due > 0 {
				want = at(l.due)
			}
			if got := k.due(l.short, oldest, at(l.at)); !got.Equal(want) {
				t.Errorf("%s: look %d: due %s, want %s", name, i+1, got, want)
			}
		}
	}
}
