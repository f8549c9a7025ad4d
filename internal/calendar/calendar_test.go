package calendar

import (
	"errors"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the zones asked for must not depend on the machine

	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
)

func rule(t testing.TB, expr, zone string) Rule {
	t.Helper()
	r, err := Parse(expr, zone)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func at(t testing.TB, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestNext(t *testing.T) {
	tests := []struct {
		name, expr, zone, after string
		want                    []string
	}{
		{"plain", "0 8 * * MON", "UTC", "2026-11-24T00:00:00Z", []string{"2026-11-30T08:00:00Z", "2026-12-07T08:00:00Z"}},
		{"exactly at a firing", "0 8 * * *", "", "2026-11-24T08:00:00Z", []string{"2026-11-25T08:00:00Z"}},
		{"just before a firing", "0 8 * * *", "", "2026-11-24T07:59:59.999999999Z", []string{"2026-11-24T08:00:00Z"}},
		{"Monday morning keeps its local hour over DST", "0 8 * * MON", "Europe/Warsaw", "2026-03-20T00:00:00Z",
			[]string{"2026-03-23T07:00:00Z", "2026-03-30T06:00:00Z"}},
		{"Warsaw gap 02:00-03:00", "30 2 * * *", "Europe/Warsaw", "2026-03-28T12:00:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"}},
		{"Warsaw gap swallows slots into one", "*/20 2,3 * * *", "Europe/Warsaw", "2026-03-29T00:00:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-29T01:20:00Z", "2026-03-29T01:40:00Z", "2026-03-30T00:00:00Z"}},
		{"Warsaw repeated hour", "30 2 * * *", "Europe/Warsaw", "2026-10-24T12:00:00Z",
			[]string{"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
		{"asked during the second pass of the hour", "*/30 * * * *", "Europe/Warsaw", "2026-10-25T01:10:00Z",
			[]string{"2026-10-25T02:00:00Z", "2026-10-25T02:30:00Z"}},
		{"New York gap", "15 2 8 3 *", "America/New_York", "2026-03-01T00:00:00Z",
			[]string{"2026-03-08T07:00:00Z", "2027-03-08T07:15:00Z"}},
		{"New York repeated hour", "45 1 * * *", "America/New_York", "2026-11-01T00:00:00Z",
			[]string{"2026-11-01T05:45:00Z", "2026-11-02T06:45:00Z"}},
		{"Lord Howe jumps half an hour ahead", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z",
			[]string{"2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"}},
		{"Lord Howe repeats half an hour", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z",
			[]string{"2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"}},
		{"Apia had no 30 December 2011", "0 9 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z",
			[]string{"2011-12-29T19:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T19:00:00Z"}},
		{"midnight that does not exist", "0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z",
			[]string{"2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"}},
		{"leap day", "0 0 29 2 *", "", "2025-01-01T00:00:00Z", []string{"2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"}},
		{"either day field", "0 0 13 * FRI", "", "2026-11-24T00:00:00Z", []string{"2026-11-27T00:00:00Z", "2026-12-04T00:00:00Z", "2026-12-11T00:00:00Z", "2026-12-13T00:00:00Z"}},
		{"7 is Sunday", "0 0 * * 7", "", "2026-11-24T00:00:00Z", []string{"2026-11-29T00:00:00Z"}},
		{"range to Sunday", "0 0 * * FRI-SUN", "", "2026-11-26T00:00:00Z", []string{"2026-11-27T00:00:00Z", "2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z", "2026-12-04T00:00:00Z"}},
		{"range to 7 by 2", "0 0 * * 3-7/2", "", "2026-11-24T00:00:00Z", []string{"2026-11-25T00:00:00Z", "2026-11-27T00:00:00Z", "2026-11-29T00:00:00Z"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, now := rule(t, tt.expr, tt.zone), at(t, tt.after)
			for _, w := range tt.want {
				got := r.Next(now)
				if !got.Equal(at(t, w)) {
					t.Fatalf("after %s: got %s, want %s", now, got.Format(time.RFC3339), w)
				}
				if last := r.Last(got); !last.Equal(got) {
					t.Errorf("Last(%s) = %s", got, last)
				}
				now = got
			}
		})
	}
}

func TestActive(t *testing.T) {
	r := rule(t, "0 8 * * MON", "Europe/Warsaw")
	tests := []struct {
		now, start string // start "": not active
	}{
		{"2026-11-30T06:59:59Z", ""},
		{"2026-11-30T07:00:00Z", "2026-11-30T07:00:00Z"},
		{"2026-11-30T16:59:59Z", "2026-11-30T07:00:00Z"},
		{"2026-11-30T17:00:00Z", ""},
		{"2026-12-01T08:00:00Z", ""},
	}
	for _, tt := range tests {
		w, ok := r.Active(at(t, tt.now), 10*time.Hour)
		if ok != (tt.start != "") {
			t.Errorf("%s: active %v", tt.now, ok)
		} else if ok && (!w.Start.Equal(at(t, tt.start)) || w.End.Sub(w.Start) != 10*time.Hour) {
			t.Errorf("%s: window %v", tt.now, w)
		}
	}
	every := rule(t, "*/10 * * * *", "")
	w, ok := every.Active(at(t, "2026-11-30T06:59:59Z"), 25*time.Minute)
	if !ok || !w.Start.Equal(at(t, "2026-11-30T06:50:00Z")) {
		t.Errorf("overlapping windows: %v %v", w, ok)
	}
	if _, ok := every.Active(at(t, "2026-11-30T06:59:59Z"), 0); ok {
		t.Error("a window of no length was active")
	}
	if _, ok := (Rule{}).Active(at(t, "2026-11-30T06:59:59Z"), time.Hour); ok {
		t.Error("the zero rule was active")
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ expr, zone, field, says string }{
		{"", "", "cron", "0 fields"},
		{"* * * *", "", "cron", "4 fields"},
		{"* * * * * *", "", "cron", "6 fields"},
		{"@daily", "", "cron", "1 fields"},
		{"60 * * * *", "", "cron", "minute"},
		{"0 24 * * *", "", "cron", "hour"},
		{"0 0 0 * *", "", "cron", "day of month"},
		{"0 0 * 13 *", "", "cron", "month"},
		{"0 0 * * 8", "", "cron", "day of week"},
		{"0 0 * * FOO", "", "cron", "day of week"},
		{"*/0 * * * *", "", "cron", "minute"},
		{"5-1 * * * *", "", "cron", "minute"},
		{", * * * *", "", "cron", "minute"},
		{"TZ=UTC * * * *", "", "cron", "minute"},
		{"*-5 * * * *", "", "cron", "minute"},
		{"0 0 31 2 *", "", "cron", "never"},
		{"0 8 * * *", "Mars/Olympus", "timezone", "Mars/Olympus"},
		{"0 8 * * *", "Local", "timezone", "Local"},
		{"0 8 * * *", "../../etc/passwd", "timezone", "not a known"},
	}
	for _, tt := range tests {
		_, err := Parse(tt.expr, tt.zone)
		var fe *fleet.FieldError
		if !errors.As(err, &fe) || !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%q %q: got %v, want a field error", tt.expr, tt.zone, err)
			continue
		}
		if fe.Field != tt.field || !strings.Contains(fe.Wrong, tt.says) || fe.Right == "" {
			t.Errorf("%q %q: got %v", tt.expr, tt.zone, err)
		}
	}
}

var zones = []string{
	"UTC", "Europe/Warsaw", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "America/Sao_Paulo",
	"Asia/Kathmandu", "Africa/Casablanca", "America/Juneau", "Antarctica/Troll", "Africa/Monrovia",
}

// TestNextProperty compares Next with the definition: walk the clock in small
// steps and fire a matching slot the first time the calendar reads it or
// something later.
func TestNextProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom(zones).Draw(t, "zone")
		expr := rapid.SampledFrom([]string{
			"* * * * *", "*/7 * * * *", "30 * * * *", "0 0 * * *", "30 2 * * *", "15,45 1-3 * * *",
			"0 0 1 * *", "59 23 * * SUN", "0 0 30 12 *", "*/30 0,23 * * 0-3",
		}).Draw(t, "expr")
		r, err := Parse(expr, zone)
		if err != nil {
			t.Fatal(err)
		}
		from := time.Unix(rapid.Int64Range(-1_200_000_000, 2_500_000_000).Draw(t, "from"), 0).Truncate(step)
		// Half the time next to a change of the clocks, where it is hard.
		if rapid.Bool().Draw(t, "near a change") {
			if _, end := from.In(r.zone).ZoneBounds(); !end.IsZero() {
				from = end.Truncate(step).Add(time.Duration(rapid.IntRange(-100, 100).Draw(t, "minutes")) * time.Minute)
			}
		}
		until := from.Add(30 * time.Hour)
		var want []time.Time
		for _, f := range walk(r, from.Add(-72*time.Hour), until) {
			if f.After(from) && !f.After(until) {
				want = append(want, f)
			}
		}
		now := from
		for _, w := range want {
			got := r.Next(now)
			if !got.Equal(w) {
				t.Fatalf("%s in %s after %s: got %s, want %s", expr, zone, now.UTC(), got, w)
			}
			if last := r.Last(w.Add(time.Nanosecond)); !last.Equal(w) {
				t.Fatalf("last at %s: got %s", w, last)
			}
			now = got
		}
		if next := r.Next(now); !next.IsZero() && !next.After(until) {
			t.Fatalf("%s in %s after %s: fires at %s too", expr, zone, now, next)
		}
	})
}

// step divides every offset from UTC in use since 1930 (Monrovia kept -0:44:30).
const step = 30 * time.Second

// walk fires slots by brute force over [from, until].
func walk(r Rule, from, until time.Time) []time.Time {
	local := func(at time.Time) time.Time {
		_, o := at.In(r.zone).Zone()
		return at.UTC().Add(time.Duration(o) * time.Second)
	}
	var fired []time.Time
	shown := local(from) // the latest reading so far: slots up to it are done
	slot := r.slots.Next(shown)
	for at := from; !at.After(until); at = at.Add(step) {
		now := local(at)
		if !now.After(shown) {
			continue
		}
		shown = now
		if !slot.IsZero() && !slot.After(now) {
			fired = append(fired, at)
			slot = r.slots.Next(shown)
		}
	}
	return fired
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0 8 * * MON", "*/5 1-3,7 * JAN-MAR 5-7/2", "TZ=", "@every 1s", "0 0 31 2 *", "? ? ? ? ?"} {
		f.Add(s, "Europe/Warsaw")
	}
	start := time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, expr, zone string) {
		r, err := Parse(expr, zone)
		if err != nil {
			if !errors.Is(err, fleet.ErrInvalid) {
				t.Fatalf("not a field error: %v", err)
			}
			return
		}
		n := r.Next(start)
		if n.IsZero() {
			return
		}
		if !n.After(start) {
			t.Fatalf("%q fired at %s, not after %s", expr, n, start)
		}
		if again, err := Parse(r.String(), r.Zone().String()); err != nil || !again.Next(start).Equal(n) {
			t.Fatalf("%q does not read back: %v", expr, err)
		}
	})
}

func BenchmarkNext(b *testing.B) {
	r := rule(b, "0 8 * * MON", "Europe/Warsaw")
	now := at(b, "2026-11-24T00:00:00Z")
	for b.Loop() {
		r.Next(now)
	}
}

func BenchmarkActive(b *testing.B) {
	r := rule(b, "0 8 * * MON", "Europe/Warsaw")
	now := at(b, "2026-11-30T12:00:00Z")
	for b.Loop() {
		r.Active(now, 10*time.Hour)
	}
}
