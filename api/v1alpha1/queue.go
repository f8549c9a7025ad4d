package v1alpha1

import (
	"path"
	"regexp"
	"time"
)

// QueueTypes are the kinds of queue, as spec.queue.type names them. Those after
// the first are outside; the last three can only be read.
var QueueTypes = []string{"embedded", "redis", "rabbitmq", "sqs", "nats", "postgres", "kafka", "prometheus", "http", "temporal"}

// Queue says where tasks come from. Each outside type has a block of its name.
type Queue struct {
	Type string `json:"type,omitempty" enum:"embedded,redis,rabbitmq,sqs,nats,postgres,kafka,prometheus,http,temporal"` // embedded (default)
	// MaxBacklog bounds waiting tasks; submission beyond it is refused with
	// 429. Default 1,000,000.
	MaxBacklog int `json:"maxBacklog,omitempty" minimum:"1" maximum:"10000000"`
	// Visibility is how long a lease holds without being extended. Default 30s.
	Visibility string `json:"visibility,omitempty" kube:"duration"`

	// Payload says how a message of an outside queue becomes a task. Default: it
	// is one, as JSON or YAML.
	Payload *Payload `json:"payload,omitempty"`
	// MaxDeliveries is how often a message may be delivered without becoming a
	// task before it is set aside. Default 5.
	MaxDeliveries int `json:"maxDeliveries,omitempty" minimum:"1" maximum:"1000"`
	// OnFailure says what becomes of the message of a task that did not succeed:
	// acknowledge (default: the task is on record), or deadLetter.
	OnFailure string `json:"onFailure,omitempty" enum:"acknowledge,deadLetter"`

	Redis      *RedisQueue       `json:"redis,omitempty"`
	RabbitMQ   *RabbitMQQueue    `json:"rabbitmq,omitempty"`
	SQS        *SQSQueue         `json:"sqs,omitempty"`
	NATS       *NATSQueue        `json:"nats,omitempty"`
	Postgres   *PostgresQueue    `json:"postgres,omitempty"`
	Kafka      *KafkaQueue       `json:"kafka,omitempty"`
	Prometheus *PrometheusSignal `json:"prometheus,omitempty"`
	HTTP       *HTTPSignal       `json:"http,omitempty"`
	Temporal   *TemporalSignal   `json:"temporal,omitempty"`
}

// Payload says how the bytes of a message become a task.
type Payload struct {
	// Format is task (default): the message is a task, as for muster submit -f;
	// bytes: every message becomes task, with the message as its input; expr: expr
	// makes the task.
	Format string `json:"format,omitempty" enum:"task,bytes,expr"`
	// Task is what each message becomes, with format: bytes. It has no input of
	// its own; To and Name say how the command gets the message.
	Task *TaskSpec `json:"task,omitempty"`
	To   string    `json:"to,omitempty" enum:"file,stdin,env" doc:"file (default): only $MUSTER_INPUT_FILE; stdin: the command's standard input, too; env: a variable, too"`
	Name string    `json:"name,omitempty" doc:"Name of the variable, with to: env"`
	// Expr is an expression (expr-lang.org) that makes a task, with format: expr.
	// It sees text, json, headers, id, attempt and enqueued.
	Expr string `json:"expr,omitempty"`
}

// Credential says where a secret is: in exactly one of the three. The value
// itself is never written in the fleet.
type Credential struct {
	Env    string            `json:"env,omitempty" doc:"Name of an environment variable of the control plane"`
	File   string            `json:"file,omitempty" doc:"Absolute path; one trailing newline is not part of it"`
	Secret *KubernetesSecret `json:"secret,omitempty" doc:"A Kubernetes secret, read with the pod's service account"`
}

// KubernetesSecret names one value of a Kubernetes secret.
type KubernetesSecret struct {
	Namespace string `json:"namespace,omitempty"` // default: the pod's own
	Name      string `json:"name"`
	Key       string `json:"key"`
}

// QueueTLS says how the connection to a queue is encrypted; its presence
// switches TLS on.
type QueueTLS struct {
	CA         string `json:"ca,omitempty" doc:"Absolute path of a PEM file; default: the system's authorities"`
	Cert       string `json:"cert,omitempty" doc:"Our own certificate, where the server asks for one"`
	Key        string `json:"key,omitempty" doc:"Its key"`
	ServerName string `json:"serverName,omitempty" doc:"Name in the server's certificate; default: the host"`
	// InsecureSkipVerify leaves the server's certificate unchecked.
	InsecureSkipVerify bool `json:"insecureSkipVerify,omitempty"`
}

// block is what every block of Queue can do. The receiver is never nil.
type block interface {
	validate(ps *problems, field string)
}

// blocks are the blocks that are set, by the type they belong to.
func (q *Queue) blocks() map[string]block {
	out := map[string]block{}
	if q.Redis != nil {
		out["redis"] = q.Redis
	}
	if q.RabbitMQ != nil {
		out["rabbitmq"] = q.RabbitMQ
	}
	if q.SQS != nil {
		out["sqs"] = q.SQS
	}
	if q.NATS != nil {
		out["nats"] = q.NATS
	}
	if q.Postgres != nil {
		out["postgres"] = q.Postgres
	}
	if q.Kafka != nil {
		out["kafka"] = q.Kafka
	}
	if q.Prometheus != nil {
		out["prometheus"] = q.Prometheus
	}
	if q.HTTP != nil {
		out["http"] = q.HTTP
	}
	if q.Temporal != nil {
		out["temporal"] = q.Temporal
	}
	return out
}

func (q *Queue) validate(ps *problems, field string) {
	ps.oneOf(sub(field, "type"), q.Type, QueueTypes...)
	ps.whole(sub(field, "maxBacklog"), q.MaxBacklog, 1, 10_000_000)
	ps.duration(sub(field, "visibility"), q.Visibility, 5*time.Second, 12*time.Hour, "")
	ps.whole(sub(field, "maxDeliveries"), q.MaxDeliveries, 1, 1000)
	ps.oneOf(sub(field, "onFailure"), q.OnFailure, "acknowledge", "deadLetter")
	kind := q.Type
	or(&kind, "embedded")
	if q.Payload != nil {
		q.Payload.validate(ps, sub(field, "payload"))
		if kind == "embedded" {
			ps.addf(sub(field, "payload"), "an outside queue, or no payload", "has no meaning with type embedded")
		}
	}
	blocks := q.blocks()
	for _, t := range QueueTypes {
		b := blocks[t]
		switch {
		case b != nil && t != kind:
			ps.addf(sub(field, t), "type: "+t+", or no such block", "has no meaning with type %s", clip(kind))
		case b != nil:
			b.validate(ps, sub(field, t))
		case t == kind && t != "embedded":
			ps.addf(sub(field, t), "a block that says where the queue is; see docs/queues", "is missing")
		}
	}
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// credential checks one; nil is none.
func (ps *problems) credential(field string, c *Credential) {
	if c == nil {
		return
	}
	n := 0
	if c.Env != "" {
		if n++; !envName.MatchString(c.Env) {
			ps.addf(sub(field, "env"), "the name of an environment variable", "%q cannot be one", clip(c.Env))
		}
	}
	if c.File != "" {
		n++
		absolute(ps, sub(field, "file"), c.File)
	}
	if s := c.Secret; s != nil {
		n++
		if s.Name == "" {
			ps.addf(sub(field, "secret.name"), "the name of a Kubernetes secret", "is missing")
		}
		if s.Key == "" {
			ps.addf(sub(field, "secret.key"), "the key in the secret", "is missing")
		}
	}
	if n != 1 {
		ps.addf(field, "exactly one of env, file and secret", "names %d places", n)
	}
}

// tls checks how a connection is encrypted; nil is not at all.
func (ps *problems) tls(field string, t *QueueTLS) {
	if t == nil {
		return
	}
	for _, f := range []struct{ name, path string }{{"ca", t.CA}, {"cert", t.Cert}, {"key", t.Key}} {
		if f.path != "" && !path.IsAbs(f.path) {
			ps.addf(sub(field, f.name), "an absolute path", "%q is none", clip(f.path))
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		ps.addf(field, "both cert and key, or neither", "has only one of cert and key")
	}
}

// required checks a text that must be there, printable and not too long.
func (ps *problems) required(field, s, right string) {
	if s == "" {
		ps.addf(field, right, "is missing")
		return
	}
	ps.printable(field, s, 1024)
}

func (p *Payload) validate(ps *problems, field string) {
	ps.oneOf(sub(field, "format"), p.Format, "task", "bytes", "expr")
	format := p.Format
	or(&format, "task")
	for _, f := range []struct {
		name, format string
		set          bool
	}{{"task", "bytes", p.Task != nil}, {"to", "bytes", p.To != ""}, {"name", "bytes", p.Name != ""}, {"expr", "expr", p.Expr != ""}} {
		if f.set && f.format != format {
			ps.addf(sub(field, f.name), "format: "+f.format, "has no meaning with format: %s", clip(format))
		}
	}
	switch format {
	case "bytes":
		if p.Task == nil {
			ps.addf(sub(field, "task"), `a task such as {command: ["agent", "--task-file", "-"]}`, "is missing")
			return
		}
		if p.Task.Input != nil {
			ps.addf(sub(field, "task.input"), "no input", "is taken by the message; to and name say how the command gets it")
		}
		p.Task.validate(ps, sub(field, "task"))
		(&TaskInput{To: p.To, Name: p.Name}).validate(ps, field, p.Task.Env)
	case "expr":
		if p.Expr == "" {
			ps.addf(sub(field, "expr"), `an expression such as {command: ["agent", json.prompt]}`, "is missing")
		}
	}
}
