package v1alpha1

import (
	"strings"
	"testing"
)

func TestRabbitMQQueue(t *testing.T) {
	base := func() *RabbitMQQueue {
		return &RabbitMQQueue{Addresses: []string{"rabbitmq:5672"}, Queue: "tasks", Username: "muster", Password: &Credential{Env: "RABBITMQ_PASSWORD"}}
	}
	for name, tt := range map[string]struct {
		change func(*RabbitMQQueue)
		want   string // empty: valid
	}{
		"plain": {func(*RabbitMQQueue) {}, ""},
		"everything": {func(q *RabbitMQQueue) {
			q.VHost, q.Create, q.Management, q.Timestamps, q.Heartbeat = "agents", "quorum", "https://r:15671", true, "5s"
		}, ""},
		"external": {func(q *RabbitMQQueue) {
			q.Username, q.Password, q.External, q.TLS = "", nil, true, &QueueTLS{Cert: "/c", Key: "/k"}
		}, ""},
		"no address":     {func(q *RabbitMQQueue) { q.Addresses = nil }, "spec.queue.rabbitmq.addresses"},
		"url as address": {func(q *RabbitMQQueue) { q.Addresses = []string{"amqp://rabbitmq"} }, "addresses[0]"},
		"no queue":       {func(q *RabbitMQQueue) { q.Queue = "" }, "rabbitmq.queue"},
		"long queue":     {func(q *RabbitMQQueue) { q.Queue = strings.Repeat("q", 256) }, "at most 255 bytes"},
		"own dead queue": {func(q *RabbitMQQueue) { q.DeadQueue = "tasks" }, "deadQueue"},
		"stream":         {func(q *RabbitMQQueue) { q.Create = "stream" }, "create"},
		"heartbeat":      {func(q *RabbitMQQueue) { q.Heartbeat = "1ms" }, "heartbeat"},
		"no password":    {func(q *RabbitMQQueue) { q.Password = nil }, "username and password"},
		"no certificate": {func(q *RabbitMQQueue) { q.External = true }, "external"},
		"timestamps":     {func(q *RabbitMQQueue) { q.Timestamps = true }, "timestamps"},
		"ftp":            {func(q *RabbitMQQueue) { q.Management = "ftp://r" }, "management"},
		"user in it":     {func(q *RabbitMQQueue) { q.Management = "http://u:secret@r:15672" }, "has a user in it"},
		"whose": {func(q *RabbitMQQueue) {
			q.Username, q.Password, q.External, q.TLS, q.Management = "", nil, true, &QueueTLS{Cert: "/c", Key: "/k"}, "http://r:1"
		}, "asks for a user"},
	} {
		t.Run(name, func(t *testing.T) {
			q := base()
			tt.change(q)
			var ps problems
			q.validate(&ps, "spec.queue.rabbitmq")
			err := ps.err()
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q", err, tt.want)
			case err != nil && strings.Contains(err.Error(), "secret"):
				t.Errorf("shows a password: %v", err)
			}
		})
	}
}
