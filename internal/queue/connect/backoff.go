package connect

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is the pause between attempts to reconnect: doubling from First up to
// Most, each shortened by up to a half at random, so that many clients of one
// server do not return together. The zero value goes from 50 ms to 5 s.
type Backoff struct {
	First, Most time.Duration
	next        time.Duration
}

// Reset begins anew, after an attempt that succeeded.
func (b *Backoff) Reset() { b.next = 0 }

// Next returns the pause before the next attempt.
func (b *Backoff) Next() time.Duration {
	first, most := b.First, b.Most
	if first <= 0 {
		first = 50 * time.Millisecond
	}
	if most <= 0 {
		most = 5 * time.Second
	}
	b.next = min(most, max(first, 2*b.next))
	return b.next - rand.N(b.next/2+1) //nolint:gosec // spread, no secret
}

// Wait pauses before the next attempt; the error is the context's.
func (b *Backoff) Wait(ctx context.Context) error {
	t := time.NewTimer(b.Next())
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
