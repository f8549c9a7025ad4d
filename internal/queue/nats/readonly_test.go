package nats

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"muster.dev/muster/internal/fleet"
)

// state is all that the server keeps of a stream and its consumers, but for
// the time of day and who waits.
func (r *rig) state(t *testing.T, stream string) string {
	t.Helper()
	var out []any
	names := []string{}
	for n := range r.js.StreamNames(t.Context()).Name() {
		names = append(names, n)
	}
	slices.Sort(names)
	s, err := r.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, names, s.CachedInfo().Config, s.CachedInfo().State)
	for c := range s.ListConsumers(t.Context()).Info() {
		out = append(out, c.Name, c.Config, c.NumPending, c.NumAckPending, c.NumRedelivered, c.NumWaiting, c.Delivered, c.AckFloor)
	}
	b, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A queue that others work off: the readings follow, nothing changes.
func TestReadOnly(t *testing.T) {
	r, c := queueOf(t)
	c.ReadOnly, c.Consumer = true, "team"
	s := r.open(t, c)
	defer s.Close()
	r.send(t, c, "1", "2", "3")
	before := r.state(t, c.Stream)
	for range 2 { // nor is a consumer that is missing made by the second call
		_, err := s.Stats(t.Context())
		wants(t, "no consumer", err, fleet.ErrNotFound)
	}
	if after := r.state(t, c.Stream); after != before {
		t.Errorf("without a consumer\n%s\nbecame\n%s", before, after)
	}
	team, err := r.js.CreateConsumer(t.Context(), c.Stream, jetstream.ConsumerConfig{Durable: "team", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	same := func(what string, backlog, inFlight int64) {
		t.Helper()
		before := r.state(t, c.Stream)
		for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			st, err := s.Stats(t.Context())
			if err != nil || st.Backlog != backlog || st.InFlight != inFlight || st.Oldest.IsZero() != (backlog == 0) || st.Arrived != 3 || st.Dead != 0 {
				t.Fatalf("%s: %+v, %v; want %d and %d in flight", what, st, err, backlog, inFlight)
			}
		}
		if after := r.state(t, c.Stream); after != before {
			t.Errorf("%s:\n%s\nbecame\n%s", what, before, after)
		}
	}
	same("all wait", 3, 0)
	m, err := team.Next()
	if err != nil {
		t.Fatal(err)
	}
	same("one is worked on", 2, 1)
	if err := m.DoubleAck(t.Context()); err != nil {
		t.Fatal(err)
	}
	same("one is done", 2, 0)
	got, err := team.Fetch(2)
	if err != nil {
		t.Fatal(err)
	}
	for m := range got.Messages() {
		if err := m.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	same("all is done", 0, 0)
	if tr := s.Traits(); tr.Push || s.Wake() != nil || tr.Dead || !tr.Oldest || !tr.InFlight {
		t.Errorf("traits %+v", tr)
	}
	_, err = s.Receive(t.Context(), 1, time.Minute)
	wants(t, "receive", err, fleet.ErrInvalid)
	_, err = s.Extend(t.Context(), fleet.Message{}, time.Minute)
	wants(t, "extend", err, fleet.ErrInvalid)
	wants(t, "ack", s.Ack(t.Context(), fleet.Message{}), fleet.ErrInvalid)
	wants(t, "nack", s.Nack(t.Context(), fleet.Message{}, 0), fleet.ErrInvalid)
	wants(t, "dead-letter", s.DeadLetter(t.Context(), fleet.Message{}, "no"), fleet.ErrInvalid)
}

// Consumers that Muster could not work through can be read all the same.
func TestReadOnlyConsumers(t *testing.T) {
	r, c := queueOf(t)
	c.Stream = r.stream(t, jetstream.StreamConfig{})
	r.send(t, c, "1")
	for name, tt := range map[string]struct {
		policy jetstream.AckPolicy
		kind   error
	}{"all": {jetstream.AckAllPolicy, nil}, "none": {jetstream.AckNonePolicy, fleet.ErrInvalid}} {
		if _, err := r.js.CreatePushConsumer(t.Context(), c.Stream, jetstream.ConsumerConfig{Durable: name, DeliverSubject: "to." + name, AckPolicy: tt.policy}); err != nil {
			t.Fatal(err)
		}
		c.ReadOnly, c.Consumer = true, name
		s := r.open(t, c)
		defer s.Close()
		st, err := s.Stats(t.Context())
		if tt.kind != nil {
			wants(t, name, err, tt.kind)
		} else if err != nil || st.Backlog != 1 {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
	}
}
