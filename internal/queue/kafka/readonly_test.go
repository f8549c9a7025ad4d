package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// requests are the keys of what a client asks, in order.
type requests struct {
	mu   sync.Mutex
	keys []int16
}

func (r *requests) dial(ctx context.Context, network, host string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, host)
	return &overheard{c, r}, err
}

type overheard struct {
	net.Conn
	r *requests
}

// Write takes one whole request: its length, then its key.
func (o *overheard) Write(b []byte) (int, error) {
	o.r.mu.Lock()
	o.r.keys = append(o.r.keys, int16(binary.BigEndian.Uint16(b[4:]))) //nolint:gosec // a key
	o.r.mu.Unlock()
	return o.Conn.Write(b)
}

// team is a group of others with one member, which commits when it is told.
type team struct {
	*queue
	member *kgo.Client
	adm    *kadm.Client
}

func newTeam(t *testing.T, q *queue) *team {
	t.Helper()
	m := q.server.Client(kgo.ConsumerGroup(q.cfg.Group), kgo.ConsumeTopics(q.cfg.Topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.ClientID("theirs"), kgo.DisableClientMetrics())
	t.Cleanup(m.Close)
	return &team{q, m, kadm.NewClient(q.producer)}
}

// work takes n records and commits them.
func (x *team) work(n int) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), 20*time.Second)
	defer cancel()
	for n > 0 {
		f := x.member.PollRecords(ctx, n)
		if err := f.Err0(); err != nil {
			x.t.Fatal(err)
		}
		if err := x.member.CommitRecords(ctx, f.Records()...); err != nil {
			x.t.Fatal(err)
		}
		n -= len(f.Records())
	}
}

// state is the group as the broker has it: members, generation, offsets.
func (x *team) state() string {
	x.t.Helper()
	groups, err := x.adm.DescribeGroups(x.t.Context(), x.cfg.Group)
	if err != nil {
		x.t.Fatal(err)
	}
	g := groups[x.cfg.Group]
	var s strings.Builder
	for _, m := range g.Members {
		fmt.Fprintln(&s, m.MemberID, m.ClientID)
	}
	offsets, err := x.adm.FetchOffsets(x.t.Context(), x.cfg.Group)
	if err != nil {
		x.t.Fatal(err)
	}
	fmt.Fprintln(&s, g.State, len(g.Members))
	for _, o := range offsets.Sorted() {
		fmt.Fprintln(&s, o.Topic, o.Partition, o.At, o.Metadata)
	}
	return s.String()
}

func (x *team) reader(n *requests, change func(*Config)) *Source {
	x.t.Helper()
	c := x.cfg
	c.ReadOnly, c.Member = true, "muster-0"
	if change != nil {
		change(&c)
	}
	if err := c.complete(); err != nil {
		x.t.Fatal(err)
	}
	s, err := start(x.t.Context(), c, n.dial)
	if err != nil {
		x.t.Fatal(err)
	}
	return closed(x.t, s)
}

// TestReadOnly: the readings follow what is published and committed, and nothing
// but questions is ever sent.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	x := newTeam(t, newQueue(t, servers.StartKafka(t), "tasks"))
	var asked requests
	s := x.reader(&asked, nil)
	is := func(backlog, arrived int64) {
		t.Helper()
		st, err := s.Stats(t.Context())
		if err != nil || st.Backlog != backlog || st.Arrived != arrived || st.InFlight != 0 || st.Dead != 0 || !st.Oldest.IsZero() {
			t.Errorf("read %+v, %v; want a backlog of %d, %d arrived", st, err, backlog, arrived)
		}
	}
	is(0, 0)
	x.bodies(10)
	is(10, 10) // nothing is committed
	x.work(4)
	before := x.state()
	is(6, 10)
	x.bodies(7)
	is(13, 17)
	for range 5 {
		is(13, 17)
	}
	if now := x.state(); now != before || strings.Count(before, " theirs\n") != 1 || !strings.Contains(before, "Stable 1\n") {
		t.Errorf("the group was\n%sand is\n%s", before, now)
	}
	x.work(13)
	is(0, 17)
	readOnlyRefuses(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	topics, err := x.adm.ListTopics(t.Context())
	if err != nil || topics.Has("tasks.dead") {
		t.Errorf("topics: %v, %v", topics.Names(), err)
	}
	asked.mu.Lock()
	defer asked.mu.Unlock()
	for _, key := range asked.keys {
		if !slices.Contains([]kmsg.Key{kmsg.ApiVersions, kmsg.Metadata, kmsg.FindCoordinator, kmsg.OffsetFetch, kmsg.ListOffsets}, kmsg.Key(key)) {
			t.Errorf("sent %s", kmsg.NameForKey(key))
		}
	}
	if len(asked.keys) < 30 {
		t.Errorf("overheard %d requests only", len(asked.keys))
	}
	// A commit that is read after the end may be past it.
	commits, ends := slices.Index(asked.keys, kmsg.OffsetFetch.Int16()), slices.Index(asked.keys, kmsg.ListOffsets.Int16())
	if commits < 0 || ends < commits {
		t.Errorf("offsets were asked for in the order %v", asked.keys)
	}
}

func readOnlyRefuses(t *testing.T, s *Source) {
	t.Helper()
	m := fleet.Message{ID: "tasks/0/0", Receipt: "x.1"}
	_, received := s.Receive(t.Context(), 1, time.Minute)
	_, extended := s.Extend(t.Context(), m, time.Minute)
	for _, err := range []error{received, extended, s.Ack(t.Context(), m), s.Nack(t.Context(), m, 0), s.DeadLetter(t.Context(), m, "bad")} {
		if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), "read only") {
			t.Errorf("got %v, want that it is read only", err)
		}
	}
}

// TestReadOnlyMuster: the group of another Muster: what it runs counts, what it
// settled out of order does not, and what it set aside is counted where asked.
func TestReadOnlyMuster(t *testing.T) {
	t.Parallel()
	x := newTeam(t, newQueue(t, servers.StartKafka(t), "tasks"))
	x.member.Close()
	other := closed(t, x.source())
	x.bodies(20)
	for i, m := range x.receive(other, 12, time.Minute) {
		var err error
		switch {
		case i%3 == 1:
			err = other.Ack(t.Context(), m)
		case i == 3:
			err = other.DeadLetter(t.Context(), m, "bad")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s := x.reader(&requests{}, func(c *Config) { c.DeadTopic = "tasks.dead" })
	if tr := s.Traits(); tr != (fleet.SignalTraits{Arrived: true, Dead: true}) {
		t.Errorf("traits %+v", tr)
	}
	x.until(s, "15 of 20 not settled, one set aside", func(st fleet.SignalStats) bool {
		return st.Backlog == 15 && st.InFlight == 0 && st.Dead == 1 && st.Arrived == 20
	})
}

// TestReadOnlyConformance: the suite of what can only be read.
func TestReadOnlyConformance(t *testing.T) {
	const secret = "0penSesame"
	server := servers.StartKafka(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "muster", secret))
	login := kgo.SASL(plain.Auth{User: "muster", Pass: secret}.AsMechanism())
	n := 0
	queuetest.RunSignal(t, func(t *testing.T) queuetest.Measured {
		n++
		topic := fmt.Sprint("tasks", n)
		server.Topic(topic, partitions)
		gate := queuetest.NewGate(t, server.Address)
		return queuetest.Measured{
			Gate: gate, Secret: secret,
			Set: func(n int64) { readOnlySet(t, server, login, topic, n) },
			Open: func(t *testing.T, credential func(context.Context) (string, error)) fleet.Signal {
				c := Config{Brokers: []string{gate.Address}, Topic: topic, Group: topic, ReadOnly: true, Mechanism: "PLAIN", User: "muster", Password: connect.Credential(credential)}
				if err := c.complete(); err != nil {
					t.Fatal(err)
				}
				// The broker says its own address; the gate stands before that too.
				s, err := start(t.Context(), c, func(ctx context.Context, network, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, network, gate.Address)
				})
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
		}
	})
}

// readOnlySet has a group all but n records of a topic behind it.
func readOnlySet(t *testing.T, server *servers.Kafka, login kgo.Opt, topic string, n int64) {
	t.Helper()
	c := server.Client(login)
	defer c.Close()
	info := server.Cluster().PartitionInfos(topic)
	var all int64
	for _, p := range info {
		all += p.HighWatermark
	}
	if more := n - all; more > 0 {
		if err := server.Fill(t.Context(), topic, int(more), login); err != nil {
			t.Fatal(err)
		}
	}
	offsets := kadm.Offsets{}
	for _, p := range server.Cluster().PartitionInfos(topic) {
		left := min(n, p.HighWatermark)
		n -= left
		offsets.AddOffset(topic, p.Partition, p.HighWatermark-left, -1)
	}
	if err := kadm.NewClient(c).CommitAllOffsets(t.Context(), topic, offsets); err != nil {
		t.Fatal(err)
	}
}
