package sqs

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"muster.dev/muster/internal/fleet"
)

const (
	// reasonName is the attribute with the reason, in the dead-letter queue.
	reasonName = "muster.reason"
	// reasonMost bounds it, in bytes.
	reasonMost = 1024
	// attributesMost is how many attributes a message may have: "Amazon SQS
	// message quotas" in the Developer Guide.
	attributesMost = 10
)

// DeadLetter implements fleet.Source: the message is sent to the dead-letter
// queue, and then removed from its own. A crash between the two leaves it in
// both.
func (s *Source) DeadLetter(ctx context.Context, m fleet.Message, why string) error {
	o, end, err := s.begin(ctx, "dead-letter")
	if err != nil {
		return err
	}
	defer end()
	l, handle, err := s.held(m)
	if err != nil {
		return o.fail(err)
	}
	if len(m.Body) == 0 {
		return o.fail(fmt.Errorf("the message has no body, and could not be kept: %w", fleet.ErrInvalid))
	}
	if !l.buried && !l.deleting {
		if err := s.verify(o.ctx, m.Receipt, handle, &l); err != nil {
			return o.fail(err)
		}
		if err := s.bury(o.ctx, m, why, l.kinds); err != nil {
			return o.fail(err)
		}
		l.buried = true
		s.keep(m.Receipt, l)
	}
	if err := s.remove(o.ctx, m.Receipt, handle, l); err != nil {
		return o.fail(err)
	}
	return nil
}

// bury sends a message to the dead-letter queue.
func (s *Source) bury(ctx context.Context, m fleet.Message, why string, kinds map[string]string) error {
	target, err := s.deadLetterQueue(ctx)
	if err != nil {
		return err
	}
	in := &sqs.SendMessageInput{MessageBody: aws.String(string(m.Body)), MessageAttributes: attributes(m.Headers, kinds)}
	if trace := m.Headers[headerTrace]; trace != "" {
		in.MessageSystemAttributes = map[string]types.MessageSystemAttributeValue{"AWSTraceHeader": {DataType: aws.String("String"), StringValue: &trace}}
	}
	if target.fifo() {
		// A second attempt within 5 minutes is dropped by its deduplication ID.
		in.MessageGroupId, in.MessageDeduplicationId = aws.String(m.ID), aws.String(m.ID)
		if group := m.Headers[headerGroup]; group != "" {
			in.MessageGroupId = &group
		}
	}
	why = reason(why)
	if why != "" && len(in.MessageAttributes) < attributesMost {
		in.MessageAttributes[reasonName] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &why}
	}
	err = s.send(ctx, target, in)
	if errors.Is(err, fleet.ErrInvalid) && why != "" {
		// As large as a message can be: better without the reason than not at all.
		delete(in.MessageAttributes, reasonName)
		err = s.send(ctx, target, in)
	}
	if err != nil {
		return fmt.Errorf("dead-letter queue %s: %w", target.name, err)
	}
	s.reading.one.Lock()
	defer s.reading.one.Unlock()
	s.reading.deadAt = time.Time{} // to be counted anew
	return nil
}

func (s *Source) send(ctx context.Context, target where, in *sqs.SendMessageInput) error {
	_, err := ask(ctx, s, target, func(ctx context.Context, address *string) (*sqs.SendMessageOutput, error) {
		in.QueueUrl = address
		return s.api.SendMessage(ctx, in)
	})
	return err
}

// deadLetterQueue is where messages are set aside; it reads the policy of the
// queue where that is not known yet.
func (s *Source) deadLetterQueue(ctx context.Context) (where, error) {
	r := &s.reading
	r.one.Lock()
	target, known := r.target, r.known
	r.one.Unlock()
	if !known || target.name == "" {
		attributes, err := s.attributes(ctx, s.queue)
		if err != nil {
			return where{}, err
		}
		r.one.Lock()
		err = s.aim(attributes)
		target = r.target
		r.one.Unlock()
		if err != nil {
			return where{}, err
		}
	}
	if target.name == "" {
		return where{}, fmt.Errorf("queue %s has no dead-letter queue: give it a redrive policy, or name one as deadLetterQueue: %w", s.queue.name, fleet.ErrNotFound)
	}
	return target, nil
}

// attributes are headers as SQS keeps them, of the types they came with.
func attributes(headers, kinds map[string]string) map[string]types.MessageAttributeValue {
	out := map[string]types.MessageAttributeValue{}
	for name, v := range headers {
		if strings.HasPrefix(name, reserved) {
			continue
		}
		a := types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(v)}
		if kind := kinds[name]; kind != "" {
			a.DataType = &kind
			if raw, err := base64.StdEncoding.DecodeString(v); err == nil && strings.HasPrefix(kind, "Binary") {
				a.StringValue, a.BinaryValue = nil, raw
			}
		}
		out[name] = a
	}
	return out
}

// reason makes a text that SQS takes: bounded, and of the characters that
// SendMessage in the API Reference lists.
func reason(why string) string {
	why = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return '�'
		}
		return r
	}, strings.ToValidUTF8(why, "�"))
	if len(why) > reasonMost {
		why = strings.ToValidUTF8(why[:reasonMost], "")
	}
	return why
}
