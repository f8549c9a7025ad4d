package pg

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// pulse is how often a listener asks whether its connection still lives.
const pulse = 5 * time.Second

// Listen calls hear with each notification on a channel until Close, on a
// connection of its own. After each connect it calls up: whatever was said
// before that was not heard. It returns at once; with Options.Poll it does
// nothing.
func (s *Server) Listen(channel string, hear func(payload string), up func()) {
	if s.opt.Poll {
		return
	}
	s.tasks.Go(func() {
		var back backoff
		lost := false
		for s.base.Err() == nil {
			err := s.listen(channel, hear, func() {
				back = backoff{}
				if lost {
					s.opt.Log.Info("push from PostgreSQL is back", "channel", channel)
				}
				lost = false
				up()
			})
			if s.base.Err() != nil {
				return
			}
			if !lost {
				s.opt.Log.Warn("push from PostgreSQL is lost; polling until it is back", "channel", channel, "error", err)
				lost = true
			}
			back.wait(s.base)
		}
	})
}

func (s *Server) listen(channel string, hear func(string), up func()) error {
	c, err := s.Dedicated(s.base)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer CloseConn(c)
	ctx, cancel := context.WithTimeout(s.base, s.opt.Patience)
	_, err = c.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize())
	cancel()
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	up()
	for {
		ctx, cancel := context.WithTimeout(s.base, pulse)
		n, err := c.WaitForNotification(ctx)
		quiet := ctx.Err() != nil
		cancel()
		switch {
		case err == nil:
			hear(n.Payload)
			continue
		case s.base.Err() != nil:
			return s.base.Err()
		case !quiet || c.IsClosed():
			return fmt.Errorf("listen: %w", err)
		}
		ctx, cancel = context.WithTimeout(s.base, pulse)
		err = c.Ping(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
	}
}

// CloseConn ends a connection of Dedicated, in order if that is quick.
func CloseConn(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx) // it is ended in any case
}

// Notify tells every listener of a channel. Payload has at most 8,000 bytes.
func (s *Server) Notify(ctx context.Context, channel, payload string) error {
	return s.Do(ctx, "notify", func(ctx context.Context, p *pgxpool.Pool) error {
		_, err := p.Exec(ctx, "SELECT pg_notify($1, $2)", channel, payload)
		return err
	})
}

// Go runs f until it ends, which it does when its context does; Close waits.
func (s *Server) Go(f func(context.Context)) { s.tasks.Go(func() { f(s.base) }) }

// backoff is the pause between attempts: from 50 ms doubling to 5 s, each
// shortened by up to a half at random, so that many clients of one server do
// not return together.
type backoff struct{ last time.Duration }

func (b *backoff) wait(ctx context.Context) {
	b.last = min(5*time.Second, max(50*time.Millisecond, 2*b.last))
	t := time.NewTimer(b.last - rand.N(b.last/2+1)) //nolint:gosec // spread, no secret
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
