package v1alpha1

import (
	"strings"
	"testing"
)

func natsFleet(block string) string {
	return "apiVersion: muster.dev/v1alpha1\nkind: Fleet\nmetadata: {name: agents}\nspec:\n  queue: {type: nats, nats: " + block + "}\n  templates: [{name: default}]\n"
}

func TestNATSQueue(t *testing.T) {
	for _, good := range []string{
		`{servers: ["nats://nats:4222"], stream: TASKS}`,
		`{servers: ["tls://a:4222", "tls://b"], stream: TASKS, consumer: fleet, subject: "tasks.*.eu.>", ackWait: 2m, maxAckPending: 500, deadStream: BAD, deadSubject: dead.tasks, user: muster, password: {env: NATS_PASSWORD}, tls: {}, domain: hub, inboxPrefix: _INBOX_m}`,
		`{servers: ["nats://[::1]:4222"], stream: TASKS, bind: true, credentials: {file: /etc/muster/nats.creds}, apiPrefix: JS.agents.API.}`,
		`{servers: ["nats://nats"], stream: TASKS, nkeySeed: {secret: {name: nats, key: seed}}}`,
	} {
		if _, err := ParseFleet([]byte(natsFleet(good))); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	const ok = `servers: ["nats://nats:4222"], stream: TASKS`
	for bad, want := range map[string]string{
		`{stream: TASKS}`: "servers",
		`{servers: ["nats://u:hidden@nats"], stream: TASKS}`: "servers[0]",
		`{servers: ["nats:4222"], stream: TASKS}`:            "servers[0]",
		`{servers: ["nats://nats/x"], stream: TASKS}`:        "servers[0]",
		`{servers: ["tls://nats"], stream: TASKS}`:           "tls",
		`{servers: ["nats://nats"]}`:                         "stream",
		`{servers: ["nats://nats"], stream: a.b}`:            "stream",
		`{` + ok + `, consumer: "a b"}`:                      "consumer",
		`{` + ok + `, subject: "a.>.b"}`:                     "subject",
		`{` + ok + `, deadSubject: "dead.>"}`:                "deadSubject",
		`{` + ok + `, deadStream: TASKS}`:                    "deadStream",
		`{` + ok + `, ackWait: 100ms}`:                       "ackWait",
		`{` + ok + `, maxAckPending: -1}`:                    "maxAckPending",
		`{` + ok + `, bind: true, ackWait: 10s}`:             "ackWait",
		`{` + ok + `, domain: hub, apiPrefix: JS.x.API}`:     "apiPrefix",
		`{` + ok + `, inboxPrefix: "_INBOX.>"}`:              "inboxPrefix",
		`{` + ok + `, user: muster}`:                         "user",
		`{` + ok + `, token: {}}`:                            "token",
		`{` + ok + `, token: {env: A}, nkeySeed: {env: B}}`:  "nats",
		`{` + ok + `, tls: {cert: /a.pem}}`:                  "tls",
		`{` + ok + `, streams: X}`:                           "streams",
	} {
		_, err := ParseFleet([]byte(natsFleet(bad)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want it to name %s", bad, err, want)
		} else if strings.Contains(err.Error(), "hidden") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
}
