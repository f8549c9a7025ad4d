package v1alpha1

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"time"
)

// KafkaMechanisms are the ways to authenticate to Kafka.
var KafkaMechanisms = []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"}

// KafkaQueue is a queue in Kafka: a topic, worked off by a consumer group.
type KafkaQueue struct {
	Brokers []string `json:"brokers" doc:"One or more of the cluster's brokers, as host:port"`
	Topic   string   `json:"topic" doc:"Holds the messages; it must exist. As many control planes can share it as it has partitions"`
	// Group has the topic worked off; default "muster". A new one begins at the
	// oldest record.
	Group     string `json:"group,omitempty" doc:"Consumer group (default muster)"`
	DeadTopic string `json:"deadTopic,omitempty" doc:"Where messages are set aside (default: the topic's name and .dead); created when first needed"`
	// Session is how long the group waits for a control plane that fell silent.
	Session string `json:"session,omitempty" doc:"After how long of silence a control plane's partitions go to others, 1s to 30m (default 30s)"`
	// Handover is how long a partition that is to move waits for its tasks.
	Handover string `json:"handover,omitempty" doc:"How long a partition that moves to another control plane waits for the tasks of it that are about to end, 0 to 1m (default 5s)"`
	// Static makes the control plane a static member of the group, under its
	// own name.
	Static    bool        `json:"static,omitempty" doc:"Keep our partitions over a restart that is shorter than the session"`
	Mechanism string      `json:"mechanism,omitempty" enum:"PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER" doc:"How to authenticate (default SCRAM-SHA-512 where there is a user)"`
	User      string      `json:"user,omitempty" doc:"Not with OAUTHBEARER"`
	Password  *Credential `json:"password,omitempty" doc:"With OAUTHBEARER: the token, read at each connection"`
	TLS       *QueueTLS   `json:"tls,omitempty"`
}

var kafkaTopic = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

func (q *KafkaQueue) validate(ps *problems, field string) {
	if len(q.Brokers) == 0 {
		ps.addf(sub(field, "brokers"), "at least one host:port", "are missing")
	}
	for i, b := range q.Brokers {
		_, port, err := net.SplitHostPort(b)
		if n, wrong := strconv.Atoi(port); err != nil || wrong != nil || n < 1 || n > 65535 {
			ps.addf(at(sub(field, "brokers"), i), "host:port, such as kafka:9092", "%q is no address", clip(b))
		}
	}
	q.topics(ps, field)
	ps.printable(sub(field, "group"), q.Group, 249)
	ps.duration(sub(field, "session"), q.Session, time.Second, 30*time.Minute, "")
	ps.duration(sub(field, "handover"), q.Handover, 10*time.Millisecond, time.Minute, "none")
	q.login(ps, field)
	ps.tls(sub(field, "tls"), q.TLS)
}

func (q *KafkaQueue) topics(ps *problems, field string) {
	right := `1-249 letters, digits, ".", "_" and "-"`
	if q.Topic == "" {
		ps.addf(sub(field, "topic"), right, "is missing")
	}
	for _, t := range []struct{ name, value string }{{"topic", q.Topic}, {"deadTopic", q.DeadTopic}} {
		if t.value != "" && (!kafkaTopic.MatchString(t.value) || t.value == "." || t.value == "..") {
			ps.addf(sub(field, t.name), right, "%q cannot be a topic", clip(t.value))
		}
	}
	switch {
	case q.Topic == "":
	case q.DeadTopic == q.Topic:
		ps.addf(sub(field, "deadTopic"), "another topic", "is the topic itself")
	case q.DeadTopic == "" && len(q.Topic)+len(".dead") > 249:
		ps.addf(sub(field, "deadTopic"), "a name of its own: with .dead the topic's would be too long", "is missing")
	}
}

func (q *KafkaQueue) login(ps *problems, field string) {
	ps.oneOf(sub(field, "mechanism"), q.Mechanism, KafkaMechanisms...)
	token := q.Mechanism == "OAUTHBEARER"
	switch {
	case token && q.User != "":
		ps.addf(sub(field, "user"), "none: the token names the user", "has no meaning with OAUTHBEARER")
	case !token && q.User == "" && (q.Mechanism != "" || q.Password != nil):
		ps.addf(sub(field, "user"), "the name that the password belongs to", "is missing")
	case q.Password == nil && (token || q.User != ""):
		what := "password"
		if token {
			what = "token"
		}
		ps.addf(sub(field, "password"), fmt.Sprintf("where the %s is: env, file or secret", what), "is missing")
	}
	ps.printable(sub(field, "user"), q.User, 256)
	ps.credential(sub(field, "password"), q.Password)
}
