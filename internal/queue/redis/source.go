package redis

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"muster.dev/muster/internal/fleet"
)

// Source implements fleet.Source on a list or a stream.
type Source struct {
	cfg     Config
	scripts scripts
	keys    []string
	group   string // empty for a list
	shared  string // "1" or empty, as the scripts take it
	grave   bool   // what was set aside is counted

	mu     sync.Mutex
	pool   redis.UniversalClient // nil until first used
	closed bool

	wake    chan struct{}
	poke    chan struct{} // something may have changed: look
	pushed  atomic.Bool   // the server tells of changes
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
}

var _ fleet.Source = (*Source)(nil)

// New checks the configuration and begins to connect; it neither waits for the
// server nor fails without it. Errors match fleet.ErrInvalid. ctx is not kept:
// Close ends what New started.
func New(_ context.Context, cfg Config) (*Source, error) {
	quiet()
	grave := !cfg.ReadOnly || cfg.Dead != ""
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	s := &Source{cfg: cfg, keys: cfg.keys(), grave: grave, wake: make(chan struct{}, 1), poke: make(chan struct{}, 1)}
	if cfg.Stream != nil {
		s.group, s.scripts = cfg.Stream.Group, newScripts(streamLua)
	} else {
		s.scripts = newScripts(listLua)
	}
	if s.cfg.shared() {
		s.shared = "1"
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.running.Go(s.watch)
	s.running.Go(s.listen)
	if cfg.Stream != nil && !cfg.ReadOnly {
		s.running.Go(s.adopt)
	}
	return s, nil
}

func (c *Config) shared() bool {
	return c.List != nil && (c.List.Shared || c.ReadOnly) || c.Stream != nil && c.Stream.Shared
}

// Traits implements fleet.Signal; see the package comment for why.
func (s *Source) Traits() fleet.SignalTraits {
	own := !s.cfg.ReadOnly // what only keys of our own tell
	return fleet.SignalTraits{
		Oldest:   s.cfg.Stream != nil,
		Arrived:  s.cfg.Stream != nil || !s.cfg.shared(),
		InFlight: s.cfg.Stream != nil || own, Delayed: own, Dead: s.grave, Push: true, Names: true, Durable: true, Binary: true,
	}
}

// Wake implements fleet.Signal.
func (s *Source) Wake() <-chan struct{} { return s.wake }

// Close implements fleet.Signal. Leases stay until they end.
func (s *Source) Close() error {
	s.cancel()
	s.mu.Lock()
	pool := s.pool
	s.pool, s.closed = nil, true
	s.mu.Unlock()
	var err error
	if pool != nil { // before the wait: it ends the reads that the others are in
		err = pool.Close()
	}
	s.running.Wait()
	if err != nil {
		return fmt.Errorf("redis: close: %w", err)
	}
	return nil
}

// run runs a script. A stream or group that is missing is made first.
func (s *Source) run(ctx context.Context, doing string, script *redis.Script, args ...any) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, wrap(ctx, doing, err)
	}
	within, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	pool, err := s.client(within)
	if err != nil {
		return nil, wrap(ctx, doing, err)
	}
	args = append([]any{s.group}, args...)
	reply, err := script.Run(within, pool, s.keys, args...).Result()
	if err != nil && s.cfg.Stream != nil && noGroup(err) {
		// BUSYGROUP: another control plane was quicker.
		if err = pool.XGroupCreateMkStream(within, s.keys[0], s.group, "0").Err(); err == nil || has(err, "BUSYGROUP") {
			reply, err = script.Run(within, pool, s.keys, args...).Result()
		}
	}
	if err != nil {
		return nil, wrap(ctx, doing, err)
	}
	return reply, nil
}

// Stats implements fleet.Signal, in one round trip.
func (s *Source) Stats(ctx context.Context) (fleet.SignalStats, error) {
	if s.cfg.ReadOnly {
		return s.read(ctx)
	}
	reply, err := s.run(ctx, "read the queue's length", s.scripts.stats)
	if err != nil {
		return fleet.SignalStats{}, err
	}
	n, err := numbers(reply, 6)
	if err != nil {
		return fleet.SignalStats{}, err
	}
	st := fleet.SignalStats{AsOf: time.Now(), Backlog: n[0], Delayed: n[1], InFlight: n[2], Dead: n[3]}
	if s.Traits().Arrived {
		st.Arrived = n[4]
	}
	if st.Backlog > 0 && n[5] >= 0 {
		st.Oldest = st.AsOf.Add(-milliseconds(n[5]))
	}
	return st, nil
}

const (
	// chunk is how many messages a script hands out at most, and chunkBytes
	// about how large they may be together: the server does nothing else while
	// a script runs.
	chunk      = 100
	chunkBytes = 8 << 20
	// mostBytes bounds what one call of Receive holds in memory, but for the
	// message that goes beyond it.
	mostBytes = 64 << 20
	// mostTime is when Receive returns with what it has.
	mostTime = 500 * time.Millisecond
)

// Receive implements fleet.Source. It may return fewer than n where bodies are
// large, and wakes the caller again then.
func (s *Source) Receive(ctx context.Context, n int, visibility time.Duration) ([]fleet.Message, error) {
	if s.cfg.ReadOnly {
		return nil, fmt.Errorf("redis: receive: %w", errReadOnly)
	}
	if visibility < time.Second || visibility > 12*time.Hour {
		return nil, fmt.Errorf("redis: visibility %s: want 1s to 12h: %w", visibility, fleet.ErrInvalid)
	}
	out := []fleet.Message{}
	start, prefix, total := time.Now(), rand.Text()+"-", 0
	for len(out) < n {
		sent := time.Now()
		reply, err := s.run(ctx, "receive", s.scripts.receive, s.cfg.Consumer, min(n-len(out), chunk), visibility.Milliseconds(), prefix, len(out), chunkBytes, s.tail())
		if err != nil && len(out) > 0 {
			break // what we have is ours; the rest comes again when its lease ends
		}
		if err != nil {
			return nil, err
		}
		got, size, err := s.messages(reply, sent, visibility)
		if err != nil {
			return nil, err
		}
		out, total = append(out, got...), total+size
		if len(got) < chunk && size < chunkBytes {
			break
		}
		if total >= mostBytes || time.Since(start) > mostTime {
			s.signal()
			break
		}
	}
	return out, nil
}

// tail says which end of the list is taken from.
func (s *Source) tail() string {
	if s.cfg.List != nil && s.cfg.List.Push == Left {
		return "1"
	}
	return ""
}

// settle runs a script that answers whether the lease was held.
func (s *Source) settle(ctx context.Context, doing string, m fleet.Message, script *redis.Script, args ...any) error {
	if s.cfg.ReadOnly {
		return fmt.Errorf("redis: %s: %w", doing, errReadOnly)
	}
	r, err := parseReceipt(m.Receipt)
	if err != nil {
		return fmt.Errorf("redis: %s: %w", doing, err)
	}
	reply, err := s.run(ctx, doing, script, append([]any{r.id, r.token}, args...)...)
	if err != nil {
		return err
	}
	if held, ok := reply.(int64); !ok || held != 1 {
		return fmt.Errorf("redis: %s message %s: %w", doing, r.id, fleet.ErrFenced)
	}
	return nil
}

// Extend implements fleet.Source.
func (s *Source) Extend(ctx context.Context, m fleet.Message, d time.Duration) (time.Time, error) {
	if d < time.Millisecond && !s.cfg.ReadOnly {
		return time.Time{}, fmt.Errorf("redis: extend by %s: %w", d, fleet.ErrInvalid)
	}
	until := time.Now().Add(d) // before it is sent: never later than the server's
	if err := s.settle(ctx, "extend", m, s.scripts.extend, d.Milliseconds()); err != nil {
		return time.Time{}, err
	}
	return until, nil
}

// Ack implements fleet.Source.
func (s *Source) Ack(ctx context.Context, m fleet.Message) error {
	return s.settle(ctx, "ack", m, s.scripts.ack, s.shared)
}

// Nack implements fleet.Source.
func (s *Source) Nack(ctx context.Context, m fleet.Message, delay time.Duration) error {
	err := s.settle(ctx, "nack", m, s.scripts.nack, max(0, delay).Milliseconds())
	if err == nil {
		s.touch()
	}
	return err
}

// mostReason bounds a reason, in bytes.
const mostReason = 4 << 10

// DeadLetter implements fleet.Source.
func (s *Source) DeadLetter(ctx context.Context, m fleet.Message, why string) error {
	why = strings.ToValidUTF8(why[:min(len(why), mostReason)], "")
	field, body := "", ""
	if s.cfg.Stream != nil {
		field, body = s.cfg.Stream.Body, string(m.Body) // should the entry have been trimmed away
	}
	return s.settle(ctx, "dead-letter", m, s.scripts.bury, why, s.shared, field, body)
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
