package sim

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster.dev/muster/internal/sim/trace"
)

// load is the philly trace as it is used to judge policies, from the folder
// $MUSTER_TRACES; without one, a made-up load of the same kind: bursts of
// short and long tasks around a daily wave.
func load(tb testing.TB) trace.Rows {
	tb.Helper()
	if dir := os.Getenv("MUSTER_TRACES"); dir != "" {
		sel := trace.Selection{
			From: time.Date(2017, 9, 25, 0, 0, 0, 0, time.UTC), To: time.Date(2017, 12, 11, 0, 0, 0, 0, time.UTC), MaxDuration: 2 * time.Hour,
		}
		rows, _, err := trace.Load(trace.Select(trace.File{Path: filepath.Join(dir, "philly.csv.gz")}, sel), 1<<20)
		if err != nil {
			tb.Fatal(err)
		}
		return rows
	}
	return bursts(60_000, 7)
}

// bursts makes n tasks.
func bursts(n int, seed uint64) trace.Rows {
	r := rand.New(rand.NewPCG(seed, 1))
	rows := make(trace.Rows, 0, n)
	at := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC).UnixMilli()
	for len(rows) < n {
		at += int64(r.ExpFloat64() * 200_000)
		size := 1
		if r.Float64() < 0.1 {
			size = 1 + r.IntN(60)
		}
		for range min(size, n-len(rows)) {
			rows = append(rows, trace.Row{Arrival: at, Duration: int64(r.ExpFloat64() * 700_000)})
		}
	}
	return rows
}

// BenchmarkSimulate: the aim is 1,000,000 tasks a second for reactive and
// 200,000 for muster, on one core.
func BenchmarkSimulate(b *testing.B) {
	rows := load(b)
	for _, name := range []string{"reactive", "muster", "keda", "kpa"} {
		b.Run(name, func(b *testing.B) {
			c := Config{Trace: rows, Model: Defaults()}
			s, err := Look(&c)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Simulate(&c, s, name); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(rows))*float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}

func BenchmarkLook(b *testing.B) {
	c := Config{Trace: load(b), Model: Defaults()}
	for b.Loop() {
		if _, err := Look(&c); err != nil {
			b.Fatal(err)
		}
	}
}
