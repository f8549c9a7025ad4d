package sqs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"muster.dev/muster/internal/fleet"
)

const (
	// deadEvery is how often the dead-letter queue is counted: it changes seldom,
	// and each reading costs a request.
	deadEvery = 5 * time.Second
	// oldestEvery is how often CloudWatch is asked; it learns once a minute.
	oldestEvery = time.Minute
	// oldestWithin is how old a datapoint may be.
	oldestWithin = 10 * time.Minute
)

// reading is what is kept between readings.
type reading struct {
	one     sync.Mutex // of the fields below: one reading at a time asks for them
	target  where      // the dead-letter queue; zero: none
	known   bool       // target was looked up
	dead    int64
	deadAt  time.Time // zero: to be counted anew
	sample  time.Time // when the oldest message was enqueued, by CloudWatch
	askedAt time.Time
	emptyAt time.Time // when the queue was last seen empty
}

// Stats implements fleet.Signal: one request, a second every 5 s for the
// dead-letter queue, and a third every minute for CloudWatch.
func (s *Source) Stats(ctx context.Context) (fleet.SignalStats, error) {
	o, end, err := s.begin(ctx, "stats")
	if err != nil {
		return fleet.SignalStats{}, err
	}
	defer end()
	asOf := time.Now()
	held, _ := s.parked()
	attributes, err := s.attributes(o.ctx, s.queue)
	if err != nil {
		return fleet.SignalStats{}, o.fail(err)
	}
	st := fleet.SignalStats{AsOf: asOf}
	for name, to := range map[types.QueueAttributeName]*int64{
		types.QueueAttributeNameApproximateNumberOfMessages:           &st.Backlog,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible: &st.InFlight,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed:    &st.Delayed,
	} {
		if *to, err = number(attributes, name); err != nil {
			return fleet.SignalStats{}, o.fail(err)
		}
	}
	// The held message may have come or gone while SQS counted.
	now, delayed := s.parked()
	held = min(max(held, now), st.InFlight)
	st.Backlog, st.InFlight = st.Backlog+held, st.InFlight-held
	delayed = min(delayed, st.InFlight)
	st.Delayed, st.InFlight = st.Delayed+delayed, st.InFlight-delayed
	if err := s.more(o.ctx, attributes, &st); err != nil {
		return fleet.SignalStats{}, o.fail(err)
	}
	if st.Backlog == 0 && st.InFlight <= s.holds() {
		s.arm(false)
	}
	return st, nil
}

// holds counts leases of this process. What others have in flight may be held
// by their long polls: two that wait for the other's message to come back would
// hand it to and fro, and each time count as a delivery.
func (s *Source) holds() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int64(0)
	now := time.Now()
	for _, l := range s.leases {
		if now.Before(l.until) {
			n++
		}
	}
	return n
}

func (s *Source) attributes(ctx context.Context, w where) (map[string]string, error) {
	names := []types.QueueAttributeName{types.QueueAttributeNameApproximateNumberOfMessages}
	if w == s.queue {
		names = append(names, types.QueueAttributeNameApproximateNumberOfMessagesNotVisible, types.QueueAttributeNameApproximateNumberOfMessagesDelayed, types.QueueAttributeNameRedrivePolicy)
	}
	out, err := ask(ctx, s, w, func(ctx context.Context, address *string) (*sqs.GetQueueAttributesOutput, error) {
		return s.api.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: address, AttributeNames: names})
	})
	if err != nil {
		return nil, err
	}
	return out.Attributes, nil
}

// number reads a count; one that is missing is an error, never zero.
func number(attributes map[string]string, name types.QueueAttributeName) (int64, error) {
	n, err := strconv.ParseInt(attributes[string(name)], 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("the answer has no %s: %w", name, fleet.ErrUnavailable)
	}
	return n, nil
}

// more fills in what is not read each time.
func (s *Source) more(ctx context.Context, attributes map[string]string, st *fleet.SignalStats) error {
	r := &s.reading
	r.one.Lock()
	defer r.one.Unlock()
	if err := s.aim(attributes); err != nil {
		return err
	}
	if r.target.name != "" && st.AsOf.Sub(r.deadAt) >= deadEvery {
		n, err := s.countDead(ctx)
		if err != nil {
			return fmt.Errorf("dead-letter queue: %w", err)
		}
		r.dead, r.deadAt = n, st.AsOf
	}
	st.Dead = r.dead
	if s.metrics == nil {
		return nil
	}
	if st.Backlog == 0 {
		r.emptyAt = st.AsOf
		return nil
	}
	if err := s.oldest(ctx, st.AsOf); err != nil {
		return fmt.Errorf("CloudWatch: %w", err)
	}
	if st.Oldest = r.sample; !st.Oldest.IsZero() && st.Oldest.Before(r.emptyAt) {
		st.Oldest = r.emptyAt
	}
	return nil
}

// aim finds the dead-letter queue; the lock of the reading must be held.
func (s *Source) aim(attributes map[string]string) error {
	r := &s.reading
	var target where
	var err error
	if s.conf.DeadLetter != "" {
		target, err = parseQueue(s.conf.DeadLetter)
	} else {
		target, err = parseRedrive(attributes[string(types.QueueAttributeNameRedrivePolicy)])
	}
	if err != nil {
		return err
	}
	if target != r.target {
		r.target, r.dead, r.deadAt = target, 0, time.Time{}
	}
	r.known = true
	return nil
}

func (s *Source) countDead(ctx context.Context) (int64, error) {
	attributes, err := s.attributes(ctx, s.reading.target)
	if errors.Is(err, fleet.ErrNotFound) && s.conf.DeadLetter == "" {
		return 0, nil // deleted, with all that was in it
	}
	if err != nil {
		return 0, err
	}
	return number(attributes, types.QueueAttributeNameApproximateNumberOfMessages)
}

// oldest asks CloudWatch for ApproximateAgeOfOldestMessage, at most once a
// minute. Where it fails for a while the last answer stands until it is too
// old, and then none: the age cannot be told.
func (s *Source) oldest(ctx context.Context, now time.Time) error {
	r := &s.reading
	if now.Sub(r.askedAt) < oldestEvery {
		return nil
	}
	r.askedAt = now
	out, err := s.metrics.GetMetricData(ctx, &cloudwatch.GetMetricDataInput{
		StartTime: aws.Time(now.Add(-oldestWithin)), EndTime: aws.Time(now.Add(time.Minute)), ScanBy: cwtypes.ScanByTimestampDescending,
		MetricDataQueries: []cwtypes.MetricDataQuery{{Id: aws.String("oldest"), MetricStat: &cwtypes.MetricStat{
			Period: aws.Int32(60), Stat: aws.String("Maximum"),
			Metric: &cwtypes.Metric{
				Namespace: aws.String("AWS/SQS"), MetricName: aws.String("ApproximateAgeOfOldestMessage"),
				Dimensions: []cwtypes.Dimension{{Name: aws.String("QueueName"), Value: aws.String(s.queue.name)}},
			},
		}}},
	})
	if err != nil {
		err = told(err)
		if errors.Is(err, fleet.ErrDenied) || errors.Is(err, fleet.ErrInvalid) {
			r.askedAt = time.Time{}
			return err
		}
		if now.Sub(r.sample) > oldestWithin {
			r.sample = time.Time{}
		}
		return nil
	}
	r.sample = time.Time{}
	if len(out.MetricDataResults) > 0 && len(out.MetricDataResults[0].Values) > 0 && len(out.MetricDataResults[0].Timestamps) > 0 {
		r.sample = sampled(out.MetricDataResults[0].Timestamps[0], out.MetricDataResults[0].Values[0], now)
	}
	return nil
}

// sampled is when the oldest message was enqueued, at the latest: the datapoint
// was taken somewhere in its minute.
func sampled(minute time.Time, seconds float64, now time.Time) time.Time {
	taken := minute.Add(time.Minute)
	if taken.After(now) {
		taken = now
	}
	return taken.Add(-time.Duration(seconds * float64(time.Second)))
}
