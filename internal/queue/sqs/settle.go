package sqs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

const (
	// capMargin is how far we stay from the 12 h, for what the clocks differ by.
	capMargin = 5 * time.Second
	// verifyFor is the least time that a lease is made to hold before its message
	// is removed, so that it does not end meanwhile.
	verifyFor = 30 * time.Second
	// longestWait is how long Nack delays; see fleet.Source.
	longestWait = 15 * time.Minute
)

// lease is what this process knows of a message it holds.
type lease struct {
	id       string
	until    time.Time // zero: unknown, from a process before
	received time.Time
	kinds    map[string]string // types of attributes that are not String
	deleting bool              // a removal was sent and its outcome is not known
	buried   bool              // the dead-letter queue has it
}

// room is how long the lease can be made to hold, from now, in whole seconds.
func (l *lease) room(now time.Time) time.Duration {
	return max(0, l.received.Add(longest-capMargin).Sub(now)).Truncate(time.Second)
}

// wait is a message that went back with a delay.
type wait struct {
	due   time.Time
	timer *time.Timer
}

// makeReceipt joins what is needed to settle a message later: the receipt
// handle, and when it was received, since the 12 h count from then.
func makeReceipt(received time.Time, handle string) string {
	return strconv.FormatInt(received.UnixMilli(), 36) + "." + handle
}

func parseReceipt(receipt string) (received time.Time, handle string, err error) {
	at, handle, ok := strings.Cut(receipt, ".")
	ms, bad := strconv.ParseInt(at, 36, 64)
	if !ok || bad != nil || handle == "" || ms < 0 || ms > 1<<52 {
		return time.Time{}, "", fmt.Errorf("the receipt is none of SQS: %w", fleet.ErrFenced)
	}
	return time.UnixMilli(ms), handle, nil
}

// held finds the lease of a message, or makes one of what the receipt says.
// ErrFenced where this process knows that it was lost: SQS itself would often
// accept what is done with an old receipt.
func (s *Source) held(m fleet.Message) (l lease, handle string, err error) {
	received, handle, err := parseReceipt(m.Receipt)
	if err != nil {
		return l, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settled.has(m.Receipt) {
		return l, "", fmt.Errorf("settled or lost before: %w", fleet.ErrFenced)
	}
	if newest := s.newest[m.ID]; newest != "" && newest != m.Receipt {
		return l, "", fmt.Errorf("delivered again: %w", fleet.ErrFenced)
	}
	known := s.leases[m.Receipt]
	if known == nil {
		return lease{id: m.ID, received: received}, handle, nil
	}
	if !known.until.After(time.Now()) {
		return l, "", fmt.Errorf("the lease ended at %s: %w", known.until.UTC().Format(time.RFC3339), fleet.ErrFenced)
	}
	return *known, handle, nil
}

// keep notes what became of a lease.
func (s *Source) keep(receipt string, l lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases[receipt] = &l
	if l.id != "" {
		s.newest[l.id] = receipt
	}
}

// drop forgets a message that is settled or lost; the lock must not be held.
func (s *Source) drop(receipt string, l lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled.add(receipt)
	delete(s.leases, receipt)
	if s.newest[l.id] == receipt {
		delete(s.newest, l.id)
	}
}

// recent remembers the receipts that were settled last, between 8,192 and
// twice as many: SQS may take a second call for such as if nothing had been.
type recent struct{ now, before map[string]bool }

func (r *recent) has(receipt string) bool { return r.now[receipt] || r.before[receipt] }

func (r *recent) add(receipt string) {
	if r.now == nil || len(r.now) >= 8192 {
		r.now, r.before = map[string]bool{}, r.now
	}
	r.now[receipt] = true
}

// lost forgets a lease where err says that it is no more.
func (s *Source) lost(receipt string, l lease, err error) error {
	if errors.Is(err, fleet.ErrFenced) {
		s.drop(receipt, l)
	}
	return err
}

func ceil(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}

// Extend implements fleet.Source. Near the 12 h that SQS holds a message for,
// the time returned is sooner than asked; past them it is ErrFenced.
func (s *Source) Extend(ctx context.Context, m fleet.Message, d time.Duration) (time.Time, error) {
	if d <= 0 || d > longest {
		return time.Time{}, fmt.Errorf("sqs: extend by %s: want more than 0, up to 12h: %w", d, fleet.ErrInvalid)
	}
	o, end, err := s.begin(ctx, "extend")
	if err != nil {
		return time.Time{}, err
	}
	defer end()
	l, handle, err := s.held(m)
	if err != nil {
		return time.Time{}, o.fail(err)
	}
	until, err := s.extend(o.ctx, m.Receipt, handle, &l, d)
	if err != nil {
		return time.Time{}, o.fail(err)
	}
	return until, nil
}

// extend makes the lease hold for d or, near the 12 h, as long as it can.
func (s *Source) extend(ctx context.Context, receipt, handle string, l *lease, d time.Duration) (time.Time, error) {
	timeout := min(ceil(d), l.room(time.Now()))
	if timeout < time.Second {
		return time.Time{}, fmt.Errorf("SQS holds a message for 12 h at most, and these are over: %w", fleet.ErrFenced)
	}
	e := &entry{handle: handle, timeout: timeout}
	if err := s.changes.do(ctx, e); err != nil {
		return time.Time{}, s.lost(receipt, *l, err)
	}
	l.until = e.sent.Add(min(d, timeout))
	s.keep(receipt, *l)
	return l.until, nil
}

// verify asks SQS whether the lease still holds, by making it hold long enough
// for what follows. DeleteMessage alone would not tell: it succeeds for a
// message that is gone, and for one that another consumer has.
func (s *Source) verify(ctx context.Context, receipt, handle string, l *lease) error {
	_, err := s.extend(ctx, receipt, handle, l, max(verifyFor, time.Until(l.until)))
	return err
}

// Ack implements fleet.Source.
func (s *Source) Ack(ctx context.Context, m fleet.Message) error {
	o, end, err := s.begin(ctx, "ack")
	if err != nil {
		return err
	}
	defer end()
	l, handle, err := s.held(m)
	if err != nil {
		return o.fail(err)
	}
	if err := s.remove(o.ctx, m.Receipt, handle, l); err != nil {
		return o.fail(err)
	}
	return nil
}

// remove verifies the lease and deletes the message. A removal whose outcome
// was not known is only sent again, since it may have been done.
func (s *Source) remove(ctx context.Context, receipt, handle string, l lease) error {
	if !l.deleting {
		if err := s.verify(ctx, receipt, handle, &l); err != nil {
			return err
		}
		l.deleting = true
		s.keep(receipt, l)
	}
	if err := s.deletes.do(ctx, &entry{handle: handle}); err != nil {
		return s.lost(receipt, l, err)
	}
	s.drop(receipt, l)
	return nil
}

// Nack implements fleet.Source.
func (s *Source) Nack(ctx context.Context, m fleet.Message, delay time.Duration) error {
	o, end, err := s.begin(ctx, "nack")
	if err != nil {
		return err
	}
	defer end()
	l, handle, err := s.held(m)
	if err != nil {
		return o.fail(err)
	}
	delay = min(ceil(max(0, min(delay, longestWait))), l.room(time.Now()))
	if err := s.changes.do(o.ctx, &entry{handle: handle, timeout: delay}); err != nil {
		return o.fail(s.lost(m.Receipt, l, err))
	}
	s.drop(m.Receipt, l)
	s.await(m.Receipt, delay)
	return nil
}

// await wakes the reader when a message that went back is due. Until then SQS
// counts it as in flight, and Stats as delayed.
func (s *Source) await(receipt string, delay time.Duration) {
	if delay == 0 {
		s.signal()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.waits[receipt] = &wait{due: time.Now().Add(delay), timer: time.AfterFunc(delay, func() {
		s.mu.Lock()
		delete(s.waits, receipt)
		s.mu.Unlock()
		s.signal()
	})}
}

// sweep forgets leases that ended long ago and were never settled; the lock
// must be held.
func (s *Source) sweep(now time.Time) {
	if now.Sub(s.swept) < time.Minute {
		return
	}
	s.swept = now
	for receipt, l := range s.leases {
		if now.Sub(l.until) > time.Hour {
			delete(s.leases, receipt)
			if s.newest[l.id] == receipt {
				delete(s.newest, l.id)
			}
		}
	}
}
