package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/intake"
	"muster.dev/muster/internal/payload"
)

// openQueue is the queue that the fleet works off: the embedded one, and the
// outside one where the fleet names one.
func (u *unit) openQueue(ctx context.Context) (fleet.Queue, error) {
	q := &u.fleet.Spec.Queue
	embedded := u.embedded
	if q.Type == "embedded" {
		return embedded, nil
	}
	decode, err := payload.New(u.fleet)
	if err != nil {
		return nil, err
	}
	if u.source, err = openSource(ctx, q, queueOptions{log: u.log, consumer: u.consumer()}); err != nil {
		return nil, err
	}
	visibility, err := duration("spec.queue.visibility", q.Visibility)
	if err != nil {
		return nil, err
	}
	u.intake, err = intake.New(intake.Config{
		Name: q.Type, Source: u.source, Embedded: embedded, Tasks: u.store, Messages: u.store, Journal: u.store,
		Decode: func(m fleet.Message) (fleet.Task, error) { return u.decode(decode, m) },
		Pool:   decode.Pool(), Visibility: visibility, MaxDeliveries: q.MaxDeliveries,
		DeadLetterFailed: q.OnFailure == "deadLetter", Logger: u.log,
	})
	return u.intake, err
}

// decode makes the task of a message and refuses what no node could ever hold.
func (u *unit) decode(p *payload.Decoder, m fleet.Message) (fleet.Task, error) {
	now := time.Now()
	t, err := p.Decode(m, now)
	if err != nil {
		return t, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := u.server.Fits(ctx, "message", t.Spec); err != nil {
		return t, fmt.Errorf("the task can never start: %w", err)
	}
	t.ID = fleet.NewTaskID(now)
	return t, nil
}

// consumer names this control plane to an outside queue, the same after a
// restart.
func (u *unit) consumer() string {
	if u.name != "" {
		return u.name
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	return "muster-" + u.fleet.Metadata.Name + "-" + host
}

// closeQueue ends the connection to an outside queue.
func (u *unit) closeQueue() error {
	if u.followed != nil {
		return u.followed.close()
	}
	if u.source == nil {
		return nil
	}
	err := u.source.Close()
	u.source = nil
	if err != nil {
		return errors.Join(errors.New("close the connection to the queue"), err)
	}
	return nil
}
