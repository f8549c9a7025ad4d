package servers_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	smithy "github.com/aws/smithy-go"

	"muster.dev/muster/internal/queue/queuetest/servers"
)

// The tests of the fake go through the SDK, so that what it answers is at least
// what a client of AWS understands.

type fixture struct {
	*testing.T
	s   *servers.SQS
	c   *sqs.Client
	url string
}

func fake(t *testing.T, name string, attributes map[string]string) *fixture {
	t.Helper()
	f := &fixture{T: t, s: servers.StartSQS(t, nil)}
	f.c = f.s.Client()
	f.url = f.create(name, attributes)
	return f
}

func (f *fixture) create(name string, attributes map[string]string) string {
	f.Helper()
	out, err := f.c.CreateQueue(f.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	if err != nil {
		f.Fatal(err)
	}
	return *out.QueueUrl
}

func (f *fixture) send(body, group string) string {
	f.Helper()
	in := &sqs.SendMessageInput{QueueUrl: &f.url, MessageBody: &body}
	if group != "" {
		in.MessageGroupId, in.MessageDeduplicationId = &group, aws.String(group+body)
	}
	out, err := f.c.SendMessage(f.Context(), in)
	if err != nil {
		f.Fatal(err)
	}
	return *out.MessageId
}

func (f *fixture) receive(url string, n, visibility, wait int32) []types.Message {
	f.Helper()
	out, err := f.c.ReceiveMessage(f.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: n, VisibilityTimeout: visibility, WaitTimeSeconds: wait,
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"}, MessageAttributeNames: []string{"All"},
	})
	if err != nil {
		f.Fatal(err)
	}
	return out.Messages
}

func (f *fixture) counts(want string) {
	f.Helper()
	out, err := f.c.GetQueueAttributes(f.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &f.url, AttributeNames: []types.QueueAttributeName{"All"}})
	if err != nil {
		f.Fatal(err)
	}
	a := out.Attributes
	got := strings.Join([]string{a["ApproximateNumberOfMessages"], a["ApproximateNumberOfMessagesNotVisible"], a["ApproximateNumberOfMessagesDelayed"]}, " ")
	if got != want {
		f.Errorf("visible, not visible, delayed: %s, want %s", got, want)
	}
}

func (f *fixture) change(handle string, seconds int32) error {
	_, err := f.c.ChangeMessageVisibility(f.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &f.url, ReceiptHandle: &handle, VisibilityTimeout: seconds})
	return err
}

func (f *fixture) remove(handle string) error {
	_, err := f.c.DeleteMessage(f.Context(), &sqs.DeleteMessageInput{QueueUrl: &f.url, ReceiptHandle: &handle})
	return err
}

// fails checks the code of an error.
func (f *fixture) fails(what, code string, err error) {
	f.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) || strings.TrimPrefix(api.ErrorCode(), "AWS.SimpleQueueService.") != code {
		f.Errorf("%s: %v, want %s", what, err, code)
	}
}

func TestSQSLease(t *testing.T) {
	f := fake(t, "q", nil)
	id := f.send("one", "")
	f.counts("1 0 0")
	first := f.receive(f.url, 10, 1, 0)
	if len(first) != 1 || *first[0].MessageId != id || *first[0].Body != "one" || first[0].Attributes["ApproximateReceiveCount"] != "1" {
		t.Fatalf("received %+v", first)
	}
	if ms, err := strconv.ParseInt(first[0].Attributes["SentTimestamp"], 10, 64); err != nil || time.Since(time.UnixMilli(ms)) > time.Minute {
		t.Errorf("sent at %s", first[0].Attributes["SentTimestamp"])
	}
	f.counts("0 1 0")
	start := time.Now()
	second := f.receive(f.url, 1, 60, 20) // long poll until the visibility ends
	if took := time.Since(start); len(second) != 1 || took < 500*time.Millisecond || took > 10*time.Second {
		t.Fatalf("received %+v after %s", second, took)
	}
	if *second[0].MessageId != id || *second[0].ReceiptHandle == *first[0].ReceiptHandle || second[0].Attributes["ApproximateReceiveCount"] != "2" {
		t.Errorf("again %+v after %+v", second, first)
	}
	f.fails("change by an old handle", "InvalidParameterValue", f.change(*first[0].ReceiptHandle, 10))
	if err := f.remove(*first[0].ReceiptHandle); err != nil {
		t.Errorf("delete by an old handle: %v, want success without deletion", err)
	}
	f.counts("0 1 0")
	f.fails("a handle that is none", "ReceiptHandleIsInvalid", f.change("nonsense", 10))
	f.fails("13 h", "InvalidParameterValue", f.change(*second[0].ReceiptHandle, 13*3600))
	f.fails("12 h in all", "InvalidParameterValue", f.change(*second[0].ReceiptHandle, 12*3600))
	if err := f.change(*second[0].ReceiptHandle, 0); err != nil {
		t.Error(err)
	}
	f.counts("1 0 0")
	f.fails("not in flight", "MessageNotInflight", f.change(*second[0].ReceiptHandle, 10))
	third := f.receive(f.url, 1, 60, 0)
	for range 2 { // deleting twice succeeds
		if err := f.remove(*third[0].ReceiptHandle); err != nil {
			t.Error(err)
		}
	}
	f.fails("deleted", "InvalidParameterValue", f.change(*third[0].ReceiptHandle, 10))
	f.counts("0 0 0")
}

func TestSQSDelayAndLongPoll(t *testing.T) {
	f := fake(t, "q", nil)
	if _, err := f.c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &f.url, MessageBody: aws.String("late"), DelaySeconds: 1}); err != nil {
		t.Fatal(err)
	}
	f.counts("0 0 1")
	if m := f.receive(f.url, 1, 10, 0); len(m) != 0 {
		t.Errorf("received %v before its time", m)
	}
	if m := f.receive(f.url, 1, 10, 20); len(m) != 1 {
		t.Errorf("received %v", m)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := f.c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &f.url, WaitTimeSeconds: 20}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller that goes: %v", err)
	}
	_, err := f.c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &f.url, MessageBody: aws.String("later"), DelaySeconds: 901})
	f.fails("too long a delay", "InvalidParameterValue", err)
}

func TestSQSLimits(t *testing.T) {
	f := fake(t, "q", nil)
	send := func(body string, attributes map[string]types.MessageAttributeValue) error {
		_, err := f.c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &f.url, MessageBody: &body, MessageAttributes: attributes})
		return err
	}
	value := types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String("v")}
	if err := send(strings.Repeat("x", 1<<20), nil); err != nil {
		t.Errorf("1 MiB: %v", err)
	}
	f.fails("more than 1 MiB", "InvalidParameterValue", send(strings.Repeat("x", 1<<20+1), nil))
	f.fails("attributes count", "InvalidParameterValue", send(strings.Repeat("x", 1<<20-3), map[string]types.MessageAttributeValue{"k": value}))
	f.fails("no body", "MissingParameter", send("", nil))
	f.fails("a character that is not allowed", "InvalidMessageContents", send("\x00", nil))
	f.fails("a reserved name", "InvalidParameterValue", send("x", map[string]types.MessageAttributeValue{"AWS.x": value}))
	many := map[string]types.MessageAttributeValue{}
	for i := range 11 {
		many[fmt.Sprint("k", i)] = value
	}
	f.fails("too many attributes", "InvalidParameterValue", send("x", many))
	_, err := f.c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &f.url, MaxNumberOfMessages: 11})
	f.fails("too many messages", "InvalidParameterValue", err)
	_, err = f.c.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("none")})
	f.fails("no such queue", "NonExistentQueue", err)
	_, err = f.c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: aws.String(f.url + "x")})
	var missing *types.QueueDoesNotExist
	if !errors.As(err, &missing) {
		t.Errorf("no such queue: %v", err)
	}
}

func TestSQSBatch(t *testing.T) {
	f := fake(t, "q", nil)
	entry := func(id, body string) types.SendMessageBatchRequestEntry {
		return types.SendMessageBatchRequestEntry{Id: &id, MessageBody: &body}
	}
	send := func(e ...types.SendMessageBatchRequestEntry) (*sqs.SendMessageBatchOutput, error) {
		return f.c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &f.url, Entries: e})
	}
	out, err := send(entry("a", "one"), entry("b", "\x01"), entry("c", "two"))
	if err != nil || len(out.Successful) != 2 || len(out.Failed) != 1 || *out.Failed[0].Id != "b" || *out.Failed[0].Code != "InvalidMessageContents" {
		t.Errorf("got %+v, %v", out, err)
	}
	_, err = send(entry("a", "one"), entry("a", "two"))
	f.fails("the same ID twice", "BatchEntryIdsNotDistinct", err)
	_, err = send(entry("a", strings.Repeat("x", 1<<19)), entry("b", strings.Repeat("x", 1<<19+1)))
	f.fails("too long", "BatchRequestTooLong", err)
	var many []types.SendMessageBatchRequestEntry
	for i := range 11 {
		many = append(many, entry(fmt.Sprint("i", i), "x"))
	}
	_, err = send(many...)
	f.fails("too many", "TooManyEntriesInBatchRequest", err)
	_, err = f.c.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &f.url, Entries: []types.SendMessageBatchRequestEntry{}})
	f.fails("none", "EmptyBatchRequest", err)
	_, err = send(entry("a b", "x"))
	f.fails("no ID", "InvalidBatchEntryId", err)

	m := f.receive(f.url, 10, 60, 0)
	f.s.Fail("DeleteMessageBatch", "InternalError", 1)
	removed, err := f.c.DeleteMessageBatch(t.Context(), &sqs.DeleteMessageBatchInput{QueueUrl: &f.url, Entries: []types.DeleteMessageBatchRequestEntry{
		{Id: aws.String("0"), ReceiptHandle: m[0].ReceiptHandle}, {Id: aws.String("1"), ReceiptHandle: m[1].ReceiptHandle},
	}})
	if err != nil || len(removed.Successful) != 1 || len(removed.Failed) != 1 || removed.Failed[0].SenderFault {
		t.Errorf("got %+v, %v", removed, err)
	}
	f.counts("0 1 0")
}

func TestSQSDeadLetters(t *testing.T) {
	f := fake(t, "dead", nil)
	dead := f.url
	f.url = f.create("q", map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:` + servers.SQSRegion + ":" + servers.SQSAccount + `:dead","maxReceiveCount":2}`})
	id := f.send("poison", "")
	for range 2 {
		m := f.receive(f.url, 1, 60, 0)
		if len(m) != 1 {
			t.Fatal("not received")
		}
		if err := f.change(*m[0].ReceiptHandle, 0); err != nil {
			t.Fatal(err)
		}
	}
	if m := f.receive(f.url, 1, 60, 0); len(m) != 0 {
		t.Errorf("received a third time: %v", m)
	}
	f.counts("0 0 0")
	if m := f.receive(dead, 1, 60, 0); len(m) != 1 || *m[0].MessageId != id || m[0].Attributes["ApproximateReceiveCount"] != "3" || !strings.HasSuffix(m[0].Attributes["DeadLetterQueueSourceArn"], ":q") {
		t.Errorf("set aside: %+v", m)
	}
}

func TestSQSFIFO(t *testing.T) {
	f := fake(t, "q.fifo", map[string]string{"FifoQueue": "true"})
	first := f.send("1", "a")
	if again := f.send("1", "a"); again != first {
		t.Errorf("sent twice within 5 minutes: %s, then %s", first, again)
	}
	f.send("2", "a")
	f.send("3", "b")
	f.counts("3 0 0")
	one := f.receive(f.url, 1, 60, 0)
	other := f.receive(f.url, 10, 60, 0)
	if *one[0].Body != "1" || len(other) != 1 || *other[0].Body != "3" {
		t.Fatalf("received %v, then %v: want 1, then 3, since group a is taken", one, other)
	}
	if one[0].Attributes["MessageGroupId"] != "a" {
		t.Errorf("attributes %v", one[0].Attributes)
	}
	if err := f.change(*one[0].ReceiptHandle, 0); err != nil {
		t.Fatal(err)
	}
	f.fails("delete after the visibility ended", "InvalidParameterValue", f.remove(*one[0].ReceiptHandle))
	if both := f.receive(f.url, 10, 60, 0); len(both) != 2 || *both[0].Body != "1" || *both[1].Body != "2" {
		t.Errorf("received %v, want 1 and 2 in order", both)
	}
	_, err := f.c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &f.url, MessageBody: aws.String("x")})
	f.fails("no group", "MissingParameter", err)
	_, err = f.c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &f.url, MessageBody: aws.String("x"), MessageGroupId: aws.String("a")})
	f.fails("no deduplication", "InvalidParameterValue", err)
}

func TestSQSSignature(t *testing.T) {
	f := fake(t, "q", nil)
	try := func(region, key, secret string) error {
		// Options of its own: a client keeps what it derived of a secret, by the key's ID.
		o := sqs.Options{Region: region, BaseEndpoint: aws.String(f.s.Endpoint()), HTTPClient: f.s.HTTP()}
		o.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: key, SecretAccessKey: secret}, nil
		})
		_, err := sqs.New(o).GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &f.url})
		return err
	}
	if err := try(servers.SQSRegion, servers.SQSAccessKey, servers.SQSSecretKey); err != nil {
		t.Error(err)
	}
	f.fails("wrong secret", "SignatureDoesNotMatch", try(servers.SQSRegion, servers.SQSAccessKey, "wrong"))
	f.fails("wrong key", "InvalidClientTokenId", try(servers.SQSRegion, "AKIAWRONG", servers.SQSSecretKey))
	f.fails("wrong region", "SignatureDoesNotMatch", try("us-east-1", servers.SQSAccessKey, servers.SQSSecretKey))
}

func TestSQSRestart(t *testing.T) {
	f := fake(t, "q", nil)
	f.send("kept", "")
	address := f.s.Endpoint()
	f.s.Stop()
	if _, err := f.c.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("q")}, func(o *sqs.Options) { o.RetryMaxAttempts = 1 }); err == nil {
		t.Error("a server that is stopped answers")
	}
	f.s.Start()
	if f.s.Endpoint() != address {
		t.Errorf("at %s after the restart, was at %s", f.s.Endpoint(), address)
	}
	f.counts("1 0 0")
	thaw := f.s.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := f.c.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String("q")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a frozen server: %v", err)
	}
	thaw()
	f.counts("1 0 0")
}
