package report

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/sim"
	"muster.dev/muster/internal/sim/trace"
)

// pageOf simulates a small load and draws it.
func pageOf(t *testing.T, rows trace.Rows, names ...string) string {
	t.Helper()
	c := sim.Config{Trace: rows, Model: sim.Defaults(), Buckets: 48}
	s, err := sim.Look(&c)
	if err != nil {
		t.Fatal(err)
	}
	p := Page{Trace: "<b>week</b>.csv", Basis: "a & b", Survey: s, Model: &c.Model}
	for _, name := range names {
		r, err := sim.Simulate(&c, s, name)
		if err != nil {
			t.Fatal(err)
		}
		p.Results = append(p.Results, r)
	}
	var b strings.Builder
	if err := Write(&b, &p); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func load() trace.Rows {
	var rows trace.Rows
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC).UnixMilli()
	for i := range int64(200) {
		rows = append(rows, trace.Row{Arrival: at + i/10*600_000, Duration: 300_000 + i%7*60_000})
	}
	return rows
}

// TestPageStandsAlone: nothing of it is fetched from anywhere, and every
// policy has its panel.
func TestPageStandsAlone(t *testing.T) {
	html := pageOf(t, load(), sim.Names()...)
	for _, name := range sim.Names()[:8] {
		if !strings.Contains(html, "<h3>"+name+"</h3>") {
			t.Errorf("%s has no panel", name)
		}
	}
	if m := regexp.MustCompile(`(?i)<script|<link|<img|@import|url\(|src=|href=|https?://`).FindString(html); m != "" {
		t.Errorf("the page reaches out: %s", m)
	}
	if strings.Contains(html, "<b>week") || !strings.Contains(html, "&lt;b&gt;week") {
		t.Error("the name of the trace is not escaped")
	}
	for _, want := range []string{"prefers-color-scheme: dark", "With muster these", "No policy without waiting", "A fixed fleet", "KEDA costs", "aria-label="} {
		if !strings.Contains(html, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if m := regexp.MustCompile(`NaN|Inf|%!`).FindString(html); m != "" {
		t.Errorf("a number went wrong: %s", m)
	}
}

// TestDrawingsAreWellFormed, and within their frame.
func TestDrawingsAreWellFormed(t *testing.T) {
	html := pageOf(t, load(), "muster", "fixed", "reactive", "clairvoyant")
	drawings := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(html, -1)
	if len(drawings) != 2+3 {
		t.Fatalf("%d drawings, want the trade-off, demand and three panels", len(drawings))
	}
	for i, d := range drawings {
		dec := xml.NewDecoder(strings.NewReader(d))
		for {
			_, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Errorf("drawing %d: %v", i, err)
				break
			}
		}
	}
}

// TestSmallPages: one policy, one task, nothing to compare with.
func TestSmallPages(t *testing.T) {
	for _, names := range [][]string{{"muster"}, {"keda"}, {"clairvoyant"}, {"fixed", "clairvoyant"}} {
		html := pageOf(t, load()[:1], names...)
		if m := regexp.MustCompile(`NaN|Inf|%!`).FindString(html); m != "" {
			t.Errorf("%v: a number went wrong: %s", names, m)
		}
	}
}

func TestNumbersForPeople(t *testing.T) {
	for v, want := range map[float64]string{0: "0\u00a0s", 3.25: "3.2\u00a0s", 59.6: "60\u00a0s", 600: "10\u00a0min", 7200: "2.0\u00a0h"} {
		if got := secs(v); got != want {
			t.Errorf("secs(%v) = %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]string{0: "$0.00", 999.5: "$999.50", 1234567.4: "$1,234,567", 1000: "$1,000"} {
		if got := usd(v); got != want {
			t.Errorf("usd(%v) = %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]float64{0.3: 0.5, 7: 10, 10: 10, 1.1: 2, 0: 1, math.Inf(1): 1} {
		if got := nice(v); got != want {
			t.Errorf("nice(%v) = %v, want %v", v, got, want)
		}
	}
}
