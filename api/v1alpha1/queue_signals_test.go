package v1alpha1

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func signalProblems(t *testing.T, kind, text string) string {
	t.Helper()
	var q Queue
	if err := yaml.UnmarshalStrict([]byte("type: "+kind+"\n"+kind+":\n  "+strings.ReplaceAll(text, "\n", "\n  ")), &q); err != nil {
		t.Fatal(err)
	}
	var ps problems
	q.validate(&ps, "spec.queue")
	if err := ps.err(); err != nil {
		return err.Error()
	}
	return ""
}

func checkSignal(t *testing.T, kind string, good []string, bad map[string]string) {
	t.Helper()
	for _, text := range good {
		if got := signalProblems(t, kind, text); got != "" {
			t.Errorf("%s\nrefused: %s", text, got)
		}
	}
	for text, want := range bad {
		got := signalProblems(t, kind, text)
		if !strings.Contains(got, "spec.queue."+kind+"."+want) {
			t.Errorf("%s\ngot %q\nwant %q in it", text, got, want)
		}
		if strings.Contains(got, "hunter2") {
			t.Errorf("shows a password: %s", got)
		}
	}
}

func TestHTTPSignal(t *testing.T) {
	checkSignal(t, "http", []string{
		"url: http://jobs:8080/stats\nbacklog: queue.length",
		"url: https://jobs/stats?q=a\nmethod: POST\nbody: '{}'\nheaders: {X-Team: agents}\nbacklog: '#(name==\"a\").n'\ninFlight: b\ndelayed: c\ndead: d\narrived: e\noldest: f\n" +
			"apiKey: {env: KEY}\napiKeyQuery: key\ntls: {ca: /etc/ca.pem}\ntimeout: 2s",
		"url: https://jobs\nbacklog: '@this'\noldestAt: since\nusername: u\npassword: {file: /p}",
		"url: https://jobs\nbacklog: n\ntoken: {secret: {name: a, key: b}}",
	}, map[string]string{
		"backlog: n":                                                                      "url: is missing",
		"url: jobs:8080/hunter2\nbacklog: n":                                              "url: is none",
		"url: http://u:hunter2@jobs\nbacklog: n":                                          "url: has a user in it",
		"url: http://jobs":                                                                "backlog: is missing",
		"url: http://jobs\nbacklog: n\ntls: {}":                                           "tls: is set",
		"url: http://jobs\nbacklog: n\nmethod: PUT":                                       "method: ",
		"url: http://jobs\nbacklog: n\nbody: '{}'":                                        "body: cannot be sent",
		"url: http://jobs\nbacklog: n\noldest: a\noldestAt: b":                            "oldestAt: stands beside",
		"url: http://jobs\nbacklog: n\ntimeout: 6s":                                       "timeout: ",
		"url: http://jobs\nbacklog: n\nheaders: {'a b': x}":                               "headers",
		"url: http://jobs\nbacklog: n\nheaders: {Authorization: hunter2}":                 "headers",
		"url: http://jobs\nbacklog: n\napiKeyHeader: X":                                   "apiKey: is missing",
		"url: http://jobs\nbacklog: n\napiKey: {env: A}\napiKeyHeader: X\napiKeyQuery: Y": "apiKeyQuery: ",
		"url: http://jobs\nbacklog: n\napiKey: {env: A}\napiKeyHeader: a b":               "apiKeyHeader: ",
		"url: http://jobs\nbacklog: n\napiKey: {env: A}\ntoken: {env: B}":                 "apiKey: is not the only way",
		"url: http://jobs\nbacklog: n\ntoken: {env: A}\nusername: u":                      "token: is not the only way",
		"url: http://jobs\nbacklog: n\npassword: {env: A}":                                "username: is missing",
		"url: http://jobs\nbacklog: n\ntoken: {env: A, file: /b}":                         "token: names 2 places",
	})
}

func TestPrometheusSignal(t *testing.T) {
	checkSignal(t, "prometheus", []string{
		"url: http://prometheus:9090\nbacklog: sum(queue_length)",
		"url: https://mimir/prometheus\nheaders: {X-Scope-OrgID: agents}\nbacklog: |\n  sum(\n    a\n  )\ninFlight: b\ndelayed: c\ndead: d\narrived: e\noldest: f\nasOf: g\nempty: zero\nstaleAfter: 90s\n" +
			"username: u\npassword: {env: P}\ntls: {ca: /ca.pem}\ntimeout: 1s",
	}, map[string]string{
		"url: http://p":                                           "backlog: is missing",
		"backlog: n":                                              "url: is missing",
		"url: http://u:hunter2@p\nbacklog: n":                     "url: has a user",
		"url: http://p\nbacklog: n\nempty: nothing":               "empty: ",
		"url: http://p\nbacklog: n\nstaleAfter: 2h":               "staleAfter: ",
		"url: http://p\nbacklog: n\ntimeout: 10s":                 "timeout: ",
		"url: http://p\nbacklog: " + strings.Repeat("x", 65537):   "backlog: has 65537 bytes",
		"url: http://p\nbacklog: n\ntls: {}":                      "tls: is set",
		"url: http://p\nbacklog: n\ntoken: {env: A}\nusername: u": "token: is not the only way",
	})
}

func TestTemporalSignal(t *testing.T) {
	checkSignal(t, "temporal", []string{
		"address: temporal:7233\ntaskQueue: work",
		"address: a.tmprl.cloud:7233\nnamespace: agents.a1\ntaskQueue: work\nkinds: [activity, nexus]\napiKey: {env: KEY}\ntls: {}\ntimeout: 2s",
	}, map[string]string{
		"taskQueue: work": "address: is none",
		"address: http://u:hunter2@t:7233\ntaskQueue: work":             "address: is none",
		"address: t:99999\ntaskQueue: work":                             "address: is none",
		"address: t:7233":                                               "taskQueue: is missing",
		"address: t:7233\ntaskQueue: work\nkinds: [work]":               `kinds[0]: "work"`,
		"address: t:7233\ntaskQueue: work\nkinds: [activity, activity]": `kinds[1]: "activity"`,
		"address: t:7233\ntaskQueue: work\napiKey: {env: KEY}":          "tls: is missing beside apiKey",
		"address: t:7233\ntaskQueue: work\ntimeout: 1m":                 "timeout: ",
	})
}
