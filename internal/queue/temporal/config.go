package temporal

import (
	"fmt"
	"net"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// Config says which task queue to read, and where.
type Config struct {
	Address   string // host:port of the frontend service
	Namespace string // default "default"
	TaskQueue string
	// Kinds are those of "workflow", "activity" and "nexus" that count; default
	// workflow and activity.
	Kinds []string
	// APIKey is sent as a bearer token; only with TLS.
	APIKey connect.Credential
	TLS    connect.TLS
	// Timeout of a reading, 100 ms to 5 s; default 4 s.
	Timeout time.Duration
}

var kinds = map[string]enums.TaskQueueType{
	"workflow": enums.TASK_QUEUE_TYPE_WORKFLOW, "activity": enums.TASK_QUEUE_TYPE_ACTIVITY, "nexus": enums.TASK_QUEUE_TYPE_NEXUS,
}

func wrong(field, right, format string, args ...any) error {
	return &fleet.FieldError{Field: field, Wrong: fmt.Sprintf(format, args...), Right: right}
}

// check finds the first field that cannot be.
func (c Config) check() error {
	host, port, err := net.SplitHostPort(c.Address)
	switch {
	case err != nil || host == "" || port == "" || strings.ContainsAny(c.Address, "/@ "):
		// Not shown: it may have a password in it.
		return wrong("address", "host:port, such as temporal-frontend:7233", "is none")
	case c.TaskQueue == "":
		return wrong("taskQueue", "the name of a task queue", "is missing")
	case c.APIKey != nil && !c.TLS.Enabled:
		return wrong("tls", "TLS, so that the key is not sent in clear", "is off, and there is an API key")
	case c.Timeout != 0 && (c.Timeout < 100*time.Millisecond || c.Timeout > 5*time.Second):
		return wrong("timeout", "100ms to 5s", "is %s", c.Timeout)
	}
	seen := map[string]bool{}
	for i, k := range c.Kinds {
		if _, ok := kinds[k]; !ok || seen[k] {
			return wrong(fmt.Sprintf("kinds[%d]", i), "workflow, activity or nexus, each at most once", "is %.20q", k)
		}
		seen[k] = true
	}
	return nil
}
