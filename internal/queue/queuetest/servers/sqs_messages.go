package servers

import (
	"crypto/md5" //nolint:gosec // the protocol's digest
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// told is a message as ReceiveMessage returns it: with the attributes that
// were asked for.
func told(m *sqsMessage, fifo bool, in receiveInput) map[string]any {
	all := map[string]string{
		"SenderId":                         "AIDAEXAMPLE",
		"SentTimestamp":                    strconv.FormatInt(m.sent.UnixMilli(), 10),
		"ApproximateReceiveCount":          strconv.Itoa(m.count),
		"ApproximateFirstReceiveTimestamp": strconv.FormatInt(m.first.UnixMilli(), 10),
	}
	if m.trace != "" {
		all["AWSTraceHeader"] = m.trace
	}
	if m.source != "" {
		all["DeadLetterQueueSourceArn"] = m.source
	}
	if fifo {
		all["MessageGroupId"], all["MessageDeduplicationId"], all["SequenceNumber"] = m.group, m.dedup, strconv.FormatInt(m.seq, 10)
	} else if m.group != "" {
		all["MessageGroupId"] = m.group
	}
	system := map[string]string{}
	for _, name := range append(in.MessageSystemAttributeNames, in.AttributeNames...) {
		for k, v := range all {
			if name == "All" || name == k {
				system[k] = v
			}
		}
	}
	attributes := map[string]sqsAttribute{}
	for _, name := range in.MessageAttributeNames {
		prefix, open := strings.CutSuffix(name, ".*")
		for k, v := range m.attributes {
			if name == "All" || name == k || open && strings.HasPrefix(k, prefix) {
				attributes[k] = v
			}
		}
	}
	out := map[string]any{"MessageId": m.id, "ReceiptHandle": m.handle, "Body": m.body, "MD5OfBody": digest(m.body)}
	if len(system) > 0 {
		out["Attributes"] = system
	}
	if len(attributes) > 0 {
		out["MessageAttributes"] = attributes
	}
	return out
}

func digest(body string) string {
	sum := md5.Sum([]byte(body)) //nolint:gosec // the protocol's digest
	return hex.EncodeToString(sum[:])
}

type sendInput struct {
	MessageBody             string
	DelaySeconds            *int
	MessageAttributes       map[string]sqsAttribute
	MessageSystemAttributes map[string]sqsAttribute
	MessageGroupID          string `json:"MessageGroupId"`
	MessageDeduplicationID  string `json:"MessageDeduplicationId"`
}

func (in sendInput) size() int {
	n := len(in.MessageBody)
	for k, a := range in.MessageAttributes {
		n += len(k) + len(a.DataType) + len(or(a.StringValue, "")) + len(a.BinaryValue)
	}
	return n
}

// allowed says whether SQS takes the text: "#x9 | #xA | #xD | #x20 to #xD7FF |
// #xE000 to #xFFFD | #x10000 to #x10FFFF" (SendMessage).
func allowed(text string) bool {
	for _, r := range text {
		if r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return false
		}
	}
	return true
}

var attributeName = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

func checkAttribute(name string, a sqsAttribute) error {
	lower := strings.ToLower(name)
	if len(name) > 256 || !attributeName.MatchString(name) || strings.HasPrefix(lower, "aws.") || strings.HasPrefix(lower, "amazon.") {
		return invalid("The message attribute name %q is invalid.", name)
	}
	kind, _, _ := strings.Cut(a.DataType, ".")
	switch kind {
	case "String", "Number":
		if or(a.StringValue, "") == "" {
			return invalid("The message attribute %q must contain a non-empty message attribute value.", name)
		}
		if !allowed(*a.StringValue) {
			return invalid("The message attribute %q has characters outside the allowed set.", name)
		}
	case "Binary":
		if len(a.BinaryValue) == 0 {
			return invalid("The message attribute %q must contain a non-empty message attribute value.", name)
		}
	default:
		return invalid("The message attribute %q has an invalid message attribute type.", name)
	}
	return nil
}

// send is SendMessage, for each entry of a batch too.
func (s *SQS) send(q *sqsQueue, now time.Time, in sendInput) (map[string]any, error) {
	switch {
	case in.MessageBody == "":
		return nil, refuse("MissingParameter", "The request must contain the parameter MessageBody.")
	case !allowed(in.MessageBody):
		return nil, refuse("InvalidMessageContents", "Invalid characters found in the message body.")
	case in.size() > q.number("MaximumMessageSize"):
		return nil, invalid("One or more parameters are invalid. Reason: Message must be shorter than %s bytes.", q.attributes["MaximumMessageSize"])
	case len(in.MessageAttributes) > sqsAttributes:
		return nil, invalid("Number of message attributes [%d] exceeds the allowed maximum [10].", len(in.MessageAttributes))
	case q.fifo && in.MessageGroupID == "":
		return nil, refuse("MissingParameter", "The request must contain the parameter MessageGroupId.")
	case q.fifo && in.DelaySeconds != nil && *in.DelaySeconds != 0:
		return nil, invalid("Value %d for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for this queue type", *in.DelaySeconds)
	case !q.fifo && in.MessageDeduplicationID != "":
		return nil, invalid("The request include parameter that is not valid for this queue type")
	}
	for name, a := range in.MessageAttributes {
		if err := checkAttribute(name, a); err != nil {
			return nil, err
		}
	}
	delay := q.seconds("DelaySeconds")
	if in.DelaySeconds != nil {
		delay = time.Duration(*in.DelaySeconds) * time.Second
	}
	if delay < 0 || delay > sqsDelay {
		return nil, invalid("Value %d for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900.", *in.DelaySeconds)
	}
	id := uuid()
	out := map[string]any{"MessageId": id, "MD5OfMessageBody": digest(in.MessageBody)}
	if q.fifo {
		if in.MessageDeduplicationID == "" {
			if q.attributes["ContentBasedDeduplication"] != "true" {
				return nil, invalid("The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly")
			}
			sum := sha256.Sum256([]byte(in.MessageBody))
			in.MessageDeduplicationID = hex.EncodeToString(sum[:])
		}
		// "Any messages sent with the same message deduplication ID are accepted
		// successfully but aren't delivered during the 5-minute deduplication interval."
		if at, seen := q.seen[in.MessageDeduplicationID]; seen && now.Sub(at) < sqsDedup {
			out["MessageId"] = q.seenID[in.MessageDeduplicationID]
			return out, nil
		}
		q.seen[in.MessageDeduplicationID], q.seenID[in.MessageDeduplicationID] = now, id
		out["SequenceNumber"] = strconv.FormatInt(q.seq+1, 10)
	}
	q.add(&sqsMessage{
		id: id, body: in.MessageBody, attributes: in.MessageAttributes, trace: or(in.MessageSystemAttributes["AWSTraceHeader"].StringValue, ""),
		group: in.MessageGroupID, dedup: in.MessageDeduplicationID, sent: now,
	}, now, delay)
	return out, nil
}

func (s *SQS) sendMessage(in struct {
	ofQueue
	sendInput
},
) (any, error) {
	q, now, err := s.queue(in.QueueURL)
	if err != nil {
		return nil, err
	}
	return s.send(q, now, in.sendInput)
}

type handled struct{ ReceiptHandle string }

func (s *SQS) deleteMessage(in struct {
	ofQueue
	handled
},
) (any, error) {
	q, now, err := s.queue(in.QueueURL)
	if err != nil {
		return nil, err
	}
	return struct{}{}, q.remove(now, in.ReceiptHandle)
}

func (s *SQS) changeVisibility(in struct {
	ofQueue
	handled
	VisibilityTimeout int
},
) (any, error) {
	q, now, err := s.queue(in.QueueURL)
	if err != nil {
		return nil, err
	}
	return struct{}{}, q.change(now, in.ReceiptHandle, in.VisibilityTimeout)
}
