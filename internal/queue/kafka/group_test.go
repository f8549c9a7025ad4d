package kafka

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// bodies publishes numbered messages.
func (q *queue) bodies(n int) {
	q.t.Helper()
	var sent []queuetest.Sent
	for i := range n {
		sent = append(sent, queuetest.Sent{Body: fmt.Append(nil, "m", i)})
	}
	if err := q.publish(q.t.Context(), sent...); err != nil {
		q.t.Fatal(err)
	}
}

// receive waits for n messages.
func (q *queue) receive(s *Source, n int, visibility time.Duration) (out []fleet.Message) {
	q.t.Helper()
	for end := time.Now().Add(20 * time.Second); len(out) < n; time.Sleep(5 * time.Millisecond) {
		m, err := s.Receive(q.t.Context(), n-len(out), visibility)
		if out = append(out, m...); time.Now().After(end) {
			q.t.Fatalf("%d of %d messages came (%v)", len(out), n, err)
		}
	}
	return out
}

// until waits for a reading.
func (q *queue) until(s *Source, what string, ok func(fleet.SignalStats) bool) {
	q.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		st, err := s.Stats(q.t.Context())
		if err == nil && ok(st) {
			return
		}
		if time.Now().After(end) {
			q.t.Fatalf("want %s, read %+v, %v", what, st, err)
		}
	}
}

func closed(t testing.TB, s *Source) *Source {
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestCrashKeepsCount: what was settled out of order does not come again after
// a crash, though the mark could not move; the rest does, with its count.
func TestCrashKeepsCount(t *testing.T) {
	t.Parallel()
	q := newQueue(t, servers.StartKafka(t), "tasks")
	first := closed(t, q.source())
	q.bodies(40)
	held := map[string]int{}
	settled := map[string]bool{}
	for i, m := range q.receive(first, 30, time.Minute) {
		switch i % 3 {
		case 0: // runs on
			held[m.ID] = 1
		case 1:
			if err := first.Ack(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			settled[m.ID] = true
		case 2: // fails once and runs again
			if err := first.Nack(t.Context(), m, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	var last fleet.Message
	for _, m := range q.receive(first, 20, time.Minute) {
		if held[m.ID] = m.Attempt; m.Attempt == 2 {
			last = m
		}
	}
	if err := first.Ack(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	settled[last.ID] = true
	delete(held, last.ID)
	time.Sleep(200 * time.Millisecond) // the count of the last Receive is written soon after it
	q.open[first].cut()

	second := closed(t, q.source())
	got := map[string]bool{}
	for _, m := range q.receive(second, len(held), time.Minute) {
		if settled[m.ID] || got[m.ID] {
			t.Errorf("%s was settled, or came twice", m.ID)
		}
		got[m.ID] = true
		if m.Attempt != held[m.ID]+1 {
			t.Errorf("%s: delivery %d, after %d before the crash", m.ID, m.Attempt, held[m.ID])
		}
		if err := second.Ack(t.Context(), m); err != nil {
			t.Error(err)
		}
	}
	q.until(second, "nothing left", func(st fleet.SignalStats) bool { return st.Backlog == 0 && st.InFlight == 0 })
}

// TestHandover: a partition moves once its task has ended, or its time is up.
func TestHandover(t *testing.T) {
	t.Parallel()
	server := servers.StartKafka(t)
	for _, span := range []time.Duration{time.Minute, 300 * time.Millisecond} {
		t.Run(span.String(), func(t *testing.T) {
			q := newQueue(t, server, "tasks-"+span.String())
			q.cfg.Handover = &span
			first := closed(t, q.source())
			q.bodies(8)
			held := q.receive(first, 8, time.Minute)
			opened := make(chan *Source)
			go func() { opened <- q.source() }()
			if span == time.Minute {
				for leaving := false; !leaving; time.Sleep(10 * time.Millisecond) {
					first.mu.Lock()
					for _, p := range first.parts {
						leaving = leaving || p.leaving
					}
					first.mu.Unlock()
				}
				for _, m := range held {
					if err := first.Ack(t.Context(), m); err != nil {
						t.Errorf("ack while the partition waits: %v", err)
					}
				}
				second := closed(t, <-opened)
				q.until(second, "nothing left", func(st fleet.SignalStats) bool { return st.Backlog == 0 && st.InFlight == 0 })
				return
			}
			second := closed(t, <-opened)
			lost := 0
			for _, m := range held {
				_, err := first.Extend(t.Context(), m, time.Minute)
				if acked := first.Ack(t.Context(), m); errors.Is(err, fleet.ErrFenced) != errors.Is(acked, fleet.ErrFenced) {
					t.Errorf("extend: %v, ack: %v", err, acked)
				} else if err != nil {
					lost++
				}
			}
			if lost == 0 || lost == len(held) {
				t.Errorf("%d of %d leases were lost", lost, len(held))
			}
			for _, m := range q.receive(second, lost, time.Minute) {
				if m.Attempt != 2 {
					t.Errorf("delivery %d, want 2", m.Attempt)
				}
			}
		})
	}
}

// TestMadeAnew: a topic that is deleted and created again has new messages at
// old offsets; they come, under other names.
func TestMadeAnew(t *testing.T) {
	t.Parallel()
	server := servers.StartKafka(t)
	q := newQueue(t, server, "tasks")
	s := closed(t, q.source())
	q.bodies(8)
	ids := map[string]bool{}
	for _, m := range q.receive(s, 8, time.Minute) {
		ids[m.ID] = true
		if err := s.Ack(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Cluster().DeleteTopic("tasks"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stats(t.Context()); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("a queue deleted while in use: %v, want ErrNotFound", err)
	}
	server.Topic("tasks", partitions)
	fresh := server.Client(kgo.DefaultProduceTopic("tasks"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	defer fresh.Close()
	for range 4 {
		if err := fresh.ProduceSync(t.Context(), &kgo.Record{Value: []byte("new")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	// A control plane reads all the time, which is how the change is noticed.
	end := time.Now().Add(30 * time.Second)
	for got := 0; got < 4; time.Sleep(20 * time.Millisecond) {
		_, _ = s.Stats(t.Context())
		m, err := s.Receive(t.Context(), 4, time.Minute)
		for _, x := range m {
			if ids[x.ID] {
				t.Errorf("%s names two messages", x.ID)
			}
			got++
		}
		if time.Now().After(end) {
			t.Fatalf("%d of 4 new messages came (%v)", got, err)
		}
	}
}

// TestRetention: what was removed unread is no backlog, and is told.
func TestRetention(t *testing.T) {
	t.Parallel()
	server := servers.StartKafka(t)
	q := newQueue(t, server, "tasks")
	if err := server.Fill(t.Context(), "tasks", 40_000); err != nil { // 10,000 a partition
		t.Fatal(err)
	}
	var log bytes.Buffer
	q.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	s := closed(t, q.source())
	q.receive(s, 1, time.Minute)
	q.until(s, "all", func(st fleet.SignalStats) bool { return st.Backlog == 39_999 })
	if err := server.Cluster().DeleteRecords("tasks", 0, 9_000); err != nil {
		t.Fatal(err)
	}
	// What is in memory already is still worked off.
	q.until(s, "less", func(st fleet.SignalStats) bool { return st.Backlog < 31_500 && st.Backlog >= 30_999 })
	if !strings.Contains(log.String(), "removed before they were worked off") {
		t.Errorf("nothing was told: %s", log.String())
	}
	// While nobody reads, as well.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	log.Reset()
	if err := server.Cluster().DeleteRecords("tasks", 1, 5_000); err != nil {
		t.Fatal(err)
	}
	again := closed(t, q.source())
	if !strings.Contains(log.String(), "partition=1") {
		t.Errorf("nothing was told: %s", log.String())
	}
	q.until(again, "less", func(st fleet.SignalStats) bool { return st.Backlog == 1_000+5_000+20_000 })
}

// TestTransactions: records of an open transaction are no messages, rolled-back
// ones never become any, and markers do not count.
func TestTransactions(t *testing.T) {
	t.Parallel()
	server := servers.StartKafka(t)
	q := newQueue(t, server, "tasks")
	s := closed(t, q.source())
	c := server.Client(kgo.DefaultProduceTopic("tasks"), kgo.TransactionalID("producer"))
	defer c.Close()
	for _, end := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		if err := c.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := c.ProduceSync(t.Context(), &kgo.Record{Value: fmt.Append(nil, bool(end))}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if m, err := s.Receive(t.Context(), 1, time.Minute); err != nil || len(m) > 0 {
			t.Errorf("of an open transaction: %v, %v", m, err)
		}
		if err := c.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	m := q.receive(s, 1, time.Minute)[0]
	if string(m.Body) != "true" {
		t.Errorf("received %q, which was rolled back", m.Body)
	}
	if err := s.Ack(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	q.until(s, "nothing left", func(st fleet.SignalStats) bool { return st.Backlog == 0 && st.InFlight == 0 })
}
