package kafka

import (
	"testing"
	"time"

	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// BenchmarkWake is the time from before a message is published, publishing
// included, until Wake tells of it.
func BenchmarkWake(b *testing.B) {
	q := newQueue(b, servers.StartKafka(b), "tasks")
	s := q.source()
	defer s.Close()
	for b.Loop() {
		if err := q.publish(b.Context(), queuetest.Sent{Body: []byte("x")}); err != nil {
			b.Fatal(err)
		}
		<-s.Wake()
		b.StopTimer()
		for _, m := range q.receive(s, 1, time.Minute) {
			if err := s.Ack(b.Context(), m); err != nil {
				b.Fatal(err)
			}
		}
		for len(s.wake) > 0 {
			<-s.wake
		}
		b.StartTimer()
	}
}

// BenchmarkStats reads a queue of a million messages.
func BenchmarkStats(b *testing.B) {
	server := servers.StartKafka(b)
	q := newQueue(b, server, "tasks")
	if err := server.Fill(b.Context(), "tasks", 1_000_000); err != nil {
		b.Fatal(err)
	}
	s := q.source()
	defer s.Close()
	for b.Loop() {
		if _, err := s.Stats(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAck settles messages while one at the head of each partition runs on.
func BenchmarkAck(b *testing.B) {
	server := servers.StartKafka(b)
	q := newQueue(b, server, "tasks")
	if err := server.Fill(b.Context(), "tasks", 1_000_000); err != nil {
		b.Fatal(err)
	}
	s := q.source()
	defer s.Close()
	q.receive(s, 1, time.Hour)
	b.ResetTimer()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m, err := s.Receive(b.Context(), 1, time.Minute)
			for len(m) == 0 && err == nil {
				time.Sleep(100 * time.Microsecond)
				m, err = s.Receive(b.Context(), 1, time.Minute)
			}
			if err == nil {
				err = s.Ack(b.Context(), m[0])
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}
