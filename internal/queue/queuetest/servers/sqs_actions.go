package servers

import (
	"context"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// sqsActions are the calls that the fake answers.
var sqsActions = map[string]func(*SQS, context.Context, []byte) (any, error){
	"CreateQueue":                  on((*SQS).createQueue),
	"DeleteQueue":                  on((*SQS).deleteQueue),
	"GetQueueUrl":                  on((*SQS).getQueueURL),
	"GetQueueAttributes":           on((*SQS).getQueueAttributes),
	"SetQueueAttributes":           on((*SQS).setQueueAttributes),
	"PurgeQueue":                   on((*SQS).purgeQueue),
	"SendMessage":                  on((*SQS).sendMessage),
	"SendMessageBatch":             on((*SQS).sendBatch),
	"DeleteMessage":                on((*SQS).deleteMessage),
	"DeleteMessageBatch":           on((*SQS).deleteBatch),
	"ChangeMessageVisibility":      on((*SQS).changeVisibility),
	"ChangeMessageVisibilityBatch": on((*SQS).changeBatch),
	"ReceiveMessage": func(s *SQS, ctx context.Context, body []byte) (any, error) {
		var in receiveInput
		if err := decode(body, &in); err != nil {
			return nil, err
		}
		return s.receiveMessage(ctx, in)
	},
}

// on makes an action of a method that runs under the lock and does not wait.
func on[T any](do func(*SQS, T) (any, error)) func(*SQS, context.Context, []byte) (any, error) {
	return func(s *SQS, _ context.Context, body []byte) (any, error) {
		var in T
		if err := decode(body, &in); err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return do(s, in)
	}
}

func decode(body []byte, into any) error {
	if err := json.Unmarshal(body, into); err != nil {
		return &apiError{400, "SerializationException", err.Error()}
	}
	return nil
}

// queue finds a queue by its URL, as it is now; the lock must be held.
func (s *SQS) queue(url string) (*sqsQueue, time.Time, error) {
	now := time.Now()
	path := strings.TrimPrefix(strings.TrimPrefix(url, "https://"), "http://")
	_, path, _ = strings.Cut(path, "/")
	q := s.queues["/"+path]
	if q == nil {
		return nil, now, refuse("QueueDoesNotExist", "The specified queue does not exist.")
	}
	q.settle(now)
	return q, now, nil
}

// byARN is the queue that a redrive policy names.
func (s *SQS) byARN(arn string) *sqsQueue {
	for _, q := range s.queues {
		if q.arn == arn {
			return q
		}
	}
	return nil
}

var queueName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,75}(\.fifo)?$`)

// defaults and ranges of the attributes: CreateQueue in the API Reference.
var sqsDefaults = map[string]struct{ value, least, most int }{
	"DelaySeconds":                  {0, 0, 900},
	"MaximumMessageSize":            {sqsLargest, 1024, sqsLargest},
	"MessageRetentionPeriod":        {345600, 60, 1209600},
	"ReceiveMessageWaitTimeSeconds": {0, 0, 20},
	"VisibilityTimeout":             {30, 0, 43200},
}

func (s *SQS) createQueue(in struct {
	QueueName  string
	Attributes map[string]string
},
) (any, error) {
	fifo := in.Attributes["FifoQueue"] == "true"
	if !queueName.MatchString(in.QueueName) || fifo != strings.HasSuffix(in.QueueName, ".fifo") {
		return nil, invalid("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length; the name of a FIFO queue ends in .fifo")
	}
	if err := s.checkAttributes(in.Attributes, fifo); err != nil {
		return nil, err
	}
	attributes := map[string]string{}
	for k, d := range sqsDefaults {
		attributes[k] = strconv.Itoa(d.value)
	}
	for k, v := range in.Attributes {
		attributes[k] = v
	}
	q := newQueue(in.QueueName, s.Endpoint(), attributes)
	path := "/" + SQSAccount + "/" + q.name
	if s.queues[path] != nil {
		return nil, refuse("QueueNameExists", "A queue already exists with the same name and a different value for an attribute.")
	}
	s.queues[path] = q
	return map[string]string{"QueueUrl": q.url}, nil
}

func (s *SQS) checkAttributes(attributes map[string]string, fifo bool) error {
	for k, v := range attributes {
		switch k {
		case "FifoQueue", "ContentBasedDeduplication":
			if v != "true" && v != "false" {
				return refuse("InvalidAttributeValue", "Invalid value for the parameter %s.", k)
			}
		case "RedrivePolicy":
			dead, most := redrive(v)
			q := s.byARN(dead)
			if q == nil || q.fifo != fifo || most < 1 || most > 1000 {
				return refuse("InvalidAttributeValue", "Value %s for parameter RedrivePolicy is invalid. Reason: Dead letter target does not exist, or is of another kind.", v)
			}
		default:
			d, known := sqsDefaults[k]
			if !known {
				return refuse("InvalidAttributeName", "Unknown Attribute %s.", k)
			}
			if n, err := strconv.Atoi(v); err != nil || n < d.least || n > d.most {
				return refuse("InvalidAttributeValue", "Invalid value for the parameter %s.", k)
			}
		}
	}
	return nil
}

// redrive reads a RedrivePolicy; maxReceiveCount comes as a number or a text.
func redrive(policy string) (arn string, most int) {
	var p struct {
		DeadLetterTargetArn string      `json:"deadLetterTargetArn"`
		MaxReceiveCount     json.Number `json:"maxReceiveCount"`
	}
	if json.Unmarshal([]byte(policy), &p) != nil {
		return "", 0
	}
	most, _ = strconv.Atoi(p.MaxReceiveCount.String())
	return p.DeadLetterTargetArn, most
}

type ofQueue struct {
	QueueURL string `json:"QueueUrl"`
}

func (s *SQS) deleteQueue(in ofQueue) (any, error) {
	q, _, err := s.queue(in.QueueURL)
	if err != nil {
		return nil, err
	}
	delete(s.queues, "/"+SQSAccount+"/"+q.name)
	q.notify()
	return struct{}{}, nil
}

func (s *SQS) purgeQueue(in ofQueue) (any, error) {
	q, _, err := s.queue(in.QueueURL)
	if err != nil {
		return nil, err
	}
	for _, m := range append(q.ready, q.hidden...) {
		m.deleted = true
	}
	q.ready, q.hidden, q.bulk, q.flying, q.locked = nil, nil, 0, 0, map[string]int{}
	return struct{}{}, nil
}

func (s *SQS) getQueueURL(in struct {
	QueueName string
	Owner     string `json:"QueueOwnerAWSAccountId"`
},
) (any, error) {
	q := s.queues["/"+SQSAccount+"/"+in.QueueName]
	if q == nil || in.Owner != "" && in.Owner != SQSAccount {
		return nil, refuse("QueueDoesNotExist", "The specified queue does not exist.")
	}
	return map[string]string{"QueueUrl": q.url}, nil
}

func (s *SQS) setQueueAttributes(in struct {
	ofQueue
	Attributes map[string]string
},
) (any, error) {
	q, _, err := s.queue(in.QueueURL)
	if err != nil {
		return nil, err
	}
	if err := s.checkAttributes(in.Attributes, q.fifo); err != nil {
		return nil, err
	}
	for k, v := range in.Attributes {
		q.attributes[k] = v
	}
	return struct{}{}, nil
}

func (s *SQS) getQueueAttributes(in struct {
	ofQueue
	AttributeNames []string
},
) (any, error) {
	q, _, err := s.queue(in.QueueURL)
	if err != nil {
		return nil, err
	}
	all := map[string]string{
		"ApproximateNumberOfMessages":           strconv.Itoa(len(q.ready) + q.bulk),
		"ApproximateNumberOfMessagesNotVisible": strconv.Itoa(q.flying),
		"ApproximateNumberOfMessagesDelayed":    strconv.Itoa(len(q.hidden) - q.flying),
		"QueueArn":                              q.arn,
		"CreatedTimestamp":                      strconv.FormatInt(q.created.Unix(), 10),
	}
	for k, v := range q.attributes {
		all[k] = v
	}
	// "If you don't specify values for this parameter, the request returns empty results."
	told := map[string]string{}
	for _, name := range in.AttributeNames {
		for k, v := range all {
			if name == "All" || name == k {
				told[k] = v
			}
		}
	}
	return map[string]any{"Attributes": told}, nil
}

type receiveInput struct {
	ofQueue
	MaxNumberOfMessages         *int
	VisibilityTimeout           *int
	WaitTimeSeconds             *int
	MessageAttributeNames       []string
	MessageSystemAttributeNames []string
	AttributeNames              []string // its name before
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func (s *SQS) receiveMessage(ctx context.Context, in receiveInput) (any, error) {
	n := or(in.MaxNumberOfMessages, 1)
	visibility, wait := -time.Second, -time.Second
	if in.VisibilityTimeout != nil {
		visibility = time.Duration(*in.VisibilityTimeout) * time.Second
	}
	if in.WaitTimeSeconds != nil {
		wait = time.Duration(*in.WaitTimeSeconds) * time.Second
	}
	switch {
	case n < 1 || n > sqsBatch:
		return nil, invalid("Value %d for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if provided.", n)
	case visibility > sqsLongest || wait > 20*time.Second:
		return nil, invalid("VisibilityTimeout or WaitTimeSeconds out of range")
	}
	start := time.Now()
	for {
		out, changed, due, err := s.tryReceive(in, n, visibility)
		if err != nil || len(out) > 0 {
			return map[string]any{"Messages": out}, err
		}
		left := wait
		if wait < 0 {
			left = due.wait
		}
		left -= time.Since(start)
		if left <= 0 {
			return struct{}{}, nil
		}
		timer := time.NewTimer(min(left, due.next))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// pending is what a waiting receive waits for.
type pending struct{ wait, next time.Duration }

func (s *SQS) tryReceive(in receiveInput, n int, visibility time.Duration) ([]map[string]any, chan struct{}, pending, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, now, err := s.queue(in.QueueURL)
	if err != nil {
		return nil, nil, pending{}, err
	}
	if visibility < 0 {
		visibility = q.seconds("VisibilityTimeout")
	}
	if !q.fifo && q.flying >= sqsInFlight {
		return nil, nil, pending{}, &apiError{403, "OverLimit", "Too many messages in flight"}
	}
	arn, most := redrive(q.attributes["RedrivePolicy"])
	dead := s.byARN(arn)
	taken := q.take(now, n, visibility, func(m *sqsMessage) bool {
		if dead == nil || m.count < most {
			return false
		}
		// The time of sending stays in a standard queue, and begins anew in a FIFO
		// queue: "Setting-up dead-letter queue retention" in the Developer Guide.
		moved := &sqsMessage{id: m.id, body: m.body, attributes: m.attributes, trace: m.trace, group: m.group, dedup: m.dedup, sent: m.sent, first: m.first, count: m.count, source: q.arn}
		if q.fifo {
			moved.sent = now
		}
		m.deleted = true
		dead.add(moved, now, 0)
		return true
	})
	out := make([]map[string]any, len(taken))
	for i, m := range taken {
		out[i] = told(m, q.fifo, in)
	}
	next := time.Hour
	if len(q.hidden) > 0 {
		next = q.hidden[0].due.Sub(now) + time.Millisecond
	}
	return out, q.changed, pending{wait: q.seconds("ReceiveMessageWaitTimeSeconds"), next: next}, nil
}
