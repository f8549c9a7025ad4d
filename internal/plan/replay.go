package plan

import (
	"bytes"
	"encoding/json"
	"fmt"

	"muster.dev/muster/internal/fleet"
)

// Replay makes a journaled decision again and returns an error unless the plan
// comes out as it was recorded, bit for bit.
func Replay(r fleet.DecisionRecord, p Policy) error {
	got, err := Redecide(r, p)
	if err != nil {
		return err
	}
	b, err := json.Marshal(got)
	if err != nil {
		return fmt.Errorf("encode the plan: %w", err)
	}
	if !bytes.Equal(b, r.Plan) {
		return fmt.Errorf("decision %d comes out differently:\n was %s\n  is %s", r.Seq, r.Plan, b)
	}
	return nil
}

// Redecide decides a journaled observation again, under this policy.
func Redecide(r fleet.DecisionRecord, p Policy) (Plan, error) {
	var o Observation
	var s State
	if err := json.Unmarshal(r.Observation, &o); err != nil {
		return Plan{}, fmt.Errorf("decision %d: its observation cannot be read: %w", r.Seq, err)
	}
	if err := json.Unmarshal(r.State, &s); err != nil {
		return Plan{}, fmt.Errorf("decision %d: its state cannot be read: %w", r.Seq, err)
	}
	got, _ := Decide(r.At, o, p, s)
	return got, nil
}
