package cost

import (
	"testing"

	"pgregory.net/rapid"
)

// The parts of a point add up to its bill, and points of two books to that of
// both.
func TestPointAddsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawBook(t), drawBook(t)
		pa, pb := a.Point(at(0)), b.Point(at(0))
		for _, p := range []struct {
			what        string
			bill, parts int64
		}{{"a", pa.MicroUSD, pa.TaskMicroUSD}, {"b", pb.MicroUSD, pb.TaskMicroUSD}} {
			idle := pa.Idle
			if p.what == "b" {
				idle = pb.Idle
			}
			for _, v := range idle {
				p.parts += v
			}
			if p.bill != p.parts {
				t.Fatalf("%s: a bill of %d of parts of %d", p.what, p.bill, p.parts)
			}
		}
		a.Merge(b)
		if whole := a.Point(at(0)); whole.MicroUSD != pa.MicroUSD+pb.MicroUSD || whole.TaskMicroUSD != pa.TaskMicroUSD+pb.TaskMicroUSD {
			t.Fatalf("%+v is not %+v and %+v", whole, pa, pb)
		}
	})
}
