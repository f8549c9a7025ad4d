package forecast

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLifetimesOfNothing(t *testing.T) {
	var l Lifetimes
	for _, age := range []time.Duration{-time.Hour, 0, time.Minute, time.Hour} {
		got, want := l.Residual(age), max(0, age)+lifeHope
		if got < want*8/10-2*time.Second || got > want*13/10+2*time.Second {
			t.Errorf("after %s another %s, want about %s", age, got, want)
		}
	}
}

func TestLifetimesOfConstantTasks(t *testing.T) {
	var l Lifetimes
	for i := range 10_000 {
		l.Done(t0.Add(time.Duration(i)*time.Second), 4*time.Minute)
	}
	for _, c := range []struct{ age, from, to time.Duration }{
		{0, 3 * time.Minute, 5 * time.Minute},
		{2 * time.Minute, time.Minute, 3 * time.Minute},
		{225 * time.Second, time.Second, time.Minute},
		{time.Hour, 30 * time.Minute, 3 * time.Hour}, // none has gone on for so long
	} {
		if got := l.Residual(c.age); got < c.from || got > c.to {
			t.Errorf("after %s another %s, want %s to %s", c.age, got, c.from, c.to)
		}
	}
}

// TestLifetimesOfTwoKinds: most tasks take ten seconds and a few an hour; what
// has run for a minute is one of the few.
func TestLifetimesOfTwoKinds(t *testing.T) {
	var l Lifetimes
	for i := range 1000 {
		d := 10 * time.Second
		if i%20 == 0 {
			d = time.Hour
		}
		l.Done(t0, d)
	}
	young, old := l.Residual(0), l.Residual(time.Minute)
	if young > 5*time.Minute || old < 45*time.Minute || old > 75*time.Minute {
		t.Errorf("young ones go on for %s, old ones for %s", young, old)
	}
}

func TestLifetimesForget(t *testing.T) {
	var l Lifetimes
	for range 1000 {
		l.Done(t0, time.Hour)
	}
	for i := range 1000 {
		l.Done(t0.Add(10*7*24*time.Hour+time.Duration(i)*time.Second), time.Minute)
	}
	if got := l.Residual(0); got > 90*time.Second {
		t.Errorf("ten weeks after the last long task another %s is expected", got)
	}
}

// TestLifetimesProperties: never negative, at most the longest of all, the same
// after JSON, and unmoved by durations below zero.
func TestLifetimesProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l Lifetimes
		now := t0
		for range rapid.IntRange(0, 200).Draw(t, "tasks") {
			now = now.Add(time.Duration(rapid.IntRange(-1000, 5000).Draw(t, "dt")) * time.Second)
			l.Done(now, time.Duration(rapid.Int64Range(-int64(time.Hour), int64(100*time.Hour)).Draw(t, "duration")))
		}
		b, err := json.Marshal(&l)
		if err != nil {
			t.Fatal(err)
		}
		var back Lifetimes
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			age := time.Duration(rapid.Int64Range(0, int64(100*time.Hour)).Draw(t, "age"))
			got := l.Residual(age)
			if got < 0 || got > 30*time.Hour || back.Residual(age) != got {
				t.Fatalf("after %s another %s; read back %s", age, got, back.Residual(age))
			}
		}
		// A table that is looked up often is renewed.
		for range 1000 {
			l.Done(now, 0)
		}
		for range lifeKeep + 1 {
			back.Residual(0)
			l.Residual(0)
		}
		if l.Residual(0) > back.Residual(0) {
			t.Fatalf("a thousand tasks of no length, and %s became %s", back.Residual(0), l.Residual(0))
		}
	})
}
