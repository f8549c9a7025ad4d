package v1alpha1

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"
)

// RabbitMQQueue is a classic or quorum queue in RabbitMQ; see
// docs/queues/rabbitmq.md.
type RabbitMQQueue struct {
	Addresses []string `json:"addresses" doc:"Nodes of the broker, host:port each, tried in order"`
	VHost     string   `json:"vhost,omitempty" doc:"Default: /"`
	Queue     string   `json:"queue" doc:"Name of the queue"`

	Username string      `json:"username,omitempty" doc:"For the broker, and for the management API"`
	Password *Credential `json:"password,omitempty"`
	// External authenticates with tls.cert (SASL EXTERNAL) instead of a password.
	External bool      `json:"external,omitempty"`
	TLS      *QueueTLS `json:"tls,omitempty"`

	// Create declares the queue where it does not exist; without it a missing
	// queue is an error.
	Create string `json:"create,omitempty" enum:"classic,quorum"`
	// DeadQueue is where messages are set aside. Default: queue with .dead.
	DeadQueue string `json:"deadQueue,omitempty" doc:"Default: the name of the queue with .dead"`
	// UseDLX sets messages aside through the queue's own dead-letter exchange;
	// the reason is lost then.
	UseDLX bool `json:"useDLX,omitempty"`

	Management string `json:"management,omitempty" doc:"Address of the management API, such as http://rabbitmq:15672; tells arrivals, and what others hold"`
	// Timestamps: producers set the timestamp property and the queue is a classic
	// one, so that the age of its head is known. Needs management.
	Timestamps bool   `json:"timestamps,omitempty"`
	Heartbeat  string `json:"heartbeat,omitempty" doc:"1s to 10m; default 10s"`
}

func (q *RabbitMQQueue) validate(ps *problems, field string) {
	if len(q.Addresses) == 0 {
		ps.addf(sub(field, "addresses"), "host:port of at least one node, such as rabbitmq:5672", "is missing")
	}
	for i, a := range q.Addresses {
		host, port, err := net.SplitHostPort(a)
		if _, no := strconv.ParseUint(port, 10, 16); err != nil || host == "" || no != nil {
			ps.addf(fmt.Sprintf("%s[%d]", sub(field, "addresses"), i), "host:port, such as rabbitmq:5672", "%q is no address", clip(a))
		}
	}
	ps.amqpName(sub(field, "queue"), q.Queue, true)
	ps.amqpName(sub(field, "deadQueue"), q.DeadQueue, false)
	if q.DeadQueue != "" && q.DeadQueue == q.Queue {
		ps.addf(sub(field, "deadQueue"), "another queue", "is the queue itself")
	}
	ps.oneOf(sub(field, "create"), q.Create, "classic", "quorum")
	ps.duration(sub(field, "heartbeat"), q.Heartbeat, time.Second, 10*time.Minute, "")
	ps.credential(sub(field, "password"), q.Password)
	ps.tls(sub(field, "tls"), q.TLS)
	q.validateAccess(ps, field)
}

func (q *RabbitMQQueue) validateAccess(ps *problems, field string) {
	named := q.Username != "" && q.Password != nil
	if q.External {
		if q.TLS == nil || q.TLS.Cert == "" {
			ps.addf(sub(field, "external"), "tls with cert and key", "needs a certificate to show")
		}
	} else if !named {
		ps.addf(sub(field, "username"), "username and password, or external: true with tls", "is missing, or password is")
	}
	if q.Timestamps && q.Management == "" {
		ps.addf(sub(field, "timestamps"), "management as well", "are read through the management API")
	}
	if q.Management == "" {
		return
	}
	u, err := url.Parse(q.Management)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" {
		ps.addf(sub(field, "management"), "such as http://rabbitmq:15672", "is no address of a management API")
	} else if u.User != nil {
		ps.addf(sub(field, "management"), "username and password of this block", "has a user in it")
	}
	if !named {
		ps.addf(sub(field, "management"), "username and password, also with external", "asks for a user")
	}
}

// amqpName checks a name of AMQP: a short string.
func (ps *problems) amqpName(field, s string, must bool) {
	if must {
		ps.required(field, s, "the name of a queue")
	}
	if len(s) > 255 {
		ps.addf(field, "at most 255 bytes", "has %d bytes", len(s))
	}
}
