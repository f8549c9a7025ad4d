package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	sdk "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"muster.dev/muster/internal/fleet"
)

// Headers of a message that was set aside.
const (
	HeaderReason  = "Muster-Reason"          // why, in one line, at most 1 KiB
	HeaderSubject = "Muster-Subject"         // it came on
	HeaderSeq     = "Muster-Stream-Sequence" // it had
	maxReason     = 1024
)

// fenced says that a lease was lost.
func fenced(r receipt, how string) error {
	return fmt.Errorf("message %d %s: %w", r.seq, how, fleet.ErrFenced)
}

// claim finds the lease of a receipt and keeps it from ending until release. A
// receipt of an earlier process is taken over; fresh says so.
func (s *Source) claim(m fleet.Message, settling bool) (l *lease, fresh bool, err error) {
	r, err := parseReceipt(m.Receipt)
	switch {
	case err != nil:
		return nil, false, err
	case r.stream != s.cfg.Stream || r.consumer != s.cfg.Consumer:
		return nil, false, fmt.Errorf("a receipt of another queue: %w", fleet.ErrInvalid)
	}
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	l = s.leases.held[r.seq]
	switch {
	case s.leases.done[m.Receipt]:
		return nil, false, fenced(r, "was settled")
	case l != nil && l.receipt != r:
		return nil, false, fenced(r, "was delivered again")
	case l != nil && l.settling:
		return nil, false, fenced(r, "is being settled")
	case l != nil && !l.until.After(time.Now()):
		return nil, false, fenced(r, "was held for too long without being extended")
	case l == nil && r.owner == s.owner:
		return nil, false, fenced(r, "is no longer held here")
	case l == nil:
		l, fresh = &lease{receipt: r, reply: r.reply, until: time.Now().Add(callTimeout)}, true
		s.leases.held[r.seq] = l
	}
	l.users++
	l.settling = settling
	return l, fresh, nil
}

// release ends a claim, by its outcome: the lease is over, or goes on; one that
// was to be taken over and is not known to be held is forgotten.
func (s *Source) release(l *lease, settling bool, err error) {
	over := errors.Is(err, fleet.ErrFenced) || settling && err == nil
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	l.users--
	if settling {
		l.settling = false
	}
	if !over && !(err != nil && l.sure.IsZero()) {
		s.leases.changed()
		return
	}
	if s.leases.held[l.seq] == l {
		delete(s.leases.held, l.seq)
	}
	if over && l.owner != s.owner {
		if len(s.leases.done) >= maxDone {
			clear(s.leases.done)
		}
		s.leases.done[l.receipt.String()] = true
	}
}

// held looks for signs at the server that the lease was lost. JetStream takes
// any acknowledgement of a message that is delivered, be it of an earlier
// delivery, and tells nobody which those are; what it does tell decides.
func (s *Source) held(ctx context.Context, q *queue, l *lease) error {
	i, err := s.info(ctx, q)
	if err != nil {
		return err
	}
	if i.AckFloor.Stream >= l.seq {
		return fenced(l.receipt, "was settled")
	}
	if !q.once || s.leases.look(l).sure.After(time.Now()) {
		return nil
	}
	m, err := q.stream.GetMsg(ctx, l.seq)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return fenced(l.receipt, "was settled")
	case err != nil:
		return err
	case m.Time.UnixNano() != l.at:
		return fenced(l.receipt, "is another one by now: the stream was made anew")
	}
	return nil
}

// tell sends an acknowledgement of any kind and waits for the server to take it.
func (s *Source) tell(ctx context.Context, ses *session, reply, what string) error {
	m, err := ses.nc.RequestWithContext(ctx, reply, []byte(what))
	if errors.Is(err, sdk.ErrNoResponders) {
		return fmt.Errorf("consumer %s: %w", s.cfg.Consumer, fleet.ErrNotFound)
	}
	if err == nil && strings.HasPrefix(string(m.Data), "-ERR") {
		err = fmt.Errorf("%w: %.200s", fleet.ErrUnavailable, m.Data)
	}
	return err
}

// settle ends a lease: before (nil for nothing) is done while it is known to be
// held, then the server is told what.
func (s *Source) settle(ctx context.Context, op string, m fleet.Message, what string, before func(context.Context, *session, *queue, *lease) error) error {
	if s.cfg.ReadOnly {
		return fmt.Errorf("nats: %s: %w", op, errReadOnly)
	}
	return s.call(ctx, op, func(ctx context.Context, ses *session) error {
		q, err := s.attached(ctx, ses)
		if err != nil {
			return err
		}
		l, _, err := s.claim(m, true)
		if err != nil {
			return err
		}
		err = s.held(ctx, q, l)
		if errors.Is(err, fleet.ErrFenced) && l.tried {
			s.release(l, true, nil)
			return nil // by this call, whose first answer was lost
		}
		if err == nil && before != nil {
			err = before(ctx, ses, q, l)
		}
		if err == nil {
			l.tried = true
			err = s.tell(ctx, ses, s.leases.look(l).reply, what)
		}
		s.release(l, true, err)
		if err == nil {
			s.probe.settled(l.receipt, what == "+ACK" || what == "+TERM")
		}
		return err
	})
}

// Extend implements fleet.Source.
func (s *Source) Extend(ctx context.Context, m fleet.Message, d time.Duration) (time.Time, error) {
	if s.cfg.ReadOnly {
		return time.Time{}, fmt.Errorf("nats: extend: %w", errReadOnly)
	}
	if d <= 0 || d > maxVisibility {
		return time.Time{}, fmt.Errorf("nats: extend: by %s, want more than 0 and at most %s: %w", d, maxVisibility, fleet.ErrInvalid)
	}
	var until time.Time
	err := s.call(ctx, "extend", func(ctx context.Context, ses *session) error {
		q, err := s.attached(ctx, ses)
		if err != nil {
			return err
		}
		if got := s.probe.find(m.Receipt); got != nil {
			s.adopt(q, m.Receipt, got)
		}
		l, fresh, err := s.claim(m, false)
		if err != nil {
			return err
		}
		if fresh || !s.leases.look(l).sure.After(time.Now()) {
			err = s.held(ctx, q, l)
		}
		start := time.Now()
		if err == nil {
			err = s.tell(ctx, ses, s.leases.look(l).reply, "+WPI")
		}
		if err == nil {
			until = start.Add(d)
			s.leases.extended(l, start, start.Add(q.hold), until)
		}
		s.release(l, false, err)
		return err
	})
	return until, err
}

// extended notes a sign of life that the server took.
func (l *leases) extended(x *lease, told, sure, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x.told, x.until = told, until
	if sure.After(x.sure) {
		x.sure = sure
	}
}

// Ack implements fleet.Source.
func (s *Source) Ack(ctx context.Context, m fleet.Message) error {
	return s.settle(ctx, "ack", m, "+ACK", nil)
}

// Nack implements fleet.Source.
func (s *Source) Nack(ctx context.Context, m fleet.Message, delay time.Duration) error {
	if delay < 0 || delay > 15*time.Minute {
		return fmt.Errorf("nats: nack: delay %s, want 0 to 15m: %w", delay, fleet.ErrInvalid)
	}
	what := "-NAK"
	if delay > 0 {
		what += ` {"delay": ` + strconv.FormatInt(int64(delay), 10) + "}"
	}
	return s.settle(ctx, "nack", m, what, nil)
}

// DeadLetter implements fleet.Source: the message is stored in the stream of
// what was set aside, then terminated. After a crash between the two it comes
// again, and the server drops the second copy.
func (s *Source) DeadLetter(ctx context.Context, m fleet.Message, why string) error {
	return s.settle(ctx, "dead-letter", m, "+TERM", func(ctx context.Context, ses *session, q *queue, l *lease) error {
		return s.bury(ctx, ses, q, deadLetter(s.cfg, m, l.receipt, why))
	})
}

func deadLetter(c Config, m fleet.Message, r receipt, why string) *sdk.Msg {
	out := sdk.NewMsg(c.DeadSubject)
	out.Data = m.Body
	for k, v := range m.Headers {
		if strings.HasPrefix(strings.ToLower(k), "nats-") {
			k = "Muster-" + k // it would say what the server shall do with the copy
		}
		out.Header[k] = []string{oneLine(v, len(v))}
	}
	out.Header.Set(HeaderReason, oneLine(why, maxReason))
	out.Header.Set(HeaderSeq, c.Stream+" "+strconv.FormatUint(r.seq, 10))
	out.Header.Set(jetstream.MsgIDHeader, fmt.Sprintf("muster-%s-%d-%d", c.Stream, r.seq, r.at))
	return out
}

// oneLine makes a text fit into a header.
func oneLine(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	for len(s) > most || !utf8.ValidString(s) {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

// bury stores a message in the stream of what was set aside, which is made when
// it is missing.
func (s *Source) bury(ctx context.Context, ses *session, q *queue, m *sdk.Msg) error {
	send := func() error {
		_, err := ses.js.PublishMsg(ctx, m, jetstream.WithExpectStream(s.cfg.DeadStream), jetstream.WithRetryAttempts(0))
		return err
	}
	err := send()
	if !errors.Is(err, sdk.ErrNoResponders) && !errors.Is(err, jetstream.ErrNoStreamResponse) {
		return buried(s.cfg, err)
	}
	_, err = ses.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: s.cfg.DeadStream, Description: "set aside by Muster from " + s.cfg.Stream,
		Subjects: []string{s.cfg.DeadSubject}, Storage: jetstream.FileStorage, Replicas: q.replicas,
		Duplicates: time.Hour,
	})
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return buried(s.cfg, err)
	}
	return buried(s.cfg, send())
}

func buried(c Config, err error) error {
	if err == nil {
		return nil
	}
	err = explain(err)
	if errors.Is(err, fleet.ErrNotFound) {
		// It is not the queue that is missing.
		err = fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
	}
	return fmt.Errorf("store in stream %s on %s: %w", c.DeadStream, c.DeadSubject, err)
}
