package kafka

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

const (
	// ahead is how many messages wait in memory to be handed out, at most, and
	// aheadBytes how large they are together before no more is asked for.
	ahead      = 256
	aheadBytes = 16 << 20
	// patience bounds a call, so that it returns within 5 s.
	patience = 3 * time.Second
)

// Source consumes a topic; it implements fleet.Source.
type Source struct {
	cfg     Config
	contact contact
	network func(ctx context.Context, network, host string) (net.Conn, error)
	wake    chan struct{}
	room    chan struct{}   // Receive took messages
	kick    chan struct{}   // there is something to commit
	life    context.Context // ends with Close
	stop    context.CancelFunc
	running sync.WaitGroup
	once    sync.Once
	asideMu chan struct{} // one record is set aside at a time

	mu         sync.Mutex
	client     *kgo.Client
	again      context.CancelFunc // gives the client up for a new one
	topicID    kadm.TopicID
	parts      map[int32]*partition
	held       map[string]*entry // by receipt
	ready      []*entry
	readyBytes int
	dues       dues
	timer      *time.Timer
	waiters    []*waiter
	failed     error // of the group or a fetch, until records come
	failedAt   time.Time
	closed     bool
	plain      bool // the brokers take no notes
	nonce      string
	seq        uint64
}

var _ fleet.Source = (*Source)(nil)

// New joins the consumer group in the background, unless it is to read only: a cluster that is down is
// reported by the calls. Errors match fleet.ErrInvalid.
func New(ctx context.Context, c Config) (*Source, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	if _, err := c.TLS.Config(); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return start(ctx, c, (&net.Dialer{}).DialContext)
}

func start(ctx context.Context, c Config, network func(context.Context, string, string) (net.Conn, error)) (*Source, error) {
	s := &Source{
		cfg: c, network: network,
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1), kick: make(chan struct{}, 1), asideMu: make(chan struct{}, 1),
		parts: map[int32]*partition{}, held: map[string]*entry{}, nonce: rand.Text()[:8],
	}
	s.timer = time.AfterFunc(time.Hour, s.tick)
	client, err := kgo.NewClient(s.options()...)
	if err != nil {
		s.timer.Stop()
		return nil, fmt.Errorf("kafka: %w: %w", fleet.ErrInvalid, err)
	}
	s.client, s.again = client, func() {}
	// The context's values are kept; its end is not ours: Close is.
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	committing, end := context.WithCancel(context.WithoutCancel(ctx))
	s.life, s.stop = reading, stop
	if c.ReadOnly {
		end()
		s.wake = nil
		s.running.Go(func() {
			<-reading.Done()
			client.Close()
		})
		return s, nil
	}
	s.running.Go(func() {
		s.read(reading)
		end()
	})
	s.running.Go(func() { s.commits(committing) })
	return s, nil
}

// Traits implements fleet.Signal.
func (s *Source) Traits() fleet.SignalTraits {
	if s.cfg.ReadOnly {
		return s.readOnlyTraits()
	}
	return fleet.SignalTraits{Oldest: true, Arrived: true, InFlight: true, Delayed: true, Dead: true, Push: true, Names: true, Binary: true}
}

// Wake implements fleet.Signal.
func (s *Source) Wake() <-chan struct{} { return s.wake }

func (s *Source) wakeUp() { poke(s.wake) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Close implements fleet.Signal: it commits, leaves the group and ends.
func (s *Source) Close() error {
	s.once.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.stop()
	})
	s.running.Wait()
	s.timer.Stop()
	return nil
}

// tick offers what became due.
func (s *Source) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.sweep(time.Now())
	}
}

// read fetches until the context ends, with a new client whenever the old one
// was given up.
func (s *Source) read(ctx context.Context) {
	var pause connect.Backoff
	for {
		polling, again := context.WithCancel(ctx)
		s.mu.Lock()
		client := s.client
		s.again = again
		s.mu.Unlock()
		s.poll(polling, client)
		again()
		s.leave(client)
		if ctx.Err() != nil {
			return
		}
		for ctx.Err() == nil {
			fresh, err := kgo.NewClient(s.options()...)
			if err == nil {
				s.mu.Lock()
				s.client = fresh
				s.mu.Unlock()
				break
			}
			s.trouble(err)
			_ = pause.Wait(ctx)
		}
	}
}

// leave gives everything back and closes the client; a cluster that does not
// answer cannot hold it up.
func (s *Source) leave(client *kgo.Client) {
	within := commitPatience
	if s.contact.trouble(time.Now()) != nil {
		within = 100 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	client.AllowRebalance()
	_ = client.LeaveGroupContext(ctx) // it is left at the end of the session otherwise
	client.CloseAllowingRebalance()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.parts {
		s.drop(p)
	}
}

// poll moves records from the client to the line, as long as there is room.
func (s *Source) poll(ctx context.Context, client *kgo.Client) {
	for ctx.Err() == nil {
		s.mu.Lock()
		n := ahead - len(s.ready)
		if s.readyBytes >= aheadBytes {
			n = 0
		}
		s.mu.Unlock()
		if n <= 0 {
			select {
			case <-ctx.Done():
			case <-s.room:
			}
			continue
		}
		fetches := client.PollRecords(ctx, n)
		if ctx.Err() == nil {
			s.take(fetches)
		}
		// Not before: a partition must not come and go between the poll and the
		// line, or records of its former time would count for the new one.
		client.AllowRebalance()
		if fetches.IsClientClosed() {
			return
		}
	}
}

// take puts fetched records in line.
func (s *Source) take(fetches kgo.Fetches) {
	s.mu.Lock()
	defer s.mu.Unlock()
	skipped := false
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if f.Err != nil {
			s.failed, s.failedAt = f.Err, time.Now()
		}
		p := s.parts[f.Partition]
		if p == nil || p.leaving {
			return
		}
		for _, r := range f.Records {
			s.failed = nil
			if e := p.take(r); e != nil {
				s.offer(e)
			}
		}
		skipped = skipped || p.dirty
	})
	if skipped {
		poke(s.kick)
	}
}

// trouble remembers why nothing comes.
func (s *Source) trouble(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed, s.failedAt = err, time.Now()
}
