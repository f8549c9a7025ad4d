package redis

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"muster.dev/muster/internal/queue/connect"
)

const (
	// calm is how often the queue is looked at while the server tells of
	// changes: what it told of may have been lost with a connection.
	calm = time.Second
	// eager is how often it is looked at where the server does not tell.
	eager = 100 * time.Millisecond
	// spacing is the least time between two looks.
	spacing = 5 * time.Millisecond
	// again is when a server that refused to tell of changes is asked anew.
	again = time.Minute
	// silence is after how long a connection is probed; twice that is the end
	// of it.
	silence = 3 * time.Second
)

// invalidations is the channel that changes are told on, see "Client-side
// caching", https://redis.io/docs/latest/develop/reference/client-side-caching/.
const invalidations = "__redis__:invalidate"

func (s *Source) signal() { offer(s.wake) }
func (s *Source) touch()  { offer(s.poke) }

func offer(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// watch returns what a lease or delay ended of, and wakes the reader when
// something arrived or came back, until Close.
func (s *Source) watch() {
	var back connect.Backoff
	var last int64
	known, touched := false, false
	for s.ctx.Err() == nil {
		looked := time.Now()
		version, left, err := s.look()
		pause := calm
		switch {
		case err != nil:
			pause = back.Next()
		case !s.pushed.Load():
			pause = eager
			fallthrough
		default:
			back.Reset()
			if !known || version != last || touched && s.shared != "" {
				s.signal()
			}
			known, last = true, version
			if left >= 0 {
				// A millisecond more, so that it is over by then.
				pause = min(pause, milliseconds(left)+time.Millisecond)
			}
		}
		touched = s.pause(pause, looked)
	}
}

// pause waits until there may be something to look at, and tells whether it was
// told so.
func (s *Source) pause(d time.Duration, looked time.Time) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.ctx.Done():
		return false
	case <-t.C:
		return false
	case <-s.poke:
	}
	if left := spacing - time.Since(looked); left > 0 {
		t.Reset(left)
		select {
		case <-s.ctx.Done():
		case <-t.C:
		}
	}
	return true
}

// look returns a number that grows with each message that arrived or came back,
// and in how many milliseconds the next one may come back; -1 for none.
func (s *Source) look() (version, left int64, err error) {
	if s.cfg.ReadOnly {
		version, err = s.glance(s.ctx)
		return version, -1, err
	}
	reply, err := s.run(s.ctx, "look at the queue", s.scripts.look)
	if err != nil {
		return 0, 0, err
	}
	n, err := numbers(reply, 2)
	if err != nil {
		return 0, 0, err
	}
	return n[0], n[1], nil
}

// listen keeps a connection on which the server tells of changes, until Close.
func (s *Source) listen() {
	var back connect.Backoff
	for s.ctx.Err() == nil {
		err := s.follow(&back)
		s.pushed.Store(false)
		s.touch()
		if has(err, "NOPERM") || has(err, "ERR unknown") || has(err, "ERR Unknown") {
			pace := time.NewTimer(again)
			select {
			case <-s.ctx.Done():
			case <-pace.C:
			}
			pace.Stop()
			continue
		}
		if back.Wait(s.ctx) != nil {
			return
		}
	}
}

var errMoved = errors.New("another node has the queue now")

// follow listens on one connection until it breaks or the queue moves.
func (s *Source) follow(back *connect.Backoff) error {
	node, err := s.node(s.ctx)
	if err != nil {
		return err
	}
	o := *node.Options()
	o.OnConnect = s.track
	client := redis.NewClient(&o)
	sub := client.Subscribe(s.ctx, invalidations)
	end := func() {
		_ = sub.Close() // nothing can be done about either
		_ = client.Close()
	}
	defer end()
	// A read does not watch the context.
	defer context.AfterFunc(s.ctx, end)()
	probed := false
	for {
		m, err := sub.ReceiveTimeout(s.ctx, silence)
		var timeout net.Error
		switch {
		case err == nil:
			probed = false
			s.told(m, back)
		case errors.As(err, &timeout) && timeout.Timeout() && !probed && s.ctx.Err() == nil:
			probed = true
			if err := sub.Ping(s.ctx); err != nil {
				return err
			}
			if now, err := s.node(s.ctx); err != nil {
				return err
			} else if now != node {
				return errMoved
			}
		default:
			return err
		}
	}
}

// told takes up what came on the connection.
func (s *Source) told(m any, back *connect.Backoff) {
	switch m := m.(type) {
	case *redis.Subscription:
		back.Reset()
		s.pushed.Store(true)
		s.touch() // what happened before
	case *redis.Message:
		if slices.ContainsFunc(m.PayloadSlice, func(key string) bool { return slices.Contains(s.watched(), key) }) {
			s.touch()
		}
	}
}

// watched are the keys whose change may mean that a message is there: the
// queue, what waits for its time, and what came back.
func (s *Source) watched() []string {
	if s.cfg.ReadOnly {
		return s.keys[:1]
	}
	return []string{s.keys[0], s.keys[3], s.keys[4]}
}

// track asks for the changes of keys, to be told on the connection itself,
// which is about to subscribe to them. No key needs to have been read, and the
// server need not be set up for it. See https://redis.io/commands/client-tracking/.
func (s *Source) track(ctx context.Context, cn *redis.Conn) error {
	id, err := cn.ClientID(ctx).Result()
	if err != nil {
		return err
	}
	args := []any{"CLIENT", "TRACKING", "ON", "REDIRECT", strconv.FormatInt(id, 10), "BCAST"}
	for i, key := range s.watched() {
		if i > 0 && strings.HasPrefix(key, s.keys[0]) {
			continue // prefixes must not overlap
		}
		args = append(args, "PREFIX", key)
	}
	return cn.Do(ctx, args...).Err()
}

// adopt takes over, every minute, what other consumers of the group left lying.
func (s *Source) adopt() {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for {
		from := "-"
		for from != "" {
			reply, err := s.run(s.ctx, "take over idle entries", s.scripts.adopt, s.cfg.Stream.Adopt.Milliseconds(), from)
			if err != nil {
				break // the readings report it
			}
			from, _ = reply.(string)
		}
		select {
		case <-s.ctx.Done():
			return
		case <-t.C:
		}
	}
}
