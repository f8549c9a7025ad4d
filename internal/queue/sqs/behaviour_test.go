package sqs_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
	"muster.dev/muster/internal/queue/sqs"
)

// rig is a queue with a dead-letter queue, and one consumer.
type rig struct {
	*testing.T
	s           *servers.SQS
	url, dead   string
	q           *sqs.Source
	publish     func(bodies ...string)
	conf        sqs.Config
	deadLetters func() ([]queuetest.Sent, []string)
}

func setUp(t *testing.T, name string, change func(*sqs.Config)) *rig {
	t.Helper()
	t.Parallel()
	r := &rig{T: t, s: servers.StartSQS(t, nil)}
	r.url, r.dead = create(t, r.s, name, 5)
	r.conf = conf(r.s, name)
	if change != nil {
		change(&r.conf)
	}
	r.q = closing(t, r.conf)
	p := &producer{by: r.s.Client(), queue: r.url}
	r.publish = func(bodies ...string) {
		t.Helper()
		for _, b := range bodies {
			if err := p.publish(t.Context(), queuetest.Sent{Body: []byte(b)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.deadLetters = func() ([]queuetest.Sent, []string) {
		t.Helper()
		bodies, reasons, err := dead(t.Context(), r.s.Client(), r.dead)
		if err != nil {
			t.Fatal(err)
		}
		return bodies, reasons
	}
	return r
}

func quiet(c *sqs.Config) { c.NoPush = true }

func (r *rig) one(q fleet.Source) fleet.Message {
	r.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		m, err := q.Receive(r.Context(), 1, time.Minute)
		if len(m) == 1 {
			return m[0]
		}
		if time.Now().After(end) {
			r.Fatalf("received nothing: %v", err)
		}
	}
}

func TestUnknownOutcome(t *testing.T) {
	r := setUp(t, "q", quiet)
	r.publish("one", "two")
	m := r.one(r.q)
	r.s.Fail("DeleteMessageBatch", "InternalError", 1)
	if err := r.q.Ack(t.Context(), m); !errors.Is(err, fleet.ErrUnavailable) {
		t.Fatalf("ack: %v, want ErrUnavailable", err)
	}
	// As if the delete had been done though its answer was lost.
	_, handle, _ := strings.Cut(m.Receipt, ".")
	if _, err := r.s.Client().DeleteMessage(t.Context(), &awssqs.DeleteMessageInput{QueueUrl: &r.url, ReceiptHandle: &handle}); err != nil {
		t.Fatal(err)
	}
	if err := r.q.Ack(t.Context(), m); err != nil {
		t.Errorf("ack again: %v", err)
	}
	m = r.one(r.q)
	r.s.Fail("DeleteMessageBatch", "InternalError", 1)
	if err := r.q.DeadLetter(t.Context(), m, "bad"); !errors.Is(err, fleet.ErrUnavailable) {
		t.Fatalf("dead-letter: %v, want ErrUnavailable", err)
	}
	if err := r.q.DeadLetter(t.Context(), m, "bad"); err != nil {
		t.Errorf("dead-letter again: %v", err)
	}
	if set, _ := r.deadLetters(); len(set) != 1 {
		t.Errorf("set aside %d times", len(set))
	}
}

func TestTwelveHours(t *testing.T) {
	r := setUp(t, "q", quiet)
	r.publish("long")
	m := r.one(r.q)
	_, handle, _ := strings.Cut(m.Receipt, ".")
	ago := func(d time.Duration) fleet.Message { // what a process before us kept
		return fleet.Message{ID: m.ID, Receipt: strconv.FormatInt(time.Now().Add(-d).UnixMilli(), 36) + "." + handle}
	}
	other := closing(t, r.conf)
	until, err := other.Extend(t.Context(), ago(11*time.Hour+30*time.Minute), time.Hour)
	if left := time.Until(until); err != nil || left > 30*time.Minute || left < 29*time.Minute {
		t.Errorf("half an hour before the end an hour more became %s, %v", left, err)
	}
	other = closing(t, r.conf)
	if _, err := other.Extend(t.Context(), ago(12*time.Hour), time.Hour); !errors.Is(err, fleet.ErrFenced) || !strings.Contains(err.Error(), "12 h") {
		t.Errorf("after 12 h: %v, want ErrFenced", err)
	}
	if _, err := r.q.Extend(t.Context(), m, 12*time.Hour); err != nil {
		t.Errorf("12 h at once: %v", err)
	}
}

func TestDeadLetterKeepsAll(t *testing.T) {
	r := setUp(t, "q", quiet)
	send := func(body string, attributes map[string]types.MessageAttributeValue) fleet.Message {
		t.Helper()
		if _, err := r.s.Client().SendMessage(t.Context(), &awssqs.SendMessageInput{QueueUrl: &r.url, MessageBody: &body, MessageAttributes: attributes,
			MessageSystemAttributes: map[string]types.MessageSystemAttributeValue{"AWSTraceHeader": {DataType: aws.String("String"), StringValue: aws.String("Root=1-2-3")}}}); err != nil {
			t.Fatal(err)
		}
		return r.one(r.q)
	}
	raw := func() types.Message {
		t.Helper()
		out, err := r.s.Client().ReceiveMessage(t.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &r.dead, MessageAttributeNames: []string{"All"}, MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"}})
		if err != nil || len(out.Messages) != 1 {
			t.Fatalf("set aside: %v, %v", out, err)
		}
		return out.Messages[0]
	}
	m := send("b", map[string]types.MessageAttributeValue{"n": {DataType: aws.String("Number.int"), StringValue: aws.String("7")}, "b": {DataType: aws.String("Binary"), BinaryValue: []byte{0, 255}}})
	if m.Headers["n"] != "7" || m.Headers["b"] != "AP8=" || m.Headers["AWS.TraceHeader"] != "Root=1-2-3" {
		t.Errorf("headers %v", m.Headers)
	}
	if err := r.q.DeadLetter(t.Context(), m, "why\x00"); err != nil {
		t.Fatal(err)
	}
	got := raw()
	if a := got.MessageAttributes; *a["n"].DataType != "Number.int" || string(a["b"].BinaryValue) != "\x00\xff" || *a["muster.reason"].StringValue != "why�" || got.Attributes["AWSTraceHeader"] != "Root=1-2-3" {
		t.Errorf("set aside as %+v", got)
	}
	ten := map[string]types.MessageAttributeValue{}
	for i := range 10 {
		ten[fmt.Sprint("k", i)] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String("v")}
	}
	for name, m := range map[string]fleet.Message{
		"ten attributes":   send("b", ten),
		"the largest body": send(strings.Repeat("x", 1<<20), nil),
	} {
		if err := r.q.DeadLetter(t.Context(), m, "why"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := raw(); *got.Body != string(m.Body) || got.MessageAttributes["muster.reason"].StringValue != nil {
			t.Errorf("%s: set aside with %d attributes", name, len(got.MessageAttributes))
		}
	}
	m = send("b", nil)
	if err := r.q.DeadLetter(t.Context(), fleet.Message{ID: m.ID, Receipt: m.Receipt}, "why"); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("without its body: %v, want ErrInvalid", err)
	}
}

func TestNoDeadLetterQueue(t *testing.T) {
	t.Parallel()
	s := servers.StartSQS(t, nil)
	out, err := s.Client().CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: aws.String("q")})
	if err != nil {
		t.Fatal(err)
	}
	c := conf(s, "q")
	c.NoPush = true
	q := closing(t, c)
	r := &rig{T: t, s: s}
	p := producer{by: s.Client(), queue: *out.QueueUrl}
	if err := p.publish(t.Context(), queuetest.Sent{Body: []byte("bad")}); err != nil {
		t.Fatal(err)
	}
	m := r.one(q)
	if err := q.DeadLetter(t.Context(), m, "why"); !errors.Is(err, fleet.ErrNotFound) || !strings.Contains(err.Error(), "redrive policy") {
		t.Errorf("got %v, want ErrNotFound and advice", err)
	}
	if st := stats(t, q, "without one", fine); st.InFlight != 1 || st.Dead != 0 {
		t.Errorf("got %+v", st)
	}
	// Given one while in use, it is found.
	if _, err := s.Client().CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: aws.String("dead")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client().SetQueueAttributes(t.Context(), &awssqs.SetQueueAttributesInput{QueueUrl: out.QueueUrl, Attributes: map[string]string{
		"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":"arn:aws:sqs:%s:%s:dead","maxReceiveCount":"5"}`, servers.SQSRegion, servers.SQSAccount),
	}}); err != nil {
		t.Fatal(err)
	}
	if err := q.DeadLetter(t.Context(), m, "why"); err != nil {
		t.Errorf("with one: %v", err)
	}
	if st := stats(t, q, "with one", fine); st.Dead != 1 {
		t.Errorf("got %+v", st)
	}
}

func TestPoison(t *testing.T) {
	r := setUp(t, "q", quiet)
	r.publish("poison")
	for i := range 5 {
		m := r.one(r.q)
		if m.Attempt != i+1 {
			t.Errorf("attempt %d, want %d", m.Attempt, i+1)
		}
		if err := r.q.Nack(t.Context(), m, 0); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := r.q.Receive(t.Context(), 1, time.Minute); err != nil || len(m) != 0 {
		t.Errorf("received %v, %v after the most deliveries", m, err)
	}
	stats(t, r.q, "set aside by SQS", func(st fleet.SignalStats, err error) bool { return err == nil && st.Dead == 1 && st.Backlog == 0 })
}

func TestBatches(t *testing.T) {
	r := setUp(t, "q", quiet)
	const n = 60
	for i := range n {
		r.publish(fmt.Sprint(i))
	}
	m, err := r.q.Receive(t.Context(), n, time.Minute)
	if err != nil || len(m) != n {
		t.Fatalf("received %d, %v: want all", len(m), err)
	}
	if calls := r.s.Calls("ReceiveMessage"); calls != n/10 {
		t.Errorf("%d receives for %d messages", calls, n)
	}
	each := func(do func(fleet.Message) error) {
		var wg sync.WaitGroup
		for _, x := range m {
			wg.Go(func() {
				if err := do(x); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	each(func(x fleet.Message) error { _, err := r.q.Extend(t.Context(), x, time.Hour); return err })
	if calls := r.s.Calls("ChangeMessageVisibilityBatch"); calls > n/2 {
		t.Errorf("%d calls extended %d leases", calls, n)
	}
	each(func(x fleet.Message) error { return r.q.Ack(t.Context(), x) })
	if calls := r.s.Calls("DeleteMessageBatch"); calls > n/2 {
		t.Errorf("%d calls removed %d messages", calls, n)
	}
	stats(t, r.q, "all removed", func(st fleet.SignalStats, err error) bool { return err == nil && st.Backlog+st.InFlight == 0 })
}

func TestPartialFailure(t *testing.T) {
	r := setUp(t, "q", quiet)
	r.publish("a", "b", "c", "d")
	m, err := r.q.Receive(t.Context(), 4, time.Minute)
	if err != nil || len(m) != 4 {
		t.Fatalf("received %d, %v", len(m), err)
	}
	r.s.Fail("ChangeMessageVisibilityBatch", "InternalError", 2)
	var mu sync.Mutex
	var wg sync.WaitGroup
	failed := 0
	for _, x := range m {
		wg.Go(func() {
			_, err := r.q.Extend(t.Context(), x, time.Minute)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, fleet.ErrUnavailable) {
				failed++
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if failed != 2 {
		t.Errorf("%d of 4 failed, want 2", failed)
	}
	for _, x := range m {
		if err := r.q.Ack(t.Context(), x); err != nil {
			t.Errorf("a lease whose extension failed still holds: %v", err)
		}
	}
}

func TestGroupsStayInOrder(t *testing.T) {
	r := setUp(t, "q.fifo", nil)
	for i := range 4 {
		if _, err := r.s.Client().SendMessage(t.Context(), &awssqs.SendMessageInput{QueueUrl: &r.url, MessageBody: aws.String(fmt.Sprint(i)), MessageGroupId: aws.String("g"), MessageDeduplicationId: aws.String(fmt.Sprint(i))}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		m := r.one(r.q)
		if string(m.Body) != fmt.Sprint(i) || m.Headers["AWS.MessageGroupId"] != "g" {
			t.Errorf("received %q of group %q, want %d", m.Body, m.Headers["AWS.MessageGroupId"], i)
		}
		if more, err := r.q.Receive(t.Context(), 10, time.Minute); err != nil || len(more) != 0 {
			t.Errorf("while one of the group runs: %v, %v", more, err)
		}
		if i == 2 {
			if err := r.q.DeadLetter(t.Context(), m, "why"); err != nil {
				t.Error(err)
			}
			continue
		}
		if err := r.q.Ack(t.Context(), m); err != nil {
			t.Error(err)
		}
	}
	if set, _ := r.deadLetters(); len(set) != 1 || string(set[0].Body) != "2" {
		t.Errorf("set aside %v", set)
	}
}
