package kedaimport

import (
	"net"
	"strconv"
	"strings"

	"muster.dev/muster/api/v1alpha1"
)

func redisList(t *trigger, q *v1alpha1.Queue) {
	r := redisServer(t, q)
	t.targets("listLength")
	name := t.plain("list.name", "listName")
	if name == "" {
		name = Unknown
		t.notes.add(Todo, t.meta.at("listName"), "is missing; write it into "+t.field+".list.name")
	}
	r.List = &v1alpha1.RedisList{Name: name, Shared: true}
}

func redisStream(t *trigger, q *v1alpha1.Queue) {
	r := redisServer(t, q)
	t.targets("pendingEntriesCount", "streamLength", "lagCount")
	name := t.plain("stream.name", "stream")
	if name == "" {
		name = Unknown
		t.notes.add(Todo, t.meta.at("stream"), "is missing; write it into "+t.field+".stream.name")
	}
	r.Stream = &v1alpha1.RedisStream{Name: name, Group: t.plain("stream.group", "consumerGroup"), Shared: true}
	if r.Stream.Group == "" {
		r.Stream.Group = Unknown
		t.notes.add(Todo, t.meta.at("consumerGroup"), "is missing: KEDA counts all entries of the stream then, and Muster those that a group has not taken; write the workers' group into "+t.field+".stream.group")
	}
}

// redisServer is where the list or stream is; the same for all six triggers.
func redisServer(t *trigger, q *v1alpha1.Queue) *v1alpha1.RedisQueue {
	q.Type, t.field = "redis", "spec.queue.redis"
	r := &v1alpha1.RedisQueue{
		Addresses: redisAddresses(t),
		Username:  t.plain("username", "username"),
		Password:  t.secret("password", "password"),
	}
	q.Redis = r
	if n, ok := t.meta.whole("databaseIndex"); ok {
		r.DB = n
	}
	on := yes(t.meta.text("enableTLS"))
	if p := t.take("tls"); p != nil {
		on = true
		t.notes.add(Changed, p.at, "was taken as enable; remove "+t.field+".tls where it is not")
	}
	r.TLS = t.encrypted(on)
	switch {
	case strings.HasPrefix(t.kind, "redis-cluster"):
		r.Cluster = true
		if r.DB != 0 {
			t.notes.add(Left, t.meta.at("databaseIndex"), "a cluster has only one database")
			r.DB = 0
		}
	case strings.HasPrefix(t.kind, "redis-sentinel"):
		r.Sentinel = &v1alpha1.RedisSentinel{
			Master: t.plain("sentinel.master", "sentinelMaster"), Username: t.plain("sentinel.username", "sentinelUsername"), Password: t.secret("sentinel.password", "sentinelPassword"),
		}
		if r.Sentinel.Master == "" {
			r.Sentinel.Master = Unknown
			t.notes.add(Todo, t.meta.at("sentinelMaster"), "is missing; write the master's name into "+t.field+".sentinel.master")
		}
	case len(r.Addresses) > 1:
		t.notes.add(Todo, t.meta.at("address"), "has several addresses, of which the first was taken")
		r.Addresses = r.Addresses[:1]
	}
	return r
}

// redisAddresses are host:port, or hosts and ports beside each other.
func redisAddresses(t *trigger) []string {
	const port = "6379"
	var out []string
	for _, a := range items(t.plain("addresses", "address", "addresses")) {
		out = append(out, t.address(t.meta.at("address"), a, port))
	}
	hosts, ports := items(t.plain("addresses", "host", "hosts")), items(t.plain("addresses", "port", "ports"))
	if len(out) > 0 {
		return out
	}
	for i, h := range hosts {
		p := port
		if i < len(ports) && ports[i] != Unknown {
			p = ports[i]
		}
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			p = port
			t.notes.add(Todo, t.meta.at("ports"), "has a port that is none; "+port+" was taken")
		}
		a := t.address(t.meta.at("hosts"), h, p)
		if host, _, err := net.SplitHostPort(a); err == nil {
			a = net.JoinHostPort(host, p)
		}
		out = append(out, a)
	}
	if len(out) == 0 {
		t.notes.add(Todo, t.meta.at("address"), "is missing; write host:port into "+t.field+".addresses")
		out = []string{Unknown + ":" + port}
	}
	return out
}
