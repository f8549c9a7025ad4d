package dispatch

import (
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

func TestMemoryByteSeconds(t *testing.T) {
	t0 := time.Unix(1000, 0)
	var m held
	for i, c := range []struct {
		after int
		bytes int64
		want  int64
	}{
		{2, 100, 200},  // the first reading counts from the claim on
		{4, 300, 600},  // 2 s at 200 on average
		{4, 999, 600},  // no time has passed
		{3, 999, 600},  // a clock that went back takes nothing away
		{6, 300, 1200}, // 2 s at 300
	} {
		if got := m.add(t0, fleet.Usage{At: t0.Add(time.Duration(c.after) * time.Second), MemoryBytes: c.bytes}); got != c.want {
			t.Errorf("reading %d: %d byte-seconds, want %d", i, got, c.want)
		}
	}
}
