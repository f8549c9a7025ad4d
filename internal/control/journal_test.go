package control

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

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
