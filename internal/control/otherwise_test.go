package control

import (
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
)

// TestOtherwise: a decision that a bound held back says what it would have
// wanted without, and one that nothing held back says nothing.
func TestOtherwise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(time.Second), Script: busy(time.Minute)})
		w.spec.Policy.Max = 5
		w.up()
		sleep(10 * time.Second)
		w.submit(2)
		sleep(5 * time.Second)
		free := len(w.events("scale_out"))
		w.submit(30)
		sleep(20 * time.Second)
		held := 0
		for i, ev := range w.events("scale_out", "cap_binds") {
			x, err := w.engine.ExplainEvent(t.Context(), ev.Seq)
			if err != nil {
				t.Fatal(err)
			}
			if i < free && len(x.Otherwise) != 0 {
				t.Errorf("nothing bound, and %s would have been %+v", ev.Reason, x.Otherwise)
			}
			for _, o := range x.Otherwise {
				held++
				if o.Pool != "default" || o.Desired > 5 && o.Started >= o.WithoutStarted || o.Without < o.Desired || o.WithoutStarted < o.Started || o.Reason == "" {
					t.Errorf("%s: %+v", ev.Reason, o)
				}
			}
		}
		if held == 0 {
			t.Error("no event says what would have been without the bound of 5")
		}
		w.end()
	})
}

func TestOtherwiseIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{})
		w.up()
		sleep(time.Second)
		for name, d := range map[string]fleet.DecisionRecord{"of an older planner": {Policy: "x", Version: -1}, "without a policy": {}} {
			if o, err := w.engine.otherwise(t.Context(), &d); o != nil || err != nil {
				t.Errorf("%s: %v, %v", name, o, err)
			}
		}
		w.end()
	})
}
