package v1alpha1

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TemporalSignal reads the demand from task queues of Temporal; see
// docs/queues/temporal.md.
type TemporalSignal struct {
	Address   string   `json:"address" doc:"host:port of the frontend service"`
	Namespace string   `json:"namespace,omitempty" doc:"Default: default"`
	TaskQueue string   `json:"taskQueue" doc:"Name of the task queue"`
	Kinds     []string `json:"kinds,omitempty" doc:"workflow, activity, nexus: which of its kinds count; default workflow and activity"`

	APIKey  *Credential `json:"apiKey,omitempty" doc:"Sent as a bearer token; needs tls"`
	TLS     *QueueTLS   `json:"tls,omitempty"`
	Timeout string      `json:"timeout,omitempty" doc:"Of a reading, 100ms to 5s; default 4s"`
}

// TemporalKinds are the kinds of task that a task queue has.
var TemporalKinds = []string{"workflow", "activity", "nexus"}

func (q *TemporalSignal) validate(ps *problems, field string) {
	host, port, err := net.SplitHostPort(q.Address)
	if n, wrong := strconv.Atoi(port); err != nil || host == "" || wrong != nil || n < 1 || n > 65535 || strings.ContainsAny(host, "/@ ") {
		// Not shown: it may be a URL with a password in it.
		ps.addf(sub(field, "address"), "host:port, such as temporal-frontend:7233", "is none")
	}
	ps.printable(sub(field, "namespace"), q.Namespace, 255)
	ps.required(sub(field, "taskQueue"), q.TaskQueue, "the name of a task queue")
	for i, k := range q.Kinds {
		if !slices.Contains(TemporalKinds, k) || slices.Contains(q.Kinds[:i], k) {
			ps.addf(at(sub(field, "kinds"), i), "each at most once: "+strings.Join(TemporalKinds, ", "), "%q", clip(k))
		}
	}
	ps.credential(sub(field, "apiKey"), q.APIKey)
	if q.APIKey != nil && q.TLS == nil {
		ps.addf(sub(field, "tls"), "tls: {}, so that the key is not sent in clear", "is missing beside apiKey")
	}
	ps.tls(sub(field, "tls"), q.TLS)
	ps.duration(sub(field, "timeout"), q.Timeout, 100*time.Millisecond, 5*time.Second, "")
}
