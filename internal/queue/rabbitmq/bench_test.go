package rabbitmq

import (
	"context"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"muster.dev/muster/internal/queue/queuetest/servers"
)

// BenchmarkBroker measures, while a sandbox waits: from a publish to the wake,
// and to the leased message; and a reading.
func BenchmarkBroker(b *testing.B) {
	s := servers.StartRabbitMQ(b, servers.RabbitMQSetup{})
	for _, kind := range []string{"classic", "quorum"} {
		q, err := New(b.Context(), mode{create: kind}.config(s, "bench "+kind))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := q.Stats(b.Context()); err != nil {
			b.Fatal(err)
		}
		p := producer{t: b, server: s, queue: "bench " + kind}
		err = p.with(func(ch *amqp.Channel) error {
			b.Run("wake/"+kind, func(b *testing.B) { wakes(b, q, ch, p.queue) })
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Run("stats/"+kind, func(b *testing.B) {
			for b.Loop() {
				if _, err := q.Stats(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		if err := q.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func wakes(b *testing.B, q *Source, ch *amqp.Channel, queue string) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	var woken, leased time.Duration
	for range b.N {
		b.StopTimer()
		if m, err := q.Receive(ctx, 2, time.Minute); err != nil || len(m) != 0 {
			b.Fatal(len(m), err)
		}
		for armed := false; !armed; time.Sleep(time.Millisecond) {
			q.mu.Lock()
			armed = q.sess != nil && q.sess.armed
			q.mu.Unlock()
		}
		select {
		case <-q.Wake():
		default:
		}
		b.StartTimer()
		start := time.Now()
		if err := ch.PublishWithContext(ctx, "", queue, false, false, amqp.Publishing{Body: []byte("x"), DeliveryMode: amqp.Persistent}); err != nil {
			b.Fatal(err)
		}
		select {
		case <-q.Wake():
		case <-ctx.Done():
			b.Fatal("not woken")
		}
		woken += time.Since(start)
		m, err := q.Receive(ctx, 1, time.Minute)
		if err != nil || len(m) != 1 {
			b.Fatal(len(m), err)
		}
		leased += time.Since(start)
		b.StopTimer()
		if err := q.Ack(ctx, m[0]); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(woken.Microseconds())/float64(b.N), "us/wake")
	b.ReportMetric(float64(leased.Microseconds())/float64(b.N), "us/leased")
}
