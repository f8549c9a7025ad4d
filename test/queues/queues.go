package queues

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Backend is one kind of queue.
type Backend struct {
	Name string // its type in the fleet, and what of it is used
	// Durable: a control plane that comes back holds what it held.
	Durable bool
	Open    func(testing.TB) *Queue
}

// All are the queues that tasks can be taken from.
func All() []Backend {
	return []Backend{
		{"redis", true, openRedisList},
		{"redis-stream", true, openRedisStream},
		{"rabbitmq", false, openRabbitMQ},
		{"sqs", true, openSQS},
		{"nats", true, openNATS},
		{"postgres", true, openPostgres},
		{"kafka", false, openKafka},
	}
}

// Named is the backend with the name.
func Named(name string) (Backend, error) {
	var names []string
	for _, b := range All() {
		if b.Name == name {
			return b, nil
		}
		names = append(names, b.Name)
	}
	return Backend{}, fmt.Errorf("there is no queue %q; want one of %s", name, strings.Join(names, ", "))
}

// Queue is an empty queue on a running server, both ended with the test.
type Queue struct {
	// Block is spec.queue of a fleet, as YAML in one line.
	Block string
	// Send sends messages, in order, and returns once the server has them.
	Send func(ctx context.Context, bodies ...string) error
	// Count is what the server itself says of the queue.
	Count func(context.Context) (Count, error)
	// Lag is how old what the server says may be.
	Lag time.Duration
	// Dead is what was set aside.
	Dead func(context.Context) ([]Dead, error)
	// Drain takes all that waits, as other workers would; nil where no test needs
	// it.
	Drain func(context.Context) error
	// Others makes what the team's own workers consume with, which whoever only
	// reads does not make; nil where there is nothing of the kind.
	Others func(context.Context) error
	// Members counts the consumers that the server gives a part of the queue to;
	// nil where it does not.
	Members func(context.Context) (int, error)
	// Stop ends the server in order, and Start starts it again with what it kept.
	Stop, Start func()
}

// Count is in messages; what cannot be told apart is in Waiting.
type Count struct {
	Waiting, Held int64
	// Deliveries is how often the message that is held was delivered, where one
	// is held and the server tells; else 0.
	Deliveries int64
}

// Dead is a message that was set aside.
type Dead struct{ Body, Reason string }

// WaitEmpty waits until the server counts no message, neither waiting nor held.
func (q *Queue) WaitEmpty(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	since := time.Time{}
	for {
		n, err := q.Count(ctx)
		switch now := time.Now(); {
		case err != nil || n.Waiting+n.Held > 0:
			since = time.Time{}
		case since.IsZero():
			since = now
		}
		if !since.IsZero() && time.Since(since) >= q.Lag {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the queue is not empty after %s: %d wait and %d are held", within, n.Waiting, n.Held), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// secret writes a credential into a file of its own and returns its path.
func secret(t testing.TB, value string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
