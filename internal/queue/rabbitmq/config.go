package rabbitmq

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// Config says which queue to take tasks from, and how.
type Config struct {
	// Addresses are the nodes of the broker, each host:port, tried in order; at
	// least one.
	Addresses []string
	VHost     string // default: /
	Queue     string // 1 to 255 bytes
	// Username and Password are those of PLAIN authentication, and of the
	// management API. Both are needed unless External.
	Username string
	Password connect.Credential
	// External authenticates with our certificate (SASL EXTERNAL) instead;
	// needs TLS with a certificate.
	External bool
	TLS      connect.TLS
	// Create declares the queue, durable, where it does not exist: "classic" or
	// "quorum". Empty: a missing queue is fleet.ErrNotFound.
	Create string
	// DeadQueue is where messages are set aside, declared where it does not
	// exist; default: the name of the queue with ".dead".
	DeadQueue string
	// UseDLX sets messages aside by rejecting them, so that they go where the
	// queue's own dead-letter exchange sends them (and are dropped where it has
	// none). The reason is lost then, and what is set aside is counted only
	// where DeadQueue names where it goes.
	UseDLX bool
	// Management is the address of the management API, such as
	// http://rabbitmq:15672; empty: what only it tells is not told.
	Management string
	// Timestamps says that producers set the timestamp property and that the
	// queue is a classic one, so that the broker tells the age of the message at
	// its head. Needs Management.
	Timestamps bool
	// Heartbeat is the interval after which a silent connection is suspected; it
	// is given up after three. 1 s to 10 min, default 10 s.
	Heartbeat time.Duration
	// ReadOnly: others work the queue off. Nothing is declared, no arrival is told
	// of, and Receive is refused. An empty queue that nobody consumes is still
	// verified by taking from it; a message that comes then goes back at once.
	ReadOnly bool
	// Name is shown beside our connections in the broker's own displays.
	Name string
}

// check fills in defaults and returns a *fleet.FieldError for what is wrong.
func (c *Config) check() error {
	if c.VHost == "" {
		c.VHost = "/"
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 10 * time.Second
	}
	if c.DeadQueue == "" && !c.UseDLX {
		c.DeadQueue = c.Queue + ".dead"
	}
	wrong := func(field, wrong, right string) error {
		return &fleet.FieldError{Field: field, Wrong: wrong, Right: right}
	}
	if len(c.Addresses) == 0 {
		return wrong("addresses", "is empty", "host:port of at least one node")
	}
	for i, a := range c.Addresses {
		host, port, err := net.SplitHostPort(a)
		if _, no := strconv.ParseUint(port, 10, 16); err != nil || host == "" || no != nil {
			return wrong(fmt.Sprintf("addresses[%d]", i), "is not an address", "host:port, such as rabbitmq:5672")
		}
	}
	switch {
	case c.Queue == "" || len(c.Queue) > 255:
		return wrong("queue", fmt.Sprintf("has %d bytes", len(c.Queue)), "the name of a queue, 1 to 255 bytes")
	case len(c.DeadQueue) > 255 || c.DeadQueue == c.Queue:
		return wrong("deadQueue", "is the queue itself, or longer than 255 bytes", "the name of another queue")
	case c.Create != "" && c.Create != "classic" && c.Create != "quorum":
		return wrong("create", fmt.Sprintf("%q is no type of queue", c.Create), "classic or quorum")
	case c.Heartbeat < time.Second || c.Heartbeat > 10*time.Minute:
		return wrong("heartbeat", c.Heartbeat.String()+" is out of range", "1s to 10m")
	}
	return c.checkAccess(wrong)
}

func (c *Config) checkAccess(wrong func(field, wrong, right string) error) error {
	if c.External {
		if !c.TLS.Enabled || c.TLS.CertFile == "" {
			return wrong("external", "needs a certificate to show", "tls with cert and key")
		}
	} else if c.Username == "" || c.Password == nil {
		return wrong("username", "or password is missing", "both, or external")
	}
	if c.Timestamps && c.Management == "" {
		return wrong("timestamps", "are read through the management API", "management as well")
	}
	if c.Management == "" {
		return nil
	}
	u, err := url.Parse(c.Management)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return wrong("management", "is not an address of the management API", "such as http://rabbitmq:15672, without a password in it")
	}
	if c.Username == "" || c.Password == nil {
		return wrong("management", "asks for a username and a password", "both, also with external")
	}
	c.Management = strings.TrimSuffix(c.Management, "/")
	return nil
}
