package v1alpha1

import (
	"strings"
	"testing"
)

func redisFleet(block string) string {
	return "apiVersion: muster.dev/v1alpha1\nkind: Fleet\nmetadata: {name: a}\nspec:\n  templates: [{name: default}]\n  queue:\n    type: redis\n    redis: {" + block + "}\n"
}

func TestRedisQueue(t *testing.T) {
	for _, block := range []string{
		`addresses: ["localhost:6379"], list: {name: agents}`,
		`addresses: ["[::1]:6379"], list: {name: "team{a}:agents", push: right, shared: true}, dead: "{a}dead", db: 3`,
		`addresses: ["a:1", "b:1"], cluster: true, stream: {name: agents, group: g, body: task, shared: true, adopt: 1h}, username: u, password: {env: P}, tls: {ca: /etc/ca.pem}`,
		`addresses: ["a:26379", "b:26379"], sentinel: {master: mymaster, username: s, password: {file: /run/s}}, stream: {name: agents}`,
	} {
		if _, err := ParseFleet([]byte(redisFleet(block))); err != nil {
			t.Errorf("%s: %v", block, err)
		}
	}
}

func TestRedisQueueProblems(t *testing.T) {
	for block, want := range map[string]string{
		`list: {name: agents}`:                                                                     "spec.queue.redis.addresses",
		`addresses: ["redis://u:pw@h:1"], list: {name: agents}`:                                    "spec.queue.redis.addresses[0]",
		`addresses: ["h"], list: {name: agents}`:                                                   "spec.queue.redis.addresses[0]",
		`addresses: ["a:1", "b:1"], list: {name: agents}`:                                          "or a sentinel block",
		`addresses: ["a:1"]`:                                                                       "exactly one of list and stream",
		`addresses: ["a:1"], list: {name: a}, stream: {name: b}`:                                   "exactly one of list and stream",
		`addresses: ["a:1"], list: {}`:                                                             "spec.queue.redis.list.name",
		`addresses: ["a:1"], list: {name: "a}b"}`:                                                  "a key without }",
		`addresses: ["a:1"], list: {name: "{}b"}`:                                                  "a key without }",
		`addresses: ["a:1"], list: {name: a, push: up}`:                                            "spec.queue.redis.list.push",
		`addresses: ["a:1"], list: {name: a}, dead: a`:                                             "is the queue itself",
		`addresses: ["a:1"], stream: {name: a, adopt: 1s}`:                                         "spec.queue.redis.stream.adopt",
		`addresses: ["a:1"], list: {name: a}, db: -1`:                                              "spec.queue.redis.db",
		`addresses: ["a:1"], list: {name: a}, db: 2, cluster: true`:                                "the only one of a cluster",
		`addresses: ["a:1"], list: {name: a}, sentinel: {master: m}, cluster: true`:                "cluster or sentinel",
		`addresses: ["a:1"], list: {name: a}, sentinel: {}`:                                        "spec.queue.redis.sentinel.master",
		`addresses: ["a:1"], list: {name: a}, password: {}`:                                        "spec.queue.redis.password",
		`addresses: ["a:1"], list: {name: a}, password: secret`:                                    "spec.queue.redis.password",
		`addresses: ["a:1"], list: {name: a}, sentinel: {master: m, password: {env: A, file: /b}}`: "spec.queue.redis.sentinel.password",
		`addresses: ["a:1"], list: {name: a}, tls: {cert: /c.pem}`:                                 "spec.queue.redis.tls",
		`addresses: ["a:1"], list: {name: a}, address: "a:1"`:                                      "spec.queue.redis.address",
	} {
		_, err := ParseFleet([]byte(redisFleet(block)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", block, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "u:pw@") {
			t.Errorf("%s: the error shows a password: %v", block, err)
		}
	}
}
