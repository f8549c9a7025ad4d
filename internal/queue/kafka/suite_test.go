package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 4

// network dials until it is cut, as when a process is killed; frozen, nothing
// passes and nothing breaks.
type network struct {
	mu    sync.Mutex
	conns []net.Conn
	isCut bool
	ice   chan struct{} // closed when thawed; nil: not frozen
}

func (n *network) dial(ctx context.Context, kind, host string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.isCut {
		return nil, errors.New("no network")
	}
	c, err := (&net.Dialer{}).DialContext(ctx, kind, host)
	if err == nil {
		c = &conn{Conn: c, n: n, gone: make(chan struct{})}
		n.conns = append(n.conns, c)
	}
	return c, err
}

func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.isCut = true
	for _, c := range n.conns {
		_ = c.Close()
	}
}

func (n *network) freeze() (thaw func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ice = make(chan struct{})
	return sync.OnceFunc(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		close(n.ice)
		n.ice = nil
	})
}

type conn struct {
	net.Conn
	n    *network
	gone chan struct{}
	once sync.Once
}

// Read withholds what came while the network is frozen.
func (c *conn) Read(b []byte) (int, error) {
	k, err := c.Conn.Read(b)
	c.n.mu.Lock()
	ice := c.n.ice
	c.n.mu.Unlock()
	if ice != nil && err == nil {
		select {
		case <-ice:
		case <-c.gone:
			return 0, net.ErrClosed
		}
	}
	return k, err
}

func (c *conn) Close() error {
	c.once.Do(func() { close(c.gone) })
	return c.Conn.Close()
}

// queue is a topic with its consumers.
type queue struct {
	t      testing.TB
	server *servers.Kafka
	cfg    Config

	mu       sync.Mutex
	open     map[*Source]*network
	producer *kgo.Client
}

func newQueue(t testing.TB, server *servers.Kafka, topic string) *queue {
	t.Helper()
	server.Topic(topic, partitions)
	q := &queue{
		t: t, server: server, open: map[*Source]*network{},
		cfg:      Config{Brokers: []string{server.Address}, Topic: topic, Group: topic, Session: 3 * time.Second},
		producer: server.Client(kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.ProducerLinger(0)),
	}
	t.Cleanup(q.producer.Close)
	return q
}

// source opens a consumer and waits until each has its part of the topic.
func (q *queue) source() *Source {
	q.t.Helper()
	n := &network{}
	c := q.cfg
	if err := c.complete(); err != nil {
		q.t.Fatal(err)
	}
	s, err := start(q.t.Context(), c, n.dial)
	if err != nil {
		q.t.Fatal(err)
	}
	q.mu.Lock()
	q.open[s] = n
	q.mu.Unlock()
	for end := time.Now().Add(20 * time.Second); !q.settledDown(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			q.t.Fatal("the group does not settle")
		}
	}
	return s
}

func (q *queue) settledDown() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := 0
	for s, n := range q.open {
		n.mu.Lock()
		cut := n.isCut
		n.mu.Unlock()
		s.mu.Lock()
		has, closed := len(s.parts), s.closed
		for _, p := range s.parts {
			if p.leaving {
				has = 0
			}
		}
		s.mu.Unlock()
		if cut || closed {
			continue
		}
		if has == 0 {
			return false
		}
		all += has
	}
	return all == partitions
}

func (q *queue) publish(ctx context.Context, sent ...queuetest.Sent) error {
	var rs []*kgo.Record
	for _, m := range sent {
		r := &kgo.Record{Value: m.Body}
		for k, v := range m.Headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: k, Value: []byte(v)})
		}
		rs = append(rs, r)
	}
	return q.producer.ProduceSync(ctx, rs...).FirstErr()
}

// records reads all there are in a topic.
func (q *queue) records(ctx context.Context, topic string) ([]*kgo.Record, error) {
	c := q.server.Client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer c.Close()
	ends, err := kadm.NewClient(c).ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	var want int64
	ends.Each(func(o kadm.ListedOffset) { want += o.Offset })
	var out []*kgo.Record
	for int64(len(out)) < want {
		f := c.PollFetches(ctx)
		if err := f.Err0(); err != nil {
			return nil, err
		}
		out = append(out, f.Records()...)
	}
	return out, nil
}

func (q *queue) dead(ctx context.Context) (sent []queuetest.Sent, why []string, _ error) {
	rs, err := q.records(ctx, q.cfg.Topic+".dead")
	for _, r := range rs {
		m := queuetest.Sent{Body: r.Value, Headers: map[string]string{}}
		for _, h := range r.Headers {
			m.Headers[h.Key] = string(h.Value)
		}
		sent, why = append(sent, m), append(why, m.Headers[HeaderReason])
	}
	return sent, why, err
}

func TestConformance(t *testing.T) {
	server := servers.StartKafka(t)
	n := 0
	queuetest.RunSource(t, func(t *testing.T) queuetest.Outside {
		n++
		q := newQueue(t, server, fmt.Sprint("tasks", n))
		return queuetest.Outside{
			Open:    func(*testing.T) fleet.Source { return q.source() },
			Publish: q.publish,
			Dead:    q.dead,
			Crash: func(s fleet.Source) {
				q.open[s.(*Source)].cut() //nolint:forcetypeassert // we opened it
				t.Cleanup(func() { _ = s.Close() })
			},
			Restart: func(down time.Duration) {
				server.Stop()
				time.Sleep(down)
				server.Start()
			},
			Fill:    func(ctx context.Context, n int) error { return server.Fill(ctx, q.cfg.Topic, n) },
			Headers: true,
			Slow:    2,
		}
	})
}
