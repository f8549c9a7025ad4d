package sqs_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/sqs"
)

func (r *rig) woken(q fleet.Source) {
	r.Helper()
	select {
	case <-q.Wake():
	case <-time.After(10 * time.Second):
		r.Fatal("not woken")
	}
}

// armed waits until the long poll is under way.
func (r *rig) armed(q fleet.Source) {
	r.Helper()
	before := r.s.Calls("ReceiveMessage")
	if m, err := q.Receive(r.Context(), 1, time.Minute); err != nil || len(m) != 0 {
		r.Fatalf("received %v, %v", m, err)
	}
	for end := time.Now().Add(10 * time.Second); r.s.Calls("ReceiveMessage") < before+2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.Fatal("no long poll")
		}
	}
	for len(q.Wake()) > 0 {
		<-q.Wake()
	}
}

func TestPush(t *testing.T) {
	r := setUp(t, "q", nil)
	var took []time.Duration
	for range 20 {
		r.armed(r.q)
		start := time.Now()
		r.publish("one")
		r.woken(r.q)
		took = append(took, time.Since(start))
		calls := r.s.Calls("ReceiveMessage")
		m, err := r.q.Receive(t.Context(), 1, time.Minute)
		if err != nil || len(m) != 1 || m[0].Attempt != 1 {
			t.Fatalf("received %v, %v", m, err)
		}
		if n := r.s.Calls("ReceiveMessage"); n != calls {
			t.Errorf("what came by push took %d more receives", n-calls)
		}
		if left := time.Until(m[0].Until); left < 20*time.Second {
			t.Errorf("the lease holds %s", left)
		}
		if err := r.q.Ack(t.Context(), m[0]); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(took)
	t.Logf("from before the send to the wake: median %s, most %s", took[len(took)/2], took[len(took)-1])
	if took[len(took)/2] > time.Second {
		t.Errorf("the median push took %s", took[len(took)/2])
	}
}

// TestPushGoesBack: nobody asks for what came by push.
func TestPushGoesBack(t *testing.T) {
	r := setUp(t, "q", nil)
	r.armed(r.q)
	r.publish("one")
	r.woken(r.q)
	start := time.Now()
	visible := func() string {
		out, err := r.s.Client().GetQueueAttributes(t.Context(), &awssqs.GetQueueAttributesInput{QueueUrl: &r.url, AttributeNames: []types.QueueAttributeName{"All"}})
		if err != nil {
			t.Fatal(err)
		}
		return out.Attributes["ApproximateNumberOfMessages"]
	}
	if visible() != "0" {
		t.Error("the message that came by push is not held")
	}
	for visible() == "0" {
		if st, err := r.q.Stats(t.Context()); err != nil || st.Backlog != 1 || st.InFlight != 0 {
			t.Errorf("while it is held: %+v, %v", st, err)
		}
		if time.Since(start) > 5*time.Second+500*time.Millisecond {
			t.Fatal("held for more than 5 s")
		}
		time.Sleep(50 * time.Millisecond)
	}
	calls := r.s.Calls("ReceiveMessage")
	for range 20 { // readings alone do not take it again
		if st, err := r.q.Stats(t.Context()); err != nil || st.Backlog != 1 {
			t.Errorf("after it went back: %+v, %v", st, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n := r.s.Calls("ReceiveMessage"); n != calls {
		t.Errorf("taken %d times more", n-calls)
	}
	if m := r.one(r.q); m.Attempt != 1 {
		t.Errorf("attempt %d, want 1: it was only looked at before", m.Attempt)
	}
}

// TestTwoFleetsDoNotPlayCatch: a message that neither can run is not handed to
// and fro until its deliveries are used up.
func TestTwoFleetsDoNotPlayCatch(t *testing.T) {
	r := setUp(t, "q", nil)
	other := closing(t, r.conf)
	both := []fleet.Source{r.q, other}
	for _, q := range both {
		stats(t, q, "empty", fine) // arms without a free sandbox
	}
	r.publish("one")
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, q := range both {
			if _, err := q.Stats(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, err := r.s.Client().ReceiveMessage(t.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &r.url, WaitTimeSeconds: 5, MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"}})
	if err != nil || len(out.Messages) != 1 {
		t.Fatalf("got %v, %v", out, err)
	}
	if n := out.Messages[0].Attributes["ApproximateReceiveCount"]; n != "2" && n != "3" {
		t.Errorf("delivered %s times, want one for each fleet at most, and ours", n)
	}
}

func TestHungServer(t *testing.T) {
	r := setUp(t, "q", quiet)
	r.publish("one", "two")
	m := r.one(r.q)
	thaw := r.s.Freeze()
	defer thaw()
	calls := map[string]func() error{
		"stats":       func() error { _, err := r.q.Stats(t.Context()); return err },
		"receive":     func() error { _, err := r.q.Receive(t.Context(), 20, time.Minute); return err },
		"extend":      func() error { _, err := r.q.Extend(t.Context(), m, time.Minute); return err },
		"ack":         func() error { return r.q.Ack(t.Context(), m) },
		"nack":        func() error { return r.q.Nack(t.Context(), m, 0) },
		"dead-letter": func() error { return r.q.DeadLetter(t.Context(), m, "why") },
	}
	type result struct {
		name string
		took time.Duration
		err  error
	}
	results := make(chan result, len(calls))
	for name, call := range calls {
		go func() {
			start := time.Now()
			err := call()
			results <- result{name, time.Since(start), err}
		}()
	}
	for range calls {
		if got := <-results; !errors.Is(got.err, fleet.ErrUnavailable) || got.took > 6*time.Second {
			t.Errorf("%s of a server that hangs: %v after %s, want ErrUnavailable within 5 s", got.name, got.err, got.took)
		}
	}
	thaw()
	stats(t, r.q, "after it went on", fine)
}

func TestCloseWithCallsInFlight(t *testing.T) {
	r := setUp(t, "q", nil)
	r.armed(r.q)
	r.publish("one")
	r.woken(r.q)
	thaw := r.s.Freeze()
	defer thaw()
	failed := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		close(begun)
		_, err := r.q.Stats(t.Context())
		failed <- err
	}()
	<-begun
	timer := time.AfterFunc(300*time.Millisecond, thaw)
	defer timer.Stop()
	start := time.Now()
	if err := r.q.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("close took %s", took)
	}
	if err := <-failed; !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("a call in flight: %v, want ErrUnavailable", err)
	}
	if _, err := r.q.Receive(t.Context(), 1, time.Minute); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("receive after close: %v, want ErrUnavailable", err)
	}
	// What was only looked at is there at once for others.
	out, err := r.s.Client().ReceiveMessage(t.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &r.url})
	if err != nil || len(out.Messages) != 1 {
		t.Errorf("after close: %v, %v", out, err)
	}
}

func TestThrottled(t *testing.T) {
	r := setUp(t, "q", quiet)
	r.s.Fail("GetQueueAttributes", "RequestThrottled", 1)
	if _, err := r.q.Stats(t.Context()); err != nil {
		t.Errorf("throttled once: %v, want a second attempt", err)
	}
	r.s.Fail("GetQueueAttributes", "RequestThrottled", 2)
	if _, err := r.q.Stats(t.Context()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("throttled: %v, want ErrUnavailable", err)
	}
}

func TestOldestOfCloudWatch(t *testing.T) {
	r := setUp(t, "q", func(c *sqs.Config) { c.NoPush, c.CloudWatch = true, true })
	minute := time.Now().Truncate(time.Minute).Add(-2 * time.Minute)
	r.s.Age(func() (float64, time.Time, bool) { return 300, minute, true })
	if !r.q.Traits().Oldest {
		t.Error("the oldest message cannot be told")
	}
	if st := stats(t, r.q, "empty", fine); !st.Oldest.IsZero() {
		t.Errorf("oldest %s of an empty queue", st.Oldest)
	}
	r.publish("one")
	// It cannot be older than when the queue was empty.
	if st := stats(t, r.q, "one", fine); time.Since(st.Oldest) > time.Minute {
		t.Errorf("oldest %s, though the queue was empty just now", st.Oldest)
	}
	other := closing(t, r.conf)
	if st := stats(t, other, "one", fine); !st.Oldest.Equal(minute.Add(-4 * time.Minute)) {
		t.Errorf("oldest %s, want %s", st.Oldest, minute.Add(-4*time.Minute))
	}
	for range 5 {
		stats(t, other, "again", fine)
	}
	if n := r.s.Calls("GetMetricData"); n != 2 {
		t.Errorf("CloudWatch was asked %d times by two consumers", n)
	}
	r.s.Age(func() (float64, time.Time, bool) { return 0, time.Time{}, false })
	if st := stats(t, closing(t, r.conf), "no datapoint", fine); !st.Oldest.IsZero() || st.Backlog != 1 {
		t.Errorf("without a datapoint: %+v", st)
	}
	r.s.Deny("GetMetricData")
	if _, err := closing(t, r.conf).Stats(t.Context()); !errors.Is(err, fleet.ErrDenied) {
		t.Errorf("without the permission: %v, want ErrDenied", err)
	}
}

// TestDelayedByOthers counts what producers delay.
func TestDelayedByOthers(t *testing.T) {
	r := setUp(t, "q", nil)
	if _, err := r.s.Client().SendMessage(t.Context(), &awssqs.SendMessageInput{QueueUrl: &r.url, MessageBody: aws.String("late"), DelaySeconds: 2}); err != nil {
		t.Fatal(err)
	}
	if st := stats(t, r.q, "delayed", fine); st.Delayed != 1 || st.Backlog != 0 {
		t.Errorf("got %+v", st)
	}
	r.woken(r.q) // the empty reading began a long poll
	if m := r.one(r.q); string(m.Body) != "late" {
		t.Errorf("received %q", m.Body)
	}
}
