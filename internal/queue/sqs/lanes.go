package sqs

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"muster.dev/muster/internal/fleet"
)

// maxLanes bounds the batches of one kind that are under way together.
const maxLanes = 8

// lanes put calls for single messages into batches, without a wait: the first
// call goes out at once, those that come while it is under way go together, and
// a batch that is full need not wait for another.
type lanes struct {
	s    *Source
	send func(context.Context, []*entry) map[int]error // the errors, by place

	mu      sync.Mutex
	waiting []*entry
	flying  int
}

// entry is one message's part of a batch.
type entry struct {
	ctx     context.Context //nolint:containedctx // of the call that waits for it
	handle  string
	timeout time.Duration // whole seconds
	sent    time.Time     // set before it is sent
	done    chan error    // takes one
}

func (l *lanes) do(ctx context.Context, e *entry) error {
	e.ctx, e.done = ctx, make(chan error, 1)
	l.mu.Lock()
	l.waiting = append(l.waiting, e)
	l.pump()
	l.mu.Unlock()
	select {
	case err := <-e.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pump starts the batches that may start; the lock must be held, and a job.
func (l *lanes) pump() {
	for len(l.waiting) > 0 && (l.flying == 0 || len(l.waiting) >= batchMost && l.flying < maxLanes) {
		n := min(len(l.waiting), batchMost)
		batch := make([]*entry, 0, n)
		for _, e := range l.waiting[:n] {
			if e.ctx.Err() == nil { // else nobody waits for it
				batch = append(batch, e)
			}
		}
		l.waiting = l.waiting[n:]
		if len(batch) == 0 {
			continue
		}
		l.flying++
		l.s.jobs.Go(func() {
			l.fly(batch)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.flying--
			l.pump()
		})
	}
}

func (l *lanes) fly(batch []*entry) {
	ctx, cancel := context.WithTimeout(l.s.life, answerWithin)
	defer cancel()
	now := time.Now()
	for _, e := range batch {
		e.sent = now
	}
	failed := l.send(ctx, batch)
	for i, e := range batch {
		e.done <- failed[i]
	}
}

// outcome sorts the answer to a batch by the places of its entries.
func outcome(n int, failed []types.BatchResultErrorEntry, succeeded map[int]bool, err error) map[int]error {
	out := map[int]error{}
	for i := range n {
		switch {
		case err != nil:
			out[i] = err
		case !succeeded[i]:
			out[i] = fmt.Errorf("the answer leaves a message out: %w", fleet.ErrUnavailable)
		}
	}
	for _, f := range failed {
		status := 500
		if f.SenderFault {
			status = 400
		}
		if i, bad := strconv.Atoi(aws.ToString(f.Id)); bad == nil && i >= 0 && i < n {
			out[i] = refused(aws.ToString(f.Code), aws.ToString(f.Message), status)
		}
	}
	return out
}

func (s *Source) sendChanges(ctx context.Context, batch []*entry) map[int]error {
	entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(batch))
	for i, e := range batch {
		entries[i] = types.ChangeMessageVisibilityBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: &e.handle, VisibilityTimeout: int32(e.timeout / time.Second)} //nolint:gosec // at most 43200
	}
	out, err := ask(ctx, s, s.queue, func(ctx context.Context, address *string) (*sqs.ChangeMessageVisibilityBatchOutput, error) {
		return s.api.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: address, Entries: entries})
	})
	if err != nil {
		return outcome(len(batch), nil, nil, err)
	}
	succeeded := map[int]bool{}
	for _, e := range out.Successful {
		if i, err := strconv.Atoi(aws.ToString(e.Id)); err == nil {
			succeeded[i] = true
		}
	}
	return outcome(len(batch), out.Failed, succeeded, nil)
}

func (s *Source) sendDeletes(ctx context.Context, batch []*entry) map[int]error {
	entries := make([]types.DeleteMessageBatchRequestEntry, len(batch))
	for i, e := range batch {
		entries[i] = types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: &e.handle}
	}
	out, err := ask(ctx, s, s.queue, func(ctx context.Context, address *string) (*sqs.DeleteMessageBatchOutput, error) {
		return s.api.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: address, Entries: entries})
	})
	if err != nil {
		return outcome(len(batch), nil, nil, err)
	}
	succeeded := map[int]bool{}
	for _, e := range out.Successful {
		if i, err := strconv.Atoi(aws.ToString(e.Id)); err == nil {
			succeeded[i] = true
		}
	}
	return outcome(len(batch), out.Failed, succeeded, nil)
}

// changeOne sets the visibility of one message, in a call of its own.
func (s *Source) changeOne(ctx context.Context, receipt string, timeout time.Duration) error {
	_, handle, err := parseReceipt(receipt)
	if err != nil {
		return err
	}
	return s.sendChanges(ctx, []*entry{{handle: handle, timeout: timeout}})[0]
}
