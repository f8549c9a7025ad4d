package rabbitmq

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"muster.dev/muster/internal/fleet"
)

// message is a delivery as the contract has it, but for the lease.
func message(d *amqp.Delivery) fleet.Message {
	return fleet.Message{
		ID: d.MessageId, Body: d.Body, Headers: headers(d.Headers),
		Attempt: attempt(d), At: sane(d.Timestamp, time.Now()),
	}
}

// sane drops a timestamp that cannot be the time of sending, such as one in
// milliseconds where AMQP has seconds.
func sane(t, now time.Time) time.Time {
	if t.Unix() <= 0 || t.After(now.Add(time.Hour)) {
		return time.Time{}
	}
	return t
}

// attempt counts deliveries: quorum queues count those before this one.
func attempt(d *amqp.Delivery) int {
	n := int64(1)
	switch v := d.Headers["x-delivery-count"].(type) {
	case int64:
		n += min(max(v, 0), 1<<30)
	case int32:
		n += int64(max(v, 0))
	case int16:
		n += int64(max(v, 0))
	case uint8:
		n += int64(v)
	}
	if d.Redelivered {
		n = max(n, 2)
	}
	return int(n)
}

// headers are a table as text; nil where there are none.
func headers(t amqp.Table) map[string]string {
	if len(t) == 0 {
		return nil
	}
	out := make(map[string]string, len(t))
	for k, v := range t {
		out[k] = text(v)
	}
	return out
}

func text(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case string:
		return x
	case []byte:
		if utf8.Valid(x) {
			return string(x)
		}
		return base64.StdEncoding.EncodeToString(x)
	case time.Time:
		return x.UTC().Format(time.RFC3339)
	case amqp.Decimal:
		return decimal(x)
	case amqp.Table, []any:
		if b, err := json.Marshal(plain(v)); err == nil {
			return string(b)
		}
	}
	return fmt.Sprint(v)
}

func decimal(d amqp.Decimal) string { return fmt.Sprintf("%de-%d", d.Value, d.Scale) }

// plain is a value that JSON can hold.
func plain(v any) any {
	switch x := v.(type) {
	case amqp.Table:
		out := make(map[string]any, len(x))
		for k, v := range x {
			out[k] = plain(v)
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i, v := range x {
			out[i] = plain(v)
		}
		return out
	case bool, string, int8, uint8, int16, uint16, int32, uint32, int64, nil:
		return x
	}
	return text(v)
}

// properties are what a message is published with again when it is set aside.
// Left out is what would make it go elsewhere, vanish, or be refused: CC and
// BCC (sender-selected distribution), the expiry, and the validated user.
func properties(d *amqp.Delivery) amqp.Publishing {
	h := maps.Clone(d.Headers)
	delete(h, "CC")
	delete(h, "BCC")
	return amqp.Publishing{
		Headers: h, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding,
		DeliveryMode: amqp.Persistent, Priority: d.Priority,
		CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo,
		MessageId: d.MessageId, Timestamp: d.Timestamp, Type: d.Type, AppId: d.AppId,
	}
}
