package v1alpha1

import (
	"net"
	"strings"
	"time"
)

// RedisQueue is a list or a stream in Redis or Valkey; see docs/queues/redis.md.
type RedisQueue struct {
	Addresses []string       `json:"addresses" minItems:"1" maxItems:"64" doc:"host:port of the server; of nodes of the cluster; of the sentinels"`
	Cluster   bool           `json:"cluster,omitempty" doc:"The server is a Redis Cluster"`
	Sentinel  *RedisSentinel `json:"sentinel,omitempty" doc:"The addresses are sentinels, which know the master"`
	Username  string         `json:"username,omitempty" doc:"User of an access list (ACL); default: the default user"`
	Password  *Credential    `json:"password,omitempty"`
	DB        int            `json:"db,omitempty" minimum:"0" maximum:"1000000" doc:"Number of the database; default 0"`
	TLS       *QueueTLS      `json:"tls,omitempty"`

	List   *RedisList   `json:"list,omitempty" doc:"A list of message bodies; either list or stream"`
	Stream *RedisStream `json:"stream,omitempty" doc:"A stream with a consumer group; either list or stream"`
	Dead   string       `json:"dead,omitempty" doc:"Key of the list or stream of messages set aside; default: the queue's key and :dead"`
}

// RedisSentinel says how the sentinels are asked.
type RedisSentinel struct {
	Master   string      `json:"master" doc:"The sentinels' name for the master"`
	Username string      `json:"username,omitempty" doc:"User at the sentinels"`
	Password *Credential `json:"password,omitempty" doc:"Password of the sentinels themselves, read once"`
}

// RedisList is a list that producers push to.
type RedisList struct {
	Name string `json:"name" doc:"Key of the list"`
	// Push is the end that producers push to: left (LPUSH, default) or right
	// (RPUSH). Work is taken from the other end.
	Push string `json:"push,omitempty" enum:"left,right"`
	// Shared says that others take from the list, too: then its arrivals are
	// estimated instead of counted.
	Shared bool `json:"shared,omitempty"`
}

// RedisStream is a stream that is read through a consumer group.
type RedisStream struct {
	Name  string `json:"name" doc:"Key of the stream; made where it does not exist"`
	Group string `json:"group,omitempty" doc:"Consumer group; default muster; made where it does not exist, from the stream's beginning"`
	Body  string `json:"body,omitempty" doc:"Field that is the message's body; default body. The others are its headers"`
	// Shared says that others read the stream, too: entries that were worked off
	// stay in it. Otherwise they are deleted.
	Shared bool `json:"shared,omitempty"`
	// Adopt is how long an entry that another consumer of the group was given
	// lies idle until it is taken over. 1m to 168h, default 12h.
	Adopt string `json:"adopt,omitempty" kube:"duration"`
}

func (q *RedisQueue) validate(ps *problems, field string) {
	q.validateServer(ps, field)
	ps.credential(sub(field, "password"), q.Password)
	ps.tls(sub(field, "tls"), q.TLS)
	if q.Username != "" {
		ps.printable(sub(field, "username"), q.Username, 512)
	}
	if q.Dead != "" {
		ps.redisKey(sub(field, "dead"), q.Dead)
	}
	var name string
	switch {
	case (q.List == nil) == (q.Stream == nil):
		ps.addf(field, "exactly one of list and stream", "has both or neither of them")
		return
	case q.List != nil:
		name = q.List.Name
		ps.redisKey(sub(field, "list.name"), name)
		ps.oneOf(sub(field, "list.push"), q.List.Push, "left", "right")
	default:
		name = q.Stream.Name
		ps.redisKey(sub(field, "stream.name"), name)
		if q.Stream.Group != "" {
			ps.printable(sub(field, "stream.group"), q.Stream.Group, 512)
		}
		if q.Stream.Body != "" {
			ps.printable(sub(field, "stream.body"), q.Stream.Body, 512)
		}
		ps.duration(sub(field, "stream.adopt"), q.Stream.Adopt, time.Minute, 7*24*time.Hour, "")
	}
	if q.Dead != "" && q.Dead == name {
		ps.addf(sub(field, "dead"), "another key", "is the queue itself")
	}
}

func (q *RedisQueue) validateServer(ps *problems, field string) {
	if len(q.Addresses) == 0 {
		ps.addf(sub(field, "addresses"), "host:port", "is missing")
	}
	if len(q.Addresses) > 64 {
		ps.addf(sub(field, "addresses"), "at most 64", "has %d", len(q.Addresses))
	}
	for i, a := range q.Addresses {
		// Not shown: it may be a URL with a password in it.
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" || strings.ContainsAny(a, "/@ ") {
			ps.addf(at(sub(field, "addresses"), i), "host:port, such as redis.queue.svc:6379", "is something else")
		}
	}
	ps.whole(sub(field, "db"), q.DB, 0, 1_000_000)
	switch {
	case q.Cluster && q.Sentinel != nil:
		ps.addf(sub(field, "sentinel"), "cluster or sentinel", "has no meaning with cluster")
	case q.Cluster && q.DB != 0:
		ps.addf(sub(field, "db"), "0, the only one of a cluster", "is %d", q.DB)
	case q.Sentinel == nil && !q.Cluster && len(q.Addresses) > 1:
		ps.addf(sub(field, "addresses"), "one address, or cluster: true, or a sentinel block", "has %d", len(q.Addresses))
	}
	if s := q.Sentinel; s != nil {
		ps.required(sub(field, "sentinel.master"), s.Master, "the sentinels' name for the master, such as mymaster")
		ps.credential(sub(field, "sentinel.password"), s.Password)
	}
}

// redisKey checks a key that others are put beside in a cluster, by its hash
// tag: see "Hash tags" in the Redis cluster specification.
func (ps *problems) redisKey(field, key string) {
	ps.required(field, key, "the key, such as agents")
	_, rest, open := strings.Cut(key, "{")
	tag, _, closed := strings.Cut(rest, "}")
	if strings.Contains(key, "}") && (!open || !closed || tag == "") {
		ps.addf(field, "a key without }, or with a hash tag such as {agents}", "no other key can be beside %q in a cluster", clip(key))
	}
}
