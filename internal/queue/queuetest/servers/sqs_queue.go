package servers

import (
	"container/heap"
	"crypto/rand"
	"encoding/base64"
	"slices"
	"strconv"
	"time"
)

// Limits, from "Amazon SQS message quotas" and "Amazon SQS queue quotas" in
// the Developer Guide, and the API Reference of CreateQueue and SendMessage
// (1 MiB; it was 256 KiB until 2025).
const (
	sqsLargest    = 1 << 20          // bytes of body and attributes
	sqsLongest    = 12 * time.Hour   // from one receive, with all extensions
	sqsDelay      = 15 * time.Minute // of a message
	sqsInFlight   = 120_000
	sqsBatch      = 10
	sqsAttributes = 10
	sqsDedup      = 5 * time.Minute
)

// sqsMessage is a message in a queue.
type sqsMessage struct {
	id, body     string
	attributes   map[string]sqsAttribute
	trace        string
	group, dedup string
	seq          int64
	sent, first  time.Time
	count        int // deliveries
	source       string

	handle   string    // of the newest delivery
	received time.Time // when that was
	due      time.Time // visible again
	flying   bool      // in flight, else delayed, while index >= 0
	deleted  bool
	index    int // in the heap of hidden messages; -1: not in it
}

type sqsAttribute struct {
	DataType    string
	StringValue *string `json:",omitempty"`
	BinaryValue []byte  `json:",omitempty"`
}

// sqsQueue is one queue. The lock of the server guards it.
type sqsQueue struct {
	name, url, arn string
	created        time.Time
	fifo           bool
	attributes     map[string]string

	ready   []*sqsMessage // by seq
	bulk    int           // messages of Fill that nobody has received yet
	hidden  hiddenHeap
	flying  int
	locked  map[string]int         // message groups, with their messages in flight
	issued  map[string]*sqsMessage // by every receipt handle given out
	seen    map[string]time.Time   // deduplication IDs
	seenID  map[string]string
	seq     int64
	changed chan struct{} // closed when something may be there to receive
}

func newQueue(name, endpoint string, attributes map[string]string) *sqsQueue {
	return &sqsQueue{
		name: name, url: endpoint + "/" + SQSAccount + "/" + name, arn: "arn:aws:sqs:" + SQSRegion + ":" + SQSAccount + ":" + name,
		created: time.Now(), fifo: attributes["FifoQueue"] == "true", attributes: attributes,
		locked: map[string]int{}, issued: map[string]*sqsMessage{}, seen: map[string]time.Time{}, seenID: map[string]string{}, changed: make(chan struct{}),
	}
}

func (q *sqsQueue) number(attribute string) int {
	n, _ := strconv.Atoi(q.attributes[attribute]) // checked when it was set
	return n
}

func (q *sqsQueue) seconds(attribute string) time.Duration {
	return time.Duration(q.number(attribute)) * time.Second
}

func (q *sqsQueue) notify() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// add puts in a message that is due at once or later.
func (q *sqsQueue) add(m *sqsMessage, now time.Time, delay time.Duration) {
	q.seq++
	m.seq, m.index = q.seq, -1
	if delay > 0 {
		m.due = now.Add(delay)
		heap.Push(&q.hidden, m)
	} else {
		q.show(m)
	}
	q.notify()
}

// show makes a message receivable, in its old place.
func (q *sqsQueue) show(m *sqsMessage) {
	if m.index >= 0 {
		heap.Remove(&q.hidden, m.index)
	}
	if m.flying {
		q.land(m)
	}
	at, _ := slices.BinarySearchFunc(q.ready, m, func(a, b *sqsMessage) int { return int(a.seq - b.seq) })
	q.ready = slices.Insert(q.ready, at, m)
}

// land ends a message's flight.
func (q *sqsQueue) land(m *sqsMessage) {
	m.flying = false
	q.flying--
	if q.fifo {
		if q.locked[m.group]--; q.locked[m.group] == 0 {
			delete(q.locked, m.group)
		}
	}
}

// settle brings the queue up to now: what is due becomes visible, what is older
// than the retention is gone.
func (q *sqsQueue) settle(now time.Time) {
	for len(q.hidden) > 0 && !q.hidden[0].due.After(now) {
		q.show(q.hidden[0])
	}
	for len(q.ready) > 0 && now.Sub(q.ready[0].sent) > q.seconds("MessageRetentionPeriod") {
		q.ready[0].deleted = true
		q.ready = q.ready[1:]
	}
}

// take delivers up to n messages. dead is called with what was received too
// often: "when the ReceiveCount for a message exceeds the maxReceiveCount for
// a queue, Amazon SQS moves the message to the dead-letter-queue" (API
// Reference, SetQueueAttributes).
func (q *sqsQueue) take(now time.Time, n int, visibility time.Duration, dead func(*sqsMessage) bool) []*sqsMessage {
	var out []*sqsMessage
	locked := map[string]bool{}
	for g := range q.locked {
		locked[g] = true
	}
	rest := q.ready[:0:0]
	for i, m := range q.ready {
		switch {
		case len(out) == n || q.flying >= sqsInFlight:
			rest = append(rest, q.ready[i:]...)
		case q.fifo && locked[m.group]:
			// "While messages with a particular MessageGroupId are invisible, no
			// more messages belonging to the same MessageGroupId are returned"
			// (ReceiveMessage), those of this very call excepted.
			rest = append(rest, m)
			continue
		case dead(m):
			continue
		default:
			q.fly(m, now, visibility)
			out = append(out, m)
			continue
		}
		break
	}
	q.ready = rest
	for len(out) < n && q.bulk > 0 && q.flying < sqsInFlight {
		q.bulk--
		q.seq++
		m := &sqsMessage{id: uuid(), body: "x", group: strconv.FormatInt(q.seq, 10), seq: q.seq, sent: now, index: -1}
		q.fly(m, now, visibility)
		out = append(out, m)
	}
	return out
}

// fly hides a message that is delivered. "If you receive the same message more
// than once, you will get a different ReceiptHandle each time" (DeleteMessage).
func (q *sqsQueue) fly(m *sqsMessage, now time.Time, visibility time.Duration) {
	var b [48]byte
	_, _ = rand.Read(b[:]) // never fails; see crypto/rand
	m.handle = "AQEB" + base64.StdEncoding.EncodeToString(b[:])
	q.issued[m.handle] = m
	m.received, m.due, m.flying = now, now.Add(visibility), true
	if m.count++; m.count == 1 {
		m.first = now
	}
	q.flying++
	if q.fifo {
		q.locked[m.group]++
	}
	heap.Push(&q.hidden, m)
}

const (
	gone    = "Value %s for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available for visibility timeout change."
	expired = "Value %s for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired."
	beyond  = "Value %d for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is beyond the limit [43200 seconds]"
)

// change is ChangeMessageVisibility. Its documented errors are
// MessageNotInflight and ReceiptHandleIsInvalid; that a deleted message, an old
// handle and a total of more than 12 hours give InvalidParameterValue is as
// users of the service report it (mapbox/ecs-watchbot#135, aws-sdk-java#1628).
func (q *sqsQueue) change(now time.Time, handle string, seconds int) error {
	m := q.issued[handle]
	timeout := time.Duration(seconds) * time.Second
	switch {
	case m == nil:
		return refuse("ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
	case timeout < 0 || timeout > sqsLongest:
		return invalid("Value %d for parameter VisibilityTimeout is invalid. Reason: Must be between 0 and 43200, if provided.", seconds)
	case m.deleted || m.handle != handle:
		return invalid(gone, handle)
	case !m.flying && q.fifo:
		return invalid(expired, handle)
	case !m.flying:
		return refuse("MessageNotInflight", "The specified message isn't in flight.")
	case now.Add(timeout).After(m.received.Add(sqsLongest)):
		return invalid(beyond, seconds)
	case timeout == 0:
		q.show(m)
	default:
		m.due = now.Add(timeout)
		heap.Fix(&q.hidden, m.index)
	}
	q.notify()
	return nil
}

// remove is DeleteMessage. "If you use an old ReceiptHandle, the request will
// succeed, but the message might not be deleted"; a FIFO queue refuses a
// handle whose visibility ended (aws-sdk-js#1750), any queue one of more than
// 12 hours (boto3#2898).
func (q *sqsQueue) remove(now time.Time, handle string) error {
	m := q.issued[handle]
	switch {
	case m == nil:
		return refuse("ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
	case m.deleted:
		return nil
	case q.fifo && (m.handle != handle || !m.flying), m.handle == handle && now.Sub(m.received) > sqsLongest:
		return invalid(expired, handle)
	case m.handle != handle:
		return nil
	}
	m.deleted = true
	if m.flying {
		heap.Remove(&q.hidden, m.index)
		q.land(m)
	} else if i := slices.Index(q.ready, m); i >= 0 {
		q.ready = slices.Delete(q.ready, i, i+1)
	}
	q.notify() // the next of its group may be free
	return nil
}

// hiddenHeap orders hidden messages by when they are due.
type hiddenHeap []*sqsMessage

func (h hiddenHeap) Len() int           { return len(h) }
func (h hiddenHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h hiddenHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *hiddenHeap) Push(x any) {
	m := x.(*sqsMessage)
	m.index = len(*h)
	*h = append(*h, m)
}

// Pop implements heap.Interface.
func (h *hiddenHeap) Pop() any {
	last := len(*h) - 1
	m := (*h)[last]
	m.index = -1
	*h = (*h)[:last]
	return m
}
