package queues

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"muster.dev/muster/internal/queue/queuetest/servers"
)

type rabbit struct {
	*servers.RabbitMQ
	seq int
}

// openRabbitMQ is a quorum queue.
func openRabbitMQ(t testing.TB) *Queue {
	t.Helper()
	r := &rabbit{RabbitMQ: servers.StartRabbitMQ(t, servers.RabbitMQSetup{})}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := r.with(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare("tasks", true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.count(ctx); err != nil {
		t.Fatal(err)
	}
	return &Queue{
		Block: fmt.Sprintf(`type: rabbitmq, rabbitmq: {addresses: ["%s"], username: %s, password: {file: %q}, queue: tasks, management: "%s"}`,
			r.Address, r.User, secret(t, r.Password), r.Management),
		Send: r.send, Count: r.count, Lag: 6 * time.Second, // a quorum queue tells its counts every 5 s
		Dead: r.dead, Stop: r.Stop, Start: r.Process.Start,
	}
}

// with lends a channel of a connection of its own, since the tests restart the
// server.
func (r *rabbit) with(do func(*amqp.Channel) error) error {
	c, err := amqp.DialConfig("amqp://"+r.Address, amqp.Config{
		SASL: []amqp.Authentication{&amqp.PlainAuth{Username: r.User, Password: r.Password}}, Vhost: "/",
	})
	if err != nil {
		return err
	}
	defer c.Close()
	ch, err := c.Channel()
	if err != nil {
		return err
	}
	return do(ch)
}

func (r *rabbit) send(ctx context.Context, bodies ...string) error {
	return r.with(func(ch *amqp.Channel) error {
		if err := ch.Confirm(false); err != nil {
			return err
		}
		var all []*amqp.DeferredConfirmation
		for _, b := range bodies {
			r.seq++
			c, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", "tasks", true, false,
				amqp.Publishing{Body: []byte(b), DeliveryMode: amqp.Persistent, MessageId: fmt.Sprint("message-", r.seq)})
			if err != nil {
				return err
			}
			all = append(all, c)
		}
		for _, c := range all {
			if ok, err := c.WaitContext(ctx); err != nil || !ok {
				return errors.Join(err, errors.New("not confirmed"))
			}
		}
		return nil
	})
}

// count asks the management API, whose counters follow a moment later.
func (r *rabbit) count(ctx context.Context) (n Count, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.Management+"/api/queues/%2F/tasks", nil)
	if err != nil {
		return n, err
	}
	req.SetBasicAuth(r.User, r.Password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return n, err
	}
	defer resp.Body.Close()
	var q struct {
		Ready   int64 `json:"messages_ready"`
		Unacked int64 `json:"messages_unacknowledged"`
	}
	if resp.StatusCode != http.StatusOK {
		return n, fmt.Errorf("management API: %s", resp.Status)
	}
	err = json.NewDecoder(resp.Body).Decode(&q)
	return Count{Waiting: q.Ready, Held: q.Unacked}, err
}

// dead looks at what was set aside and leaves it there.
func (r *rabbit) dead(context.Context) (out []Dead, err error) {
	err = r.with(func(ch *amqp.Channel) error {
		for {
			d, ok, err := ch.Get("tasks.dead", false) // goes back as the channel closes
			var closed *amqp.Error
			if errors.As(err, &closed) && closed.Code == amqp.NotFound {
				return nil // nothing was set aside yet
			}
			if err != nil || !ok {
				return err
			}
			out = append(out, Dead{string(d.Body), fmt.Sprint(d.Headers["x-muster-reason"])})
		}
	})
	return out, err
}
