package main

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// fixture lends the servers of tests to a benchmark: what a test would fail or
// be skipped with comes back as an error.
type fixture struct {
	testing.TB // what is not below is not called

	ctx   context.Context
	after []func()
	err   error
}

// skip is why something is not measured.
type skip string

func (s skip) Error() string { return string(s) }

// failure carries an error out of a function that has no other way.
type failure struct{ error }

// withFixture calls do and then what was to be cleaned up.
func withFixture(ctx context.Context, do func(*fixture) error) (err error) {
	t := &fixture{ctx: ctx}
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(failure)
			if !ok {
				panic(r)
			}
			err = f.error
		}
		for len(t.after) > 0 {
			last := len(t.after) - 1
			f := t.after[last]
			t.after = t.after[:last]
			f()
		}
		if err == nil {
			err = t.err
		}
	}()
	return do(t)
}

// Helper implements testing.TB.
func (*fixture) Helper() {}

// Context implements testing.TB.
func (t *fixture) Context() context.Context { return t.ctx }

// Cleanup implements testing.TB.
func (t *fixture) Cleanup(f func()) { t.after = append(t.after, f) }

// TempDir implements testing.TB.
func (t *fixture) TempDir() string {
	dir, err := os.MkdirTemp("", "muster-bench-server-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Error implements testing.TB.
func (t *fixture) Error(a ...any) {
	if t.err == nil {
		t.err = fmt.Errorf("%s", fmt.Sprint(a...))
	}
}

// Errorf implements testing.TB.
func (t *fixture) Errorf(format string, a ...any) { t.Error(fmt.Sprintf(format, a...)) }

// Fatal implements testing.TB.
func (*fixture) Fatal(a ...any) { panic(failure{fmt.Errorf("%s", fmt.Sprint(a...))}) }

// Fatalf implements testing.TB.
func (t *fixture) Fatalf(format string, a ...any) { t.Fatal(fmt.Sprintf(format, a...)) }

// Skip implements testing.TB.
func (*fixture) Skip(a ...any) { panic(failure{skip(fmt.Sprint(a...))}) }

// Skipf implements testing.TB.
func (t *fixture) Skipf(format string, a ...any) { t.Skip(fmt.Sprintf(format, a...)) }
