package queues

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	sdk "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"muster.dev/muster/internal/queue/queuetest/servers"
)

// openNATS makes a stream of JetStream with work-queue retention.
func openNATS(t testing.TB) *Queue {
	t.Helper()
	s := servers.NATS(t, "")
	nc, err := sdk.Connect(s.URL("nats"), sdk.MaxReconnects(-1), sdk.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{
		Name: "TASKS", Subjects: []string{"tasks.>"}, Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage,
	}); err != nil {
		t.Fatal(err)
	}
	return &Queue{
		Block: fmt.Sprintf(`type: nats, nats: {servers: ["%s"], stream: TASKS}`, s.URL("nats")),
		Send: func(ctx context.Context, bodies ...string) error {
			acks := make([]jetstream.PubAckFuture, len(bodies))
			for i, b := range bodies {
				var err error
				if acks[i], err = js.PublishAsync("tasks.run", []byte(b)); err != nil {
					return err
				}
			}
			for _, a := range acks {
				select {
				case <-a.Ok():
				case err := <-a.Err():
					return err
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		},
		Count: func(ctx context.Context) (Count, error) {
			st, err := js.Stream(ctx, "TASKS")
			if err != nil {
				return Count{}, err
			}
			n := Count{Waiting: int64(st.CachedInfo().State.Msgs)} //nolint:gosec // few
			c, err := js.Consumer(ctx, "TASKS", "muster")
			if errors.Is(err, jetstream.ErrConsumerNotFound) {
				return n, nil // nobody has read yet
			}
			if err != nil {
				return Count{}, err
			}
			n.Held = int64(c.CachedInfo().NumAckPending)
			n.Waiting -= n.Held
			return n, nil
		},
		Dead: func(ctx context.Context) ([]Dead, error) { return natsDead(ctx, js) },
		Others: func(ctx context.Context) error {
			_, err := js.CreateConsumer(ctx, "TASKS", jetstream.ConsumerConfig{Durable: "muster", AckPolicy: jetstream.AckExplicitPolicy})
			return err
		},
		Drain: func(ctx context.Context) error {
			st, err := js.Stream(ctx, "TASKS")
			if err != nil {
				return err
			}
			return st.Purge(ctx)
		},
		Stop: s.Stop, Start: s.Process.Start,
	}
}

func natsDead(ctx context.Context, js jetstream.JetStream) ([]Dead, error) {
	d, err := js.Stream(ctx, "TASKS_DEAD")
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Dead
	st := d.CachedInfo().State
	for seq := st.FirstSeq; st.Msgs > 0 && seq <= st.LastSeq; seq++ {
		m, err := d.GetMsg(ctx, seq)
		if err != nil {
			return nil, err
		}
		out = append(out, Dead{string(m.Data), m.Header.Get("Muster-Reason")})
	}
	return out, nil
}
