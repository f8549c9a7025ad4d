package queues

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"muster.dev/muster/internal/queue/queuetest/servers"
)

// openSQS is a standard queue with a dead-letter queue, on the fake.
func openSQS(t testing.TB) *Queue {
	t.Helper()
	s := servers.StartSQS(t, nil)
	by, ctx := s.Client(), context.Background()
	create := func(name string, attributes map[string]string) string {
		out, err := by.CreateQueue(ctx, &awssqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
		if err != nil {
			t.Fatal(err)
		}
		return *out.QueueUrl
	}
	dead := create("dead", nil)
	queue := create("tasks", map[string]string{"RedrivePolicy": fmt.Sprintf(
		`{"deadLetterTargetArn":"arn:aws:sqs:%s:%s:dead","maxReceiveCount":100}`, servers.SQSRegion, servers.SQSAccount)})
	var seen []Dead
	return &Queue{
		Block: fmt.Sprintf(`type: sqs, sqs: {queue: tasks, region: %s, endpoint: "%s", accessKeyId: {file: %q}, secretAccessKey: {file: %q}}`,
			servers.SQSRegion, s.Endpoint(), secret(t, servers.SQSAccessKey), secret(t, servers.SQSSecretKey)),
		Send: func(ctx context.Context, bodies ...string) error { return sqsSend(ctx, by, queue, bodies) },
		Count: func(ctx context.Context) (Count, error) {
			out, err := by.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{QueueUrl: &queue, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll}})
			if err != nil {
				return Count{}, err
			}
			number := func(name types.QueueAttributeName) int64 {
				n, e := strconv.ParseInt(out.Attributes[string(name)], 10, 64)
				err = errors.Join(err, e)
				return n
			}
			n := Count{
				Waiting: number(types.QueueAttributeNameApproximateNumberOfMessages) + number(types.QueueAttributeNameApproximateNumberOfMessagesDelayed),
				Held:    number(types.QueueAttributeNameApproximateNumberOfMessagesNotVisible),
			}
			return n, err
		},
		Dead: func(ctx context.Context) ([]Dead, error) {
			got, err := by.ReceiveMessage(ctx, &awssqs.ReceiveMessageInput{QueueUrl: &dead, MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"}})
			if err != nil {
				return nil, err
			}
			for _, m := range got.Messages { // who has received one does not get it again soon
				seen = append(seen, Dead{*m.Body, aws.ToString(m.MessageAttributes["muster.reason"].StringValue)})
			}
			return seen, nil
		},
		Stop: s.Stop, Start: s.Start,
	}
}

// sqsSend sends in batches of ten, the most that SQS takes.
func sqsSend(ctx context.Context, by *awssqs.Client, queue string, bodies []string) error {
	for len(bodies) > 0 {
		in := &awssqs.SendMessageBatchInput{QueueUrl: &queue}
		for i, b := range bodies[:min(10, len(bodies))] {
			in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), MessageBody: aws.String(b)})
		}
		out, err := by.SendMessageBatch(ctx, in)
		if err != nil {
			return err
		}
		if len(out.Failed) > 0 {
			return fmt.Errorf("%d messages were not taken: %s", len(out.Failed), aws.ToString(out.Failed[0].Message))
		}
		bodies = bodies[len(in.Entries):]
	}
	return nil
}
