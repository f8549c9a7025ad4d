package kafka

import (
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strconv"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// Mechanisms are the ways to authenticate (SASL) that the adapter knows.
var Mechanisms = []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"}

// Config says where the topic is and how it is consumed.
type Config struct {
	// Brokers are one or more of the cluster's, as host:port; the others are
	// learnt from them.
	Brokers []string
	// Topic holds the messages. It must exist: how many partitions it has, and
	// so how many control planes can share it, is for its owner to say.
	Topic string
	// Group is the consumer group; default "muster". What it has committed is
	// what is worked off; a new group begins at the topic's oldest record.
	Group string
	// DeadTopic is where messages are set aside; default: Topic + ".dead". It is
	// created at the first one where it does not exist.
	DeadTopic string
	// ReadOnly: the topic is worked off by others, as the group Group, and only
	// Stats works. Nothing joins, fetches, commits, produces or creates. There
	// is no default for DeadTopic then: it is counted where it is given.
	ReadOnly bool
	// Session is how long the group waits for a control plane that fell silent
	// before its partitions go to the others, 1 s to 30 min; default 30 s. The
	// brokers bound it: group.min.session.timeout.ms, 6 s unless changed.
	Session time.Duration
	// Handover is how long a partition that is to move to another control plane
	// stays for the tasks of it that are about to end, 0 to 1 min; nothing new
	// of it is handed out meanwhile. Nil: 5 s.
	Handover *time.Duration
	// Member makes this a static member of the group: a restart under the same
	// name within Session takes its partitions up again and moves none. Empty:
	// none. No two processes may have the same.
	Member string
	// Mechanism is one of Mechanisms; empty: none, or SCRAM-SHA-512 where there
	// is a User.
	Mechanism string
	User      string             // not for OAUTHBEARER
	Password  connect.Credential // for OAUTHBEARER: the token
	TLS       connect.TLS
	// Log is told of records that retention removed unread; nil: slog.Default.
	Log *slog.Logger
}

// topicName is what a broker accepts, see Kafka's
// org.apache.kafka.common.internals.Topic.
var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

func bad(field, right, wrong string, args ...any) error {
	return &fleet.FieldError{Field: field, Wrong: fmt.Sprintf(wrong, args...), Right: right}
}

// complete checks the configuration and fills in defaults.
func (c *Config) complete() error {
	if c.Group == "" {
		c.Group = "muster"
	}
	if c.DeadTopic == "" && !c.ReadOnly {
		c.DeadTopic = c.Topic + ".dead"
	}
	if c.Session == 0 {
		c.Session = 30 * time.Second
	}
	if c.Handover == nil {
		d := 5 * time.Second
		c.Handover = &d
	}
	if c.Mechanism == "" && c.User != "" {
		c.Mechanism = "SCRAM-SHA-512"
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if len(c.Brokers) == 0 {
		return bad("brokers", "at least one host:port", "are missing")
	}
	for i, b := range c.Brokers {
		if _, port, err := net.SplitHostPort(b); err != nil || !isPort(port) {
			return bad(fmt.Sprintf("brokers[%d]", i), "host:port, such as kafka:9092", "%q is no address", b)
		}
	}
	for _, t := range []struct{ field, name string }{{"topic", c.Topic}, {"deadTopic", c.DeadTopic}} {
		if t.field == "deadTopic" && t.name == "" {
			continue // nobody sets anything aside
		}
		if !topicName.MatchString(t.name) || t.name == "." || t.name == ".." {
			return bad(t.field, `1-249 letters, digits, ".", "_" and "-"`, "%q cannot be a topic", t.name)
		}
	}
	if c.DeadTopic == c.Topic {
		return bad("deadTopic", "another topic", "is the topic itself")
	}
	if c.Session < time.Second || c.Session > 30*time.Minute {
		return bad("session", "1s to 30m", "%s is out of range", c.Session)
	}
	if *c.Handover < 0 || *c.Handover > time.Minute {
		return bad("handover", "0s to 1m", "%s is out of range", *c.Handover)
	}
	return c.secrets()
}

func (c *Config) secrets() error {
	switch {
	case c.Mechanism != "" && !slices.Contains(Mechanisms, c.Mechanism):
		return bad("mechanism", fmt.Sprintf("one of %q", Mechanisms), "%q is not known", c.Mechanism)
	case c.Mechanism == "" && c.Password != nil:
		return bad("user", "the name that the password belongs to", "is missing")
	case c.Mechanism != "" && c.Password == nil:
		return bad("password", "where the password or token is", "is missing")
	case c.Mechanism == "OAUTHBEARER" && c.User != "":
		return bad("user", "none: the token names the user", "has no meaning with OAUTHBEARER")
	case c.Mechanism != "" && c.Mechanism != "OAUTHBEARER" && c.User == "":
		return bad("user", "the name that the password belongs to", "is missing")
	}
	return nil
}

func isPort(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n > 0 && n < 65536
}
