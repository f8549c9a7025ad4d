package sqs

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"muster.dev/muster/internal/fleet"
)

// Receive implements fleet.Source. It takes whole batches of ten, from a FIFO
// queue one message a call: a call that returned more could return several of
// one group, which are to be worked off one after the other.
func (s *Source) Receive(ctx context.Context, n int, visibility time.Duration) ([]fleet.Message, error) {
	if visibility < time.Second || visibility > longest {
		return nil, fmt.Errorf("sqs: receive: visibility %s: want 1s to 12h: %w", visibility, fleet.ErrInvalid)
	}
	o, end, err := s.begin(ctx, "receive")
	if err != nil {
		return nil, err
	}
	defer end()
	if n <= 0 {
		return []fleet.Message{}, nil
	}
	s.mu.Lock()
	s.visibility = visibility
	s.sweep(time.Now())
	s.mu.Unlock()
	m, ok, err := s.takeProbe(o.ctx, visibility)
	if err != nil {
		return nil, o.fail(err)
	}
	if ok {
		// It came by push, and starts before the others are asked for.
		if n > 1 {
			s.signal()
		}
		return []fleet.Message{m}, nil
	}
	out, err := s.fetch(o.ctx, n, visibility)
	switch {
	case err != nil && len(out) == 0:
		return nil, o.fail(err)
	case len(out) == 0:
		s.arm(true)
	case len(out) < n:
		// SQS returns what the servers it asked have; there may be more.
		s.signal()
	}
	return out, nil
}

// fetch receives up to n messages: one call, and while calls come back full
// twice as many at once. What came is returned with the error of the rest.
func (s *Source) fetch(ctx context.Context, n int, visibility time.Duration) ([]fleet.Message, error) {
	batch := batchMost
	if s.queue.fifo() {
		batch = 1
	}
	out := []fleet.Message{}
	var failed error
	for width := 1; len(out) < n && failed == nil; width = min(2*width, maxLanes) {
		width = min(width, (n-len(out)+batch-1)/batch)
		var mu sync.Mutex
		var calls sync.WaitGroup
		left, asked, got := n-len(out), 0, 0
		for range width {
			some := min(left-asked, batch)
			asked += some
			calls.Go(func() {
				m, err := s.receive(ctx, some, visibility, 0)
				mu.Lock()
				defer mu.Unlock()
				out, got = append(out, m...), got+len(m)
				if err != nil {
					failed = err
				}
			})
		}
		calls.Wait()
		// Without push a short answer is asked after until nothing comes.
		if got == 0 || got < asked && !s.conf.NoPush {
			break
		}
	}
	return out, failed
}

// receive is one ReceiveMessage, which waits for the first message up to wait.
func (s *Source) receive(ctx context.Context, n int, visibility, wait time.Duration) ([]fleet.Message, error) {
	in := &sqs.ReceiveMessageInput{
		MaxNumberOfMessages: int32(n), VisibilityTimeout: int32(ceil(visibility) / time.Second), WaitTimeSeconds: int32(wait / time.Second), //nolint:gosec // small
		MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{
			types.MessageSystemAttributeNameApproximateReceiveCount, types.MessageSystemAttributeNameSentTimestamp,
			types.MessageSystemAttributeNameMessageGroupId, types.MessageSystemAttributeNameAWSTraceHeader,
		},
	}
	if s.queue.fifo() {
		// The SDK's second attempt then gets what the first was to get, instead of
		// finding its group taken.
		in.ReceiveRequestAttemptId = aws.String(rand.Text())
	}
	start := time.Now()
	out, err := ask(ctx, s, s.queue, func(ctx context.Context, address *string) (*sqs.ReceiveMessageOutput, error) {
		in.QueueUrl = address
		return s.api.ReceiveMessage(ctx, in)
	})
	if err != nil {
		return nil, err
	}
	if wait > 0 {
		// The lease began when the message came, within the wait.
		start = time.Now().Add(-min(time.Since(start), pushSlack))
	}
	messages := make([]fleet.Message, 0, len(out.Messages))
	for _, m := range out.Messages {
		messages = append(messages, s.adopt(m, start, visibility))
	}
	return messages, nil
}

// Headers beside a message's own attributes, whose names cannot begin with
// "AWS." (SendMessage in the API Reference).
const (
	reserved    = "AWS."
	headerGroup = reserved + "MessageGroupId"
	headerTrace = reserved + "TraceHeader"
)

// adopt makes a message of ours of one of SQS, and notes its lease.
func (s *Source) adopt(in types.Message, received time.Time, visibility time.Duration) fleet.Message {
	m := fleet.Message{ID: aws.ToString(in.MessageId), Receipt: makeReceipt(received, aws.ToString(in.ReceiptHandle)), Body: []byte(aws.ToString(in.Body)), Until: received.Add(visibility)}
	l := lease{id: m.ID, received: received, until: m.Until}
	m.Headers, l.kinds = headers(in)
	if ms, err := strconv.ParseInt(in.Attributes["SentTimestamp"], 10, 64); err == nil {
		m.At = time.UnixMilli(ms)
	}
	count, _ := strconv.Atoi(in.Attributes["ApproximateReceiveCount"]) // absent: as the first
	s.mu.Lock()
	m.Attempt = max(1, count-s.probe.returned[m.ID])
	s.mu.Unlock()
	s.keep(m.Receipt, l)
	return m
}

// headers are attributes as text; binary ones in base64, their type kept aside.
func headers(in types.Message) (map[string]string, map[string]string) {
	out, kinds := map[string]string{}, map[string]string(nil)
	for name, a := range in.MessageAttributes {
		kind := aws.ToString(a.DataType)
		if out[name] = aws.ToString(a.StringValue); strings.HasPrefix(kind, "Binary") {
			out[name] = base64.StdEncoding.EncodeToString(a.BinaryValue)
		}
		if kind != "String" {
			if kinds == nil {
				kinds = map[string]string{}
			}
			kinds[name] = kind
		}
	}
	for name, system := range map[string]string{headerGroup: "MessageGroupId", headerTrace: "AWSTraceHeader"} {
		if v := in.Attributes[system]; v != "" {
			out[name] = v
		}
	}
	if len(out) == 0 {
		out = nil
	}
	return out, kinds
}
