package v1alpha1

import (
	"strings"
	"testing"
)

func TestKafkaQueue(t *testing.T) {
	good := func() *KafkaQueue {
		return &KafkaQueue{Brokers: []string{"kafka-0:9092", "[::1]:9092"}, Topic: "agent-tasks"}
	}
	password := &Credential{Env: "KAFKA_PASSWORD"}
	for _, tt := range []struct {
		name   string
		change func(*KafkaQueue)
		want   string // in the error; empty: none
	}{
		{"least", func(*KafkaQueue) {}, ""},
		{"everything", func(q *KafkaQueue) {
			q.Group, q.DeadTopic, q.Session, q.Handover, q.Static = "agents", "tasks.failed", "45s", "0", true
			q.Mechanism, q.User, q.Password, q.TLS = "SCRAM-SHA-256", "muster", password, &QueueTLS{CA: "/etc/ca.pem"}
		}, ""},
		{"a user alone has a mechanism", func(q *KafkaQueue) { q.User, q.Password = "muster", password }, ""},
		{"token", func(q *KafkaQueue) { q.Mechanism, q.Password = "OAUTHBEARER", password }, ""},
		{"no brokers", func(q *KafkaQueue) { q.Brokers = nil }, "q.brokers: are missing"},
		{"no port", func(q *KafkaQueue) { q.Brokers[1] = "kafka" }, `q.brokers[1]: "kafka" is no address`},
		{"bad port", func(q *KafkaQueue) { q.Brokers[0] = "kafka:99999" }, "q.brokers[0]"},
		{"no topic", func(q *KafkaQueue) { q.Topic = "" }, "q.topic: is missing"},
		{"bad topic", func(q *KafkaQueue) { q.Topic = "agent tasks" }, "cannot be a topic"},
		{"dots", func(q *KafkaQueue) { q.Topic = ".." }, "cannot be a topic"},
		{"long topic", func(q *KafkaQueue) { q.Topic = strings.Repeat("t", 247) }, "q.deadTopic: is missing"},
		{"itself", func(q *KafkaQueue) { q.DeadTopic = q.Topic }, "q.deadTopic: is the topic itself"},
		{"session", func(q *KafkaQueue) { q.Session = "100ms" }, "q.session: 100ms is too short"},
		{"handover", func(q *KafkaQueue) { q.Handover = "1h" }, "q.handover: 1h is too long"},
		{"mechanism", func(q *KafkaQueue) { q.Mechanism, q.User, q.Password = "GSSAPI", "u", password }, "q.mechanism"},
		{"user without password", func(q *KafkaQueue) { q.User = "u" }, "q.password: is missing"},
		{"password without user", func(q *KafkaQueue) { q.Password = password }, "q.user: is missing"},
		{"token without one", func(q *KafkaQueue) { q.Mechanism = "OAUTHBEARER" }, "where the token is"},
		{"token with user", func(q *KafkaQueue) { q.Mechanism, q.User, q.Password = "OAUTHBEARER", "u", password }, "q.user: has no meaning"},
		{"two places", func(q *KafkaQueue) { q.User, q.Password = "u", &Credential{Env: "A", File: "/b"} }, "q.password"},
		{"TLS", func(q *KafkaQueue) { q.TLS = &QueueTLS{Cert: "/c"} }, "q.tls"},
	} {
		q := good()
		tt.change(q)
		var ps problems
		q.validate(&ps, "q")
		switch err := ps.err(); {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
