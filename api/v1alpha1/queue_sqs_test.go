package v1alpha1

import (
	"strings"
	"testing"
)

func sqsFleet(block string) string {
	return "apiVersion: muster.dev/v1alpha1\nkind: Fleet\nmetadata: {name: a}\nspec:\n  templates: [{name: default}]\n  queue:\n    type: sqs\n    sqs: {" + block + "}\n"
}

func TestSQSQueue(t *testing.T) {
	for _, block := range []string{
		`queue: agents`,
		`queue: agents.fifo, region: eu-central-1, account: "123456789012", deadLetterQueue: dead.fifo`,
		`queue: "https://sqs.eu-central-1.amazonaws.com/123456789012/agents", cloudWatch: true, longPoll: false`,
		`queue: agents, accessKeyId: {env: A}, secretAccessKey: {file: /run/s}, sessionToken: {secret: {name: aws, key: token}}`,
		`queue: agents, assumeRole: "arn:aws:iam::123456789012:role/path/muster", externalId: x-1, stsEndpoint: "https://sts.internal"`,
		`queue: agents, endpoint: "https://localhost:9324/", tls: {ca: /etc/ca.pem}`,
	} {
		if _, err := ParseFleet([]byte(sqsFleet(block))); err != nil {
			t.Errorf("%s: %v", block, err)
		}
	}
}

func TestSQSQueueProblems(t *testing.T) {
	for block, want := range map[string]string{
		``:                                         "spec.queue.sqs",
		`region: eu-central-1`:                     "spec.queue.sqs.queue",
		`queue: "a b"`:                             "spec.queue.sqs.queue",
		`queue: "https://u:pw@h/1/q"`:              "spec.queue.sqs.queue",
		`queue: "https://h"`:                       "spec.queue.sqs.queue",
		`queue: "https://h/1/q", account: "1"`:     "has no meaning with a URL",
		`queue: q, account: "12"`:                  "12 digits",
		`queue: q, region: Frankfurt`:              "spec.queue.sqs.region",
		`queue: q, deadLetterQueue: q`:             "is the queue itself",
		`queue: q, deadLetterQueue: d.fifo`:        "another kind",
		`queue: q, accessKeyId: {env: A}`:          "spec.queue.sqs.secretAccessKey",
		`queue: q, secretAccessKey: {env: A}`:      "spec.queue.sqs.accessKeyId",
		`queue: q, sessionToken: {env: A}`:         "has no meaning alone",
		`queue: q, accessKeyId: {}`:                "spec.queue.sqs.accessKeyId",
		`queue: q, assumeRole: muster`:             "spec.queue.sqs.assumeRole",
		`queue: q, externalId: x`:                  "has no meaning without one",
		`queue: q, endpoint: "localhost:9324"`:     "spec.queue.sqs.endpoint",
		`queue: q, endpoint: "https://u:pw@h"`:     "spec.queue.sqs.endpoint",
		`queue: q, endpoint: "http://h", tls: {}`:  "https://",
		`queue: q, tls: {cert: /c.pem}`:            "spec.queue.sqs.tls",
		`queue: q, cloudwatch: true`:               "spec.queue.sqs.cloudwatch",
		`queue: q, secretAccessKey: "hunter2-abc"`: "spec.queue.sqs.secretAccessKey",
	} {
		_, err := ParseFleet([]byte(sqsFleet(block)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", block, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "u:pw@") {
			t.Errorf("%s: the error shows a password: %v", block, err)
		}
	}
}
