package nats

import (
	"context"
	"errors"
	"sync"
	"time"

	sdk "github.com/nats-io/nats.go"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

const (
	// probeExpires and probeHeartbeat keep a request that waits alive: one that
	// is not heard of for two heartbeats is made again.
	probeExpires   = 30 * time.Second
	probeHeartbeat = 5 * time.Second
	// probeHold is how long the message that told us of an arrival waits for
	// Receive before it goes back to whoever wants it.
	probeHold = time.Second
	maxPeeks  = 1024
)

// probe waits for the next message, whatever makes it due: it arrived, its
// delay ended, or the lease of another ended. The one it gets is handed to the
// next Receive. While the fleet takes nothing there is nothing to wait for, and
// it pauses: each message it takes and gives back is a delivery more.
type probe struct {
	mu   sync.Mutex
	want bool // to wait for a message
	kick chan struct{}
	got  *delivery     // waiting for Receive
	took chan struct{} // closed when Receive took it
	// back is what was given back and may still wait for a consumer.
	back *given
	// peeked counts the deliveries that were no attempt at a message.
	peeked map[peek]int
}

type delivery struct {
	msg *sdk.Msg
	receipt
	got time.Time
	// ours: until then the server waits; later it may have given the message to
	// another consumer, whom giving it back would rob of it.
	ours time.Time
}

// given is a message that went back when the consumer had made so many
// deliveries: as long as it made no more, the message waits.
type given struct {
	receipt
	deliveries uint64
}

// peek names a message across lives of a stream.
type peek struct {
	seq uint64
	at  int64
}

func (p *probe) init() {
	p.want, p.kick, p.peeked = true, make(chan struct{}, 1), map[peek]int{}
}

// taken is what Receive gets of the probe.
type taken struct {
	msg *sdk.Msg
	at  time.Time
}

func (p *probe) take() *taken {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.got == nil {
		return nil
	}
	d := p.got
	p.got = nil
	close(p.took)
	return &taken{msg: d.msg, at: d.got}
}

// read notes a Receive: after one that found less than it asked for, the next
// message is news.
func (p *probe) read(all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.back = nil // it would have come first
	if all {
		p.arm()
	}
}

// arm asks for a message to be waited for; the lock must be held.
func (p *probe) arm() {
	p.want = true
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// empty notes a reading without backlog: whatever comes next is news.
func (p *probe) empty() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.back == nil && p.got == nil && !p.want {
		p.arm()
	}
}

func (p *probe) peeks(r receipt) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.peeked[peek{r.seq, r.at}]
}

// settled forgets a message that does not come again.
func (p *probe) settled(r receipt, gone bool) {
	if !gone {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.peeked, peek{r.seq, r.at})
}

// find returns a newer delivery of the receipt's message where the probe has it.
func (p *probe) find(old string) *delivery {
	r, err := parseReceipt(old)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil || p.got == nil || p.got.seq != r.seq || p.got.at != r.at {
		return nil
	}
	d := p.got
	p.got = nil
	close(p.took)
	p.arm()
	return d
}

// adopt takes over the lease of an earlier process whose message the probe took
// before anybody else did.
func (s *Source) adopt(q *queue, old string, d *delivery) {
	r, err := parseReceipt(old)
	if err != nil {
		return
	}
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	s.leases.held[r.seq] = &lease{receipt: r, reply: d.reply, until: time.Now().Add(callTimeout), sure: d.got.Add(q.hold), told: d.got}
}

// watch runs the probe until the Source is closed.
func (s *Source) watch() {
	defer s.wg.Done()
	var pause connect.Backoff
	var last *session
	for s.ctx.Err() == nil {
		ses, err := s.session(s.ctx)
		if err != nil {
			_ = pause.Wait(s.ctx) // the loop ends with it
			continue
		}
		if ses != last {
			// What happened meanwhile nobody told.
			last = ses
			s.arouse()
			s.probe.mu.Lock()
			s.probe.want = true
			s.probe.mu.Unlock()
		}
		s.probe.mu.Lock()
		want := s.probe.want
		s.probe.mu.Unlock()
		if !want {
			select {
			case <-s.probe.kick:
			case <-ses.gone:
			case <-s.ctx.Done():
			}
			continue
		}
		m, err := s.await(ses)
		switch {
		case err != nil:
			_ = pause.Wait(s.ctx) // as above
		case m != nil:
			pause.Reset()
			s.offer(ses, m)
		default:
			pause.Reset()
		}
	}
}

// await asks for one message and waits; nil when the request expired.
func (s *Source) await(ses *session) (*sdk.Msg, error) {
	bound, cancel := context.WithTimeout(s.ctx, callTimeout)
	defer cancel()
	var q *queue
	if err := ses.run(bound, func(ctx context.Context, ses *session) (err error) {
		q, err = s.attached(ctx, ses)
		return err
	}); err != nil {
		return nil, err
	}
	inbox, in := ses.nc.NewInbox(), make(chan *sdk.Msg, 16)
	sub, err := ses.nc.ChanSubscribe(inbox, in)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	r := request{Batch: 1, Expires: q.expires, Heartbeat: probeHeartbeat}
	patience := 2*probeHeartbeat + probeHeartbeat/2
	if q.expires < 2*probeHeartbeat { // the server wants it to be longer
		r.Heartbeat, patience = 0, q.expires+probeHeartbeat
	}
	if err := s.ask(ses, inbox, r); err != nil {
		return nil, err
	}
	silence := time.NewTimer(patience)
	defer silence.Stop()
	for {
		select {
		case m := <-in:
			if !isStatus(m) {
				return m, nil
			}
			end, err := s.status(m)
			if errors.Is(err, fleet.ErrNotFound) || errors.Is(err, errAbsent) {
				ses.detach()
			}
			if end {
				return nil, err
			}
			silence.Reset(patience)
		case <-silence.C:
			return nil, nil
		case <-ses.gone:
			return nil, nil
		case <-s.ctx.Done():
			return nil, nil
		}
	}
}

// offer holds the message for Receive, wakes the reader, and gives it back when
// nobody comes.
func (s *Source) offer(ses *session, m *sdk.Msg) {
	r, err := parseReply(m.Reply)
	if err != nil {
		return
	}
	r.owner = s.owner
	q, err := s.attached(s.ctx, ses)
	if err != nil {
		return // it goes back after AckWait
	}
	now := time.Now()
	if s.leases.resume(r, now.Add(q.hold)) {
		return // its lease goes on
	}
	took := make(chan struct{})
	s.probe.mu.Lock()
	s.probe.want = false
	s.probe.got, s.probe.took = &delivery{msg: m, receipt: r, got: now, ours: now.Add(q.hold * 2 / 3)}, took
	s.probe.back = nil
	s.probe.mu.Unlock()
	s.arouse()
	timer := time.NewTimer(min(probeHold, q.hold/3))
	defer timer.Stop()
	select {
	case <-took:
		return
	case <-s.ctx.Done():
		return // Close gave it back
	case <-timer.C:
	}
	s.giveBackProbe()
}

// giveBackProbe returns what the probe holds, if anything.
func (s *Source) giveBackProbe() {
	s.probe.mu.Lock()
	d := s.probe.got
	if d == nil {
		s.probe.mu.Unlock()
		return
	}
	s.probe.got = nil
	close(s.probe.took)
	if len(s.probe.peeked) >= maxPeeks {
		clear(s.probe.peeked)
	}
	s.probe.peeked[peek{d.seq, d.at}]++
	back := &given{receipt: d.receipt, deliveries: d.delivery}
	s.probe.back = back
	s.probe.mu.Unlock()
	if time.Now().After(d.ours) {
		return // AckWait gives it back, as where the server does not hear of it
	}
	_ = s.call(s.ctx, "give back", func(ctx context.Context, ses *session) error {
		q, err := s.attached(ctx, ses)
		if err != nil {
			return err
		}
		// Read before: the message may be with another the moment it is back.
		i, err := s.info(ctx, q)
		if err != nil {
			return err
		}
		s.probe.mu.Lock()
		back.deliveries = i.Delivered.Consumer
		s.probe.mu.Unlock()
		return s.tell(ctx, ses, d.reply, "-NAK")
	})
}
