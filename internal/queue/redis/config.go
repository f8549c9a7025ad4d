package redis

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// Config says where the queue is and how it is read. Exactly one of List and
// Stream is set.
type Config struct {
	// Addresses are host:port. One of a single server; the sentinels where
	// Sentinel is set; one or more nodes where Cluster is set.
	Addresses []string
	Cluster   bool
	Sentinel  *Sentinel
	// Username is a user of Redis 6's access lists; empty: the default user.
	Username string
	Password connect.Credential // nil: none
	DB       int                // 0 to 1,000,000; 0 in a cluster
	TLS      connect.TLS

	List   *List
	Stream *Stream
	// Dead is the key of the list or stream that takes what is set aside.
	// Default: the queue's key and ":dead", in a cluster with the hash tag that
	// puts it beside the queue.
	Dead string
	// ReadOnly: others work the queue off, a list by popping from it, a stream
	// through Stream.Group, which must exist. Nothing is taken, created or
	// written, no script is run, and Dead is read only where it is set.
	ReadOnly bool
	// Consumer names this process in leases and in the consumer group, the same
	// after a restart. Default "muster".
	Consumer string
}

// Sentinel says how the sentinels name the master.
type Sentinel struct {
	Master   string
	Username string
	// Password of the sentinels themselves, read when the first connection is
	// made; nil: none.
	Password connect.Credential
}

// End is an end of a list.
type End string

// Ends of a list, as LPUSH and RPUSH name them.
const (
	Left  End = "left"
	Right End = "right"
)

// List is a list that producers push message bodies to.
type List struct {
	Name string
	// Push is the end that producers push to; work is taken from the other one.
	// Default Left.
	Push End
	// Shared lists are consumed by others too, so that what we see of them does
	// not tell how many messages arrived.
	Shared bool
}

// Stream is a stream read through a consumer group, which is made, from the
// stream's beginning, where it does not exist.
type Stream struct {
	Name  string
	Group string // default "muster"
	// Body is the field that is the message's body; the others are its headers.
	// Default "body".
	Body string
	// Shared streams have other readers: entries stay in them when they are
	// worked off. Otherwise they are deleted.
	Shared bool
	// Adopt is how long an entry that was given to another consumer of the group
	// lies idle until it is taken from it; 1 min to 7 days, default 12 h.
	Adopt time.Duration
}

// check fills in the defaults.
func (c *Config) check() error {
	for _, part := range []func() error{c.checkServer, c.checkQueue, c.checkDead} {
		if err := part(); err != nil {
			return err
		}
	}
	if c.Consumer == "" {
		c.Consumer = "muster"
	}
	_, err := c.TLS.Config()
	return err
}

func wrong(field, right, format string, args ...any) error {
	return &fleet.FieldError{Field: field, Wrong: fmt.Sprintf(format, args...), Right: right}
}

func (c *Config) checkServer() error {
	if len(c.Addresses) == 0 {
		return wrong("addresses", "host:port", "is missing")
	}
	for _, a := range c.Addresses {
		// Not shown where it has an @: it may be a URL with a password.
		if _, port, err := net.SplitHostPort(a); err != nil || port == "" || strings.ContainsAny(a, "/@") {
			return wrong("addresses", "host:port", "one of them is something else")
		}
	}
	switch {
	case c.Cluster && c.Sentinel != nil:
		return wrong("sentinel", "cluster or sentinel", "has no meaning with cluster")
	case c.Sentinel != nil && c.Sentinel.Master == "":
		return wrong("sentinel.master", "the name the sentinels have for the master", "is missing")
	case !c.Cluster && c.Sentinel == nil && len(c.Addresses) > 1:
		return wrong("addresses", "one address, or cluster or sentinel", "names %d servers", len(c.Addresses))
	case c.DB < 0 || c.DB > 1_000_000:
		return wrong("db", "0 to 1000000", "%d is none", c.DB)
	case c.Cluster && c.DB != 0:
		return wrong("db", "0: a cluster has no other", "is %d", c.DB)
	}
	return nil
}

func (c *Config) checkQueue() error {
	if (c.List == nil) == (c.Stream == nil) {
		return wrong("list", "exactly one of list and stream", "both or neither is there")
	}
	if c.List != nil {
		l := *c.List
		c.List = &l
		if l.Name == "" {
			return wrong("list.name", "the key of the list", "is missing")
		}
		if l.Push == "" {
			c.List.Push = Left
		} else if l.Push != Left && l.Push != Right {
			return wrong("list.push", "left or right", "%q is none", string(l.Push))
		}
		_, err := beside("list.name", l.Name)
		return err
	}
	s := *c.Stream
	c.Stream = &s
	if s.Name == "" {
		return wrong("stream.name", "the key of the stream", "is missing")
	}
	if s.Group == "" {
		s.Group = "muster"
	}
	if s.Body == "" {
		s.Body = "body"
	}
	if s.Adopt == 0 {
		s.Adopt = 12 * time.Hour
	}
	if s.Adopt < time.Minute || s.Adopt > 7*24*time.Hour {
		return wrong("stream.adopt", "1m to 168h", "%s is out of bounds", s.Adopt)
	}
	_, err := beside("stream.name", s.Name)
	return err
}

func (c *Config) checkDead() error {
	source := c.source()
	if c.Dead == "" {
		c.Dead = source + ":dead"
		if c.Cluster {
			base, err := beside("list.name", source)
			c.Dead = base + ":dead"
			return err
		}
	}
	if c.Dead == source {
		return wrong("dead", "another key", "is the queue itself")
	}
	if c.Cluster && hashTag(c.Dead) != hashTag(source) {
		return wrong("dead", "a key with the hash tag {"+hashTag(source)+"}", "%q is in another slot of the cluster than the queue", c.Dead)
	}
	return nil
}

// source is the key of the queue.
func (c *Config) source() string {
	if c.List != nil {
		return c.List.Name
	}
	return c.Stream.Name
}

// keys are the keys the scripts use, in their order; see common.lua.
func (c *Config) keys() []string {
	source := c.source()
	base, _ := beside("", source) // checked before
	base += ":muster:"
	if c.Stream != nil {
		base += c.Stream.Group + ":"
	}
	return []string{source, base + "leases", base + "until", base + "later", base + "again", base + "counts", c.Dead, base + "bodies", base + "tries", base + "why"}
}

// hashTag is the part of a key that a cluster places it by: what is between the
// first { and the first } after it, unless that is empty; else the whole key.
// See "Hash tags" in the Redis cluster specification,
// https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/.
func hashTag(key string) string {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}

// beside is what keys begin with that are in the same slot as key.
func beside(field, key string) (string, error) {
	if hashTag(key) != key {
		return key, nil
	}
	if strings.Contains(key, "}") {
		return "", wrong(field, "a name without }, or with a hash tag such as {agents}", "no other key can be beside %q in a cluster", key)
	}
	return "{" + key + "}", nil
}

// receipt is what settles a delivery: the message's ID and the token of the
// delivery.
type receipt struct{ id, token string }

func (r receipt) String() string { return r.id + " " + r.token }

var errReceipt = errors.New("not a receipt of this queue")

func parseReceipt(s string) (receipt, error) {
	id, token, ok := strings.Cut(s, " ")
	if !ok || id == "" || token == "" || strings.Contains(token, " ") {
		return receipt{}, fmt.Errorf("%w: %w", fleet.ErrInvalid, errReceipt)
	}
	return receipt{id, token}, nil
}
