package rabbitmq

import (
	"errors"
	"testing"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

func TestCheck(t *testing.T) {
	good := func() Config {
		return Config{Addresses: []string{"h:5672"}, Queue: "q", Username: "u", Password: connect.Fixed("p")}
	}
	c := good()
	if err := c.check(); err != nil || c.VHost != "/" || c.DeadQueue != "q.dead" || c.Heartbeat != 10*time.Second {
		t.Errorf("%+v, %v", c, err)
	}
	for field, change := range map[string]func(*Config){
		"addresses":    func(c *Config) { c.Addresses = nil },
		"addresses[0]": func(c *Config) { c.Addresses = []string{"amqp://u:p@h"} },
		"queue":        func(c *Config) { c.Queue = "" },
		"deadQueue":    func(c *Config) { c.DeadQueue = "q" },
		"create":       func(c *Config) { c.Create = "stream" },
		"heartbeat":    func(c *Config) { c.Heartbeat = time.Millisecond },
		"username":     func(c *Config) { c.Username = "" },
		"external":     func(c *Config) { c.External = true },
		"timestamps":   func(c *Config) { c.Timestamps = true },
		"management":   func(c *Config) { c.Management = "http://u:p@h" },
	} {
		c := good()
		change(&c)
		_, err := New(t.Context(), c)
		var f *fleet.FieldError
		if !errors.As(err, &f) || f.Field != field || !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestHeaders(t *testing.T) {
	at := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	got := headers(amqp.Table{
		"s": "ż", "b": []byte("x"), "raw": []byte{0xff}, "n": nil, "i": int32(-3), "yes": true, "at": at,
		"d": amqp.Decimal{Scale: 2, Value: 314}, "deep": amqp.Table{"a": []any{int64(1), "x", at}},
	})
	for k, want := range map[string]string{
		"s": "ż", "b": "x", "raw": "/w==", "n": "", "i": "-3", "yes": "true", "at": "2025-01-02T03:04:05Z",
		"d": "314e-2", "deep": `{"a":[1,"x","2025-01-02T03:04:05Z"]}`,
	} {
		if got[k] != want {
			t.Errorf("%s is %q, want %q", k, got[k], want)
		}
	}
	if headers(nil) != nil {
		t.Error("no headers are nil")
	}
}

func TestAttempt(t *testing.T) {
	for _, tt := range []struct {
		count any
		again bool
		want  int
	}{{nil, false, 1}, {nil, true, 2}, {int64(0), false, 1}, {int64(1), true, 2}, {int64(7), true, 8}, {int32(2), true, 3}, {int64(-5), true, 2}, {int64(1 << 62), true, 1<<30 + 1}, {"7", true, 2}} {
		d := amqp.Delivery{Redelivered: tt.again, Headers: amqp.Table{"x-delivery-count": tt.count}}
		if got := attempt(&d); got != tt.want {
			t.Errorf("%v, %v: %d, want %d", tt.count, tt.again, got, tt.want)
		}
	}
}

// What is set aside must not be copied elsewhere, expire or be refused.
func TestProperties(t *testing.T) {
	d := amqp.Delivery{Headers: amqp.Table{"CC": []any{"x"}, "BCC": []any{"y"}, "k": "v"}, Expiration: "1000", UserId: "someone", MessageId: "m", ContentType: "text/plain"}
	got := properties(&d)
	if len(got.Headers) != 1 || got.Headers["k"] != "v" || got.Expiration != "" || got.UserId != "" || got.MessageId != "m" || got.ContentType != "text/plain" || got.DeliveryMode != amqp.Persistent {
		t.Errorf("%+v", got)
	}
	if len(d.Headers) != 3 {
		t.Error("the delivery was changed")
	}
}

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		code   int
		reason string
		want   error
	}{
		{amqp.NotFound, "NOT_FOUND - no queue 'q' in vhost '/'", fleet.ErrNotFound},
		{amqp.NotFound, "NOT_FOUND - home node 'r@h' of durable queue 'q' in vhost '/' is down or inaccessible", fleet.ErrUnavailable},
		{amqp.AccessRefused, "ACCESS_REFUSED", fleet.ErrDenied},
		{amqp.NotAllowed, "NOT_ALLOWED - vhost v not found", fleet.ErrDenied},
		{amqp.NotAllowed, "NOT_ALLOWED - connection limit (1) is reached", fleet.ErrUnavailable},
		{amqp.ConnectionForced, "CONNECTION_FORCED", fleet.ErrUnavailable},
	} {
		if err := classify(&amqp.Error{Code: tt.code, Reason: tt.reason}); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.reason, err, tt.want)
		}
	}
	timeout := &amqp.Error{Code: amqp.PreconditionFailed, Reason: "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms."}
	if got := why(timeout); got != "the broker's consumer_timeout took the message back; raise it for this queue" {
		t.Error(got)
	}
}

func TestPeaks(t *testing.T) {
	var p peaks
	now := time.Unix(1_700_000_000, 0)
	p.note(now, 3)
	p.note(now, 1)
	p.note(now.Add(5*time.Second), 2)
	for after, want := range map[time.Duration]int64{0: 3, 15 * time.Second: 3, 16 * time.Second: 2, 30 * time.Second: 0} {
		if got := p.most(now.Add(after)); got != want {
			t.Errorf("after %s: %d, want %d", after, got, want)
		}
	}
}

func TestStatistics(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	got, err := parseStatistics([]byte(`{"state":"running","messages_unacknowledged":2,"message_stats":{"publish":7,"ack":1},"head_message_timestamp":1600000000}`), now)
	if err != nil || got.unacked != 2 || got.arrived != 7 || got.head.Unix() != 1600000000 || !got.at.Equal(now) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := parseStatistics([]byte(`{"messages_unacknowledged":0,"message_stats":[],"head_message_timestamp":""}`), now); err != nil || got.arrived != 0 || !got.head.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{``, `[]`, `{}`, `{"state":"minority","messages_unacknowledged":0}`, `<html>`} {
		if _, err := parseStatistics([]byte(bad), now); !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", bad, err)
		}
	}
}

func FuzzStatistics(f *testing.F) {
	f.Add([]byte(`{"state":"running","messages_unacknowledged":2,"message_stats":{"publish":7},"head_message_timestamp":1}`))
	f.Add([]byte(`{"messages_unacknowledged":null,"message_stats":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseStatistics(b, time.Unix(1, 0))
		if (err != nil) != got.at.IsZero() {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add("k", "v", []byte{0xff}, int64(3), true)
	f.Fuzz(func(t *testing.T, k, v string, b []byte, n int64, again bool) {
		d := amqp.Delivery{Redelivered: again, Timestamp: time.Unix(n, 0), Headers: amqp.Table{
			k: v, "x-delivery-count": n, "deep": amqp.Table{k: []any{v, b, n, amqp.Table{v: b}}}, "raw": b,
		}}
		m := message(&d)
		if m.Attempt < 1 || !utf8.ValidString(m.Headers["raw"]) && k != "raw" || m.At.After(time.Now().Add(2*time.Hour)) {
			t.Errorf("%+v", m)
		}
	})
}
