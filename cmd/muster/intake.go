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
func (d *daemon) openQueue(ctx context.Context) (fleet.Queue, error) {
	q := &d.cfg.fleet.Spec.Queue
	embedded := d.db.Queue()
	if q.Type == "embedded" {
		return embedded, nil
	}
	decode, err := payload.New(d.cfg.fleet)
	if err != nil {
		return nil, err
	}
	if d.source, err = openSource(ctx, q, queueOptions{log: d.cfg.log, consumer: d.consumer()}); err != nil {
		return nil, err
	}
	visibility, err := duration("spec.queue.visibility", q.Visibility)
	if err != nil {
		return nil, err
	}
	d.intake, err = intake.New(intake.Config{
		Name: q.Type, Source: d.source, Embedded: embedded, Tasks: d.db, Messages: d.db, Journal: d.db,
		Decode: func(m fleet.Message) (fleet.Task, error) { return d.decode(decode, m) },
		Pool:   decode.Pool(), Visibility: visibility, MaxDeliveries: q.MaxDeliveries,
		DeadLetterFailed: q.OnFailure == "deadLetter", Logger: d.cfg.log,
	})
	return d.intake, err
}

// decode makes the task of a message and refuses what no node could ever hold.
func (d *daemon) decode(p *payload.Decoder, m fleet.Message) (fleet.Task, error) {
	now := time.Now()
	t, err := p.Decode(m, now)
	if err != nil {
		return t, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := d.server.Fits(ctx, "message", t.Spec); err != nil {
		return t, fmt.Errorf("the task can never start: %w", err)
	}
	t.ID = fleet.NewTaskID(now)
	return t, nil
}

// consumer names this control plane to an outside queue, the same after a
// restart.
func (d *daemon) consumer() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	return "muster-" + d.cfg.fleet.Metadata.Name + "-" + host
}

// closeQueue ends the connection to an outside queue.
func (d *daemon) closeQueue() error {
	if d.followed != nil {
		return d.followed.close()
	}
	if d.source == nil {
		return nil
	}
	err := d.source.Close()
	d.source = nil
	if err != nil {
		return errors.Join(errors.New("close the connection to the queue"), err)
	}
	return nil
}
