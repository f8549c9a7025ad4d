package nats

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	sdk "github.com/nats-io/nats.go"

	"muster.dev/muster/internal/fleet"
)

// lease is a delivery that this process holds.
type lease struct {
	receipt        // as handed out; stays the same
	reply   string // of the newest delivery, all of which acknowledge the message
	until   time.Time
	// sure is until when the server waits, by the last sign of life it answered.
	sure     time.Time
	told     time.Time // the last sign of life that was sent
	users    int       // calls that are about it: it does not end under them
	settling bool
	// tried: it was settled, and the answer was lost.
	tried bool
}

// leases are kept by sequence in the stream. Settled receipts of earlier
// processes are remembered, since only their own process could tell.
type leases struct {
	mu   sync.Mutex
	held map[uint64]*lease
	done map[string]bool
	poke chan struct{}
}

const (
	maxDone = 4096
	// grain is how exactly a lease ends.
	grain = 50 * time.Millisecond
)

func (l *leases) init() {
	l.held, l.done, l.poke = map[uint64]*lease{}, map[string]bool{}, make(chan struct{}, 1)
}

func (l *leases) changed() {
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

// lease takes a delivery into the books; false for one that is not handed out:
// it has no readable subject, or it is the message of a lease that holds.
func (s *Source) lease(q *queue, m *sdk.Msg, at time.Time, visibility time.Duration) (fleet.Message, bool) {
	r, err := parseReply(m.Reply)
	if err != nil {
		return fleet.Message{}, false
	}
	r.owner = s.owner
	if s.leases.resume(r, at.Add(q.hold)) {
		return fleet.Message{}, false
	}
	l := &lease{receipt: r, reply: r.reply, until: time.Now().Add(visibility), sure: at.Add(q.hold), told: at}
	s.leases.mu.Lock()
	s.leases.held[r.seq] = l
	s.leases.mu.Unlock()
	s.leases.changed()
	return s.message(m, r, l.until), true
}

// resume goes on with a lease whose message was delivered again to the very
// process that holds it: the server lost patience, or forgot, during an
// interruption, and the task still runs here.
func (l *leases) resume(r receipt, sure time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.held[r.seq]
	if x == nil || x.at != r.at || x.users == 0 && !x.until.After(time.Now()) {
		return false
	}
	x.reply, x.sure = r.reply, sure
	return true
}

// look copies a lease, which the keeper and the probe may change.
func (l *leases) look(x *lease) lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return *x
}

// keep gives the server signs of life for the leases that last longer than it
// would wait, and gives back those that ended before.
func (s *Source) keep() {
	defer s.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-timer.C:
		case <-s.leases.poke:
		}
		timer.Reset(max(grain, s.round(time.Now())))
	}
}

// round does what is due and returns when to come again.
func (s *Source) round(now time.Time) time.Duration {
	s.mu.Lock()
	ses := s.ses
	s.mu.Unlock()
	hold := s.cfg.AckWait
	if ses != nil {
		ses.mu.Lock()
		if ses.queue != nil {
			hold = ses.queue.hold
		}
		ses.mu.Unlock()
	}
	next := time.Hour
	var ended, alive []*lease
	s.leases.mu.Lock()
	for seq, l := range s.leases.held {
		left := l.until.Sub(now)
		if left <= 0 && l.users == 0 {
			delete(s.leases.held, seq)
			if l.sure.After(now) { // else the message may be with another by now
				ended = append(ended, l)
			}
			continue
		}
		if l.until.After(l.sure) && !l.sure.IsZero() { // else not known to be held
			renew := l.told.Add(hold / 3).Sub(now)
			if renew <= 0 {
				l.told = now
				c := *l
				alive = append(alive, &c)
				renew = hold / 3
			}
			left = min(left, renew)
		}
		next = min(next, max(left, grain))
	}
	s.leases.mu.Unlock()
	if ses == nil {
		return min(next, hold/3) // the server gives back what it hears nothing of
	}
	for _, l := range ended {
		_ = ses.nc.Publish(l.reply, []byte("-NAK")) // else AckWait does it
	}
	for _, l := range alive {
		_ = ses.nc.PublishRequest(l.reply, fmt.Sprintf("%s.%d-%d", ses.confirm, l.seq, now.Sub(s.start)), []byte("+WPI")) // sent again in a third of AckWait
	}
	return next
}

// confirmed reads the server's answer to a sign of life.
func (s *Source) confirmed(m *sdk.Msg) {
	if m.Header.Get("Status") != "" {
		return // nobody listened
	}
	seq, at, ok := parseConfirm(m.Subject)
	if !ok {
		return
	}
	s.mu.Lock()
	ses := s.ses
	s.mu.Unlock()
	if ses == nil {
		return
	}
	ses.mu.Lock()
	q := ses.queue
	ses.mu.Unlock()
	if q != nil {
		s.sure(seq, s.start.Add(at).Add(q.hold))
	}
}

func parseConfirm(subject string) (seq uint64, at time.Duration, ok bool) {
	a, b, found := strings.Cut(subject[strings.LastIndexByte(subject, '.')+1:], "-")
	seq, err := strconv.ParseUint(a, 10, 64)
	n, err2 := strconv.ParseInt(b, 10, 64)
	return seq, time.Duration(n), found && err == nil && err2 == nil
}

func (s *Source) sure(seq uint64, t time.Time) {
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	if l := s.leases.held[seq]; l != nil && t.After(l.sure) {
		l.sure = t
	}
}
