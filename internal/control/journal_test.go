package control

import (
	"bytes"
	"context"
	"encoding/json"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/calendar"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/sandbox/fake"
)

func TestJournalReplaysBitForBit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(700 * time.Millisecond), Script: busy(3 * time.Second)})
		w.spec.Policy.Min = 1
		w.up()
		for i := range 20 {
			w.submit(1 + i%5)
			sleep(2 * time.Second)
		}
		other := w.spec
		other.Policy.Max = 3
		w.engine.SetSpec(other)
		for i := range 10 {
			w.submit(1 + i%5)
			sleep(2 * time.Second)
		}
		ctx := context.Background()
		records, err := w.store.Decisions(ctx, fleet.DecisionFilter{Limit: 10000})
		if err != nil || len(records) < 10 {
			t.Fatalf("%d decisions, %v", len(records), err)
		}
		under := map[string]bool{}
		for _, r := range records {
			var p plan.Policy
			b, err := w.store.Policy(ctx, r.Policy)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, &p); err != nil {
				t.Fatal(err)
			}
			got, err := plan.Redecide(&r, &p)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, r.Plan) || r.Version != plan.Version {
				t.Fatalf("decision %d of version %d comes out differently:\n was %s\n  is %s", r.Seq, r.Version, r.Plan, got)
			}
			under[r.Policy] = true
		}
		if len(under) != 2 {
			t.Errorf("%d policies were kept, of two", len(under))
		}
		w.end()
	})
}

// TestDecidedFromWhatIsJournaled: a zone of the machine and the reading of its
// monotonic clock are not in the journal, so nothing may be decided from them.
func TestDecidedFromWhatIsJournaled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(700 * time.Millisecond), Script: busy(3 * time.Second)})
		w.spec.Policy.Min = 3
		rule, err := calendar.Parse("0 * * * *", "Asia/Tokyo")
		if err != nil {
			t.Fatal(err)
		}
		w.spec.Floors = []Floor{{Rule: rule, For: 2 * time.Hour, Min: 5}}
		w.clock = func() time.Time { return time.Now().In(time.FixedZone("X", 5400)) }
		w.up()
		for range 5 {
			w.submit(2)
			sleep(2 * time.Second)
		}
		w.spec.Floors, w.spec.Policy.Min = nil, 0
		w.engine.SetSpec(w.spec)
		seen := 0
		for range 40 {
			sleep(5 * time.Second)
			w.engine.mu.Lock()
			seen += times(t, "observation", reflect.ValueOf(w.engine.last.o))
			seen += times(t, "plan", reflect.ValueOf(w.engine.last.p))
			w.engine.mu.Unlock()
		}
		if seen < 100 {
			t.Errorf("only %d times were looked at", seen)
		}
		w.end()
	})
}

// times finds every time below v and checks that it is as JSON gives it back.
func times(t *testing.T, path string, v reflect.Value) (n int) {
	t.Helper()
	switch v.Kind() {
	case reflect.Struct:
		if at, ok := v.Interface().(time.Time); ok {
			if at != at.Round(0).UTC() {
				t.Errorf("%s is %v: it has a zone or a monotonic reading", path, at)
			}
			return 1
		}
		for i := range v.NumField() {
			n += times(t, path+"."+v.Type().Field(i).Name, v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			n += times(t, path+"[]", v.Index(i))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			n += times(t, path, v.Elem())
		}
	}
	return n
}
