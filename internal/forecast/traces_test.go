package forecast

import (
	"bufio"
	"compress/gzip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// traceDir is the folder of real traces, beside or above the repository.
func traceDir(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		for _, name := range []string{"traces", "shared/traces"} {
			at := filepath.Join(dir, name)
			if _, err := os.Stat(filepath.Join(at, "philly.csv.gz")); err == nil {
				return at
			}
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Skip("the folder of real traces (shared/traces) is nowhere above the repository")
		}
		dir = up
	}
}

// loadTrace reads a trace, leaving out tasks longer than most.
func loadTrace(t testing.TB, name string, most time.Duration) *Series {
	t.Helper()
	f, err := os.Open(filepath.Join(traceDir(t), name+".csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var tally Tally
	lines := bufio.NewScanner(z)
	lines.Scan() // the header
	for lines.Scan() {
		parts := strings.Split(lines.Text(), ",")
		at, err := strconv.ParseInt(parts[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		d, err := strconv.ParseFloat(parts[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		length := time.Duration(d * float64(time.Second))
		if most > 0 && length > most {
			continue
		}
		if err := tally.Add(time.Unix(at, 0), length); err != nil {
			t.Fatal(err)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return tally.Series()
}

// TestBacktestOnRealTraces: nothing is tuned to a trace, and the same time
// last week is beaten at every horizon, over all quantiles and at the median,
// where a point is on a par with a distribution.
func TestBacktestOnRealTraces(t *testing.T) {
	for _, c := range []struct {
		name string
		most time.Duration
	}{{"philly", 2 * time.Hour}, {"copilot_agent", 0}, {"itp", 0}} {
		t.Run(c.name, func(t *testing.T) {
			b := Backtest(loadTrace(t, c.name, c.most), time.UTC)
			if len(b.Scores) != 2*len(horizons()) {
				t.Fatalf("%d scores, want %d", len(b.Scores), 2*len(horizons()))
			}
			for _, s := range b.Scores {
				t.Logf("%-8s %8s n=%3d loss %8.3f seasonal %8.3f spread %8.3f flat %8.3f | median %8.3f %8.3f %8.3f | under90 %.2f under99 %.2f",
					s.Of, time.Duration(s.HorizonSeconds)*time.Second, s.Forecasts, s.Loss, s.SeasonalNaive, s.SeasonalSpread, s.FlatMean,
					s.MedianLoss, s.MedianSeasonal, s.MedianFlat, s.Under90, s.Under99)
				if s.Loss >= s.SeasonalNaive || s.MedianLoss > s.MedianSeasonal {
					t.Errorf("%s over %v s: loss %v against %v, at the median %v against %v", s.Of, s.HorizonSeconds, s.Loss, s.SeasonalNaive, s.MedianLoss, s.MedianSeasonal)
				}
			}
			t.Log(b.Sentence)
		})
	}
}
