package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"muster.dev/muster/internal/fleet"
)

// errReadOnly is the answer to whatever would take or change a message.
var errReadOnly = fmt.Errorf("the queue is open to be read only, others work it off: %w", fleet.ErrInvalid)

// reading runs commands that write nothing. What is missing is not made.
func (s *Source) reading(ctx context.Context, doing string, do func(context.Context, redis.UniversalClient) error) error {
	if err := ctx.Err(); err != nil {
		return wrap(ctx, doing, err)
	}
	within, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	pool, err := s.client(within)
	if err == nil {
		err = do(within, pool)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil && (noGroup(err) || errors.Is(err, fleet.ErrNotFound)):
		return fmt.Errorf("redis: %s: %w: %w", doing, fleet.ErrNotFound, err)
	}
	return wrap(ctx, doing, err)
}

// read is Stats of a queue that others work off.
func (s *Source) read(ctx context.Context) (fleet.SignalStats, error) {
	st := fleet.SignalStats{}
	err := s.reading(ctx, "read the queue's length", func(ctx context.Context, c redis.UniversalClient) error {
		if s.cfg.List != nil {
			return s.readList(ctx, c, &st)
		}
		return s.readStream(ctx, c, &st)
	})
	if err != nil {
		return fleet.SignalStats{}, err
	}
	return st, nil
}

func (s *Source) readList(ctx context.Context, c redis.UniversalClient, st *fleet.SignalStats) error {
	p := c.Pipeline()
	waiting := p.LLen(ctx, s.keys[0])
	var dead *redis.IntCmd
	if s.grave {
		dead = p.LLen(ctx, s.cfg.Dead)
	}
	if _, err := p.Exec(ctx); err != nil {
		return err
	}
	st.AsOf, st.Backlog = time.Now(), waiting.Val()
	if dead != nil {
		st.Dead = dead.Val()
	}
	return nil
}

// readStream reads as stats of stream.lua does, which says why.
func (s *Source) readStream(ctx context.Context, c redis.UniversalClient, st *fleet.SignalStats) error {
	p := c.Pipeline()
	clock, whole, groups := p.Time(ctx), p.XInfoStream(ctx, s.keys[0]), p.XInfoGroups(ctx, s.keys[0])
	var dead *redis.IntCmd
	if s.grave {
		dead = p.XLen(ctx, s.cfg.Dead)
	}
	if _, err := p.Exec(ctx); err != nil {
		return err
	}
	total, length := whole.Val().EntriesAdded, whole.Val().Length
	if total < length {
		return fmt.Errorf("streams need Redis 7.0 or Valkey: XINFO STREAM does not tell entries-added: %w", fleet.ErrInvalid)
	}
	var group *redis.XInfoGroup
	for i, g := range groups.Val() {
		if g.Name == s.group {
			group = &groups.Val()[i]
		}
	}
	if group == nil {
		return fmt.Errorf("consumer group %s of stream %s: %w", s.group, s.keys[0], fleet.ErrNotFound)
	}
	head, err := c.XRangeN(ctx, s.keys[0], "("+group.LastDeliveredID, "+", 1).Result()
	if err != nil {
		return err
	}
	st.AsOf, st.InFlight, st.Arrived = time.Now(), group.Pending, total
	if dead != nil {
		st.Dead = dead.Val()
	}
	if len(head) == 0 {
		return nil
	}
	fresh := group.Lag
	if fresh < 0 { // not known
		fresh = length - group.Pending
	}
	st.Backlog = max(1, min(fresh, length))
	if added, ok := addedAt(head[0].ID); ok {
		st.Oldest = st.AsOf.Add(-max(0, clock.Val().Sub(added)))
	}
	return nil
}

// addedAt is when an entry was added, by its ID; false where the producer made
// the ID of something else than the time (before the year 2000).
func addedAt(id string) (time.Time, bool) {
	text, _, _ := strings.Cut(id, "-")
	ms, err := strconv.ParseInt(text, 10, 64)
	return time.UnixMilli(ms), err == nil && ms > 946684800000
}

// glance returns a number that changes with an arrival.
func (s *Source) glance(ctx context.Context) (version int64, err error) {
	err = s.reading(ctx, "look at the queue", func(ctx context.Context, c redis.UniversalClient) (err error) {
		if s.cfg.List != nil {
			version, err = c.LLen(ctx, s.keys[0]).Result()
			return err
		}
		whole, err := c.XInfoStream(ctx, s.keys[0]).Result()
		if err == nil {
			version = whole.EntriesAdded
		}
		return err
	})
	return version, err
}
