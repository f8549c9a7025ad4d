package nats

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// Config says where the queue is and how its messages are held.
type Config struct {
	// Servers are addresses of one cluster, tried in random order:
	// nats://host[:port], tls://host[:port]; port 4222 unless said. At least one;
	// no user or password in them.
	Servers []string
	// Stream holds the messages; it must exist. Work-queue retention suits best:
	// see the package comment.
	Stream string
	// Consumer is the durable pull consumer that all control planes of this
	// queue share. Default "muster". Created when missing unless Bind is set; one
	// that exists is used as it is, and must acknowledge each message explicitly.
	Consumer string
	// Bind never creates the consumer: a missing one is fleet.ErrNotFound.
	Bind bool
	// ReadOnly: others work the queue off through Consumer, which must exist.
	// Nothing is taken, created or written, not even for a moment.
	ReadOnly bool
	// Subject limits a consumer that is created to some subjects of the stream;
	// wildcards are allowed. Empty: all.
	Subject string
	// AckWait of a consumer that is created: how long the server waits for a sign
	// of life before it delivers a message again, which is how long the tasks of
	// a crashed control plane wait, and the longest loss of the server that goes
	// unnoticed. 1 s to 1 h; default 60 s.
	AckWait time.Duration
	// MaxAckPending of a consumer that is created bounds what is leased, and
	// what waits for its retry, over all control planes. 1 to 1,000,000;
	// default 20,000.
	MaxAckPending int
	// DeadStream keeps what was set aside; default "<Stream>_DEAD". Created with
	// the first such message when missing. With ReadOnly, none unless set.
	DeadStream string
	// DeadSubject is what such messages are published on; it must be a subject
	// of DeadStream alone. Default: the name of DeadStream.
	DeadSubject string

	// User with Password, or one of Token, NKeySeed (a user's seed, "SU…") and
	// Credentials (the content of a .creds file: JWT and seed), or none.
	User        string
	Password    connect.Credential
	Token       connect.Credential
	NKeySeed    connect.Credential
	Credentials connect.Credential
	TLS         connect.TLS

	// Domain is the JetStream domain to ask, APIPrefix the prefix of its API
	// where it is imported from another account; at most one of them.
	Domain    string
	APIPrefix string
	// InboxPrefix replaces "_INBOX" where permissions ask for it.
	InboxPrefix string
	// Name is what the server shows of the connection. Default "muster".
	Name string
}

// withDefaults fills in what was left open.
func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *string
		value string
	}{
		{&c.Consumer, "muster"},
		{&c.DeadStream, c.Stream + "_DEAD"},
		{&c.Name, "muster"},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if c.DeadSubject == "" {
		c.DeadSubject = c.DeadStream
	}
	if c.AckWait == 0 {
		c.AckWait = time.Minute
	}
	if c.MaxAckPending == 0 {
		c.MaxAckPending = 20_000
	}
	return c
}

// api is what the subjects of JetStream's API begin with.
func (c Config) api() string {
	switch {
	case c.Domain != "":
		return "$JS." + c.Domain + ".API."
	case c.APIPrefix != "":
		return strings.TrimSuffix(c.APIPrefix, ".") + "."
	}
	return "$JS.API."
}

func wrong(field, right, format string, args ...any) error {
	return &fleet.FieldError{Field: field, Wrong: fmt.Sprintf(format, args...), Right: right}
}

// check finds the first field that cannot be; the defaults are in.
func (c Config) check() error {
	if err := c.checkServers(); err != nil {
		return err
	}
	for _, n := range []struct{ field, name string }{{"stream", c.Stream}, {"consumer", c.Consumer}, {"deadStream", c.DeadStream}} {
		if !named(n.name) {
			return wrong(n.field, "a name of JetStream: 1 to 255 printable characters without space, '.', '*', '>', '/' and '\\'", "%.40q is none", n.name)
		}
	}
	switch {
	case c.DeadStream == c.Stream:
		return wrong("deadStream", "a stream of its own", "is the stream the messages come from")
	case c.Subject != "" && !Subject(c.Subject, true):
		return wrong("subject", "a subject such as tasks.>", "%.40q is none", c.Subject)
	case !Subject(c.DeadSubject, false):
		return wrong("deadSubject", "a subject without wildcards", "%.40q is none", c.DeadSubject)
	case c.AckWait < time.Second || c.AckWait > time.Hour:
		return wrong("ackWait", "1s to 1h", "is %s", c.AckWait)
	case c.MaxAckPending < 1 || c.MaxAckPending > 1_000_000:
		return wrong("maxAckPending", "1 to 1000000", "is %d", c.MaxAckPending)
	case c.Domain != "" && c.APIPrefix != "":
		return wrong("apiPrefix", "domain or apiPrefix", "stands beside domain")
	case c.Domain != "" && (!named(c.Domain)):
		return wrong("domain", "one word", "%.40q is none", c.Domain)
	case c.APIPrefix != "" && !Subject(strings.TrimSuffix(c.APIPrefix, "."), false):
		return wrong("apiPrefix", "a subject such as JS.agents.API", "%.40q is none", c.APIPrefix)
	case c.InboxPrefix != "" && !Subject(c.InboxPrefix, false):
		return wrong("inboxPrefix", "a subject such as _INBOX_agents", "%.40q is none", c.InboxPrefix)
	}
	return c.checkAccess()
}

func (c Config) checkServers() error {
	if len(c.Servers) == 0 {
		return wrong("servers", "an address such as nats://nats:4222", "is missing")
	}
	for i, s := range c.Servers {
		field := fmt.Sprintf("servers[%d]", i)
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Host == "" || u.Hostname() == "" || (u.Scheme != "nats" && u.Scheme != "tls"):
			// Not shown: what cannot be parsed may have a password in it.
			return wrong(field, "nats://host:4222 or tls://host:4222", "is no such address")
		case u.User != nil:
			return wrong(field, "an address without user and password; name them in user and password", "has a user in it")
		case strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
			return wrong(field, "an address that ends after its port", "has a path or a query")
		case u.Scheme == "tls" && !c.TLS.Enabled:
			return wrong(field, "a tls block (it may be empty) for tls:// addresses", "is encrypted, and TLS is off")
		}
	}
	return nil
}

func (c Config) checkAccess() error {
	ways := 0
	for _, set := range []bool{c.User != "" || c.Password != nil, c.Token != nil, c.NKeySeed != nil, c.Credentials != nil} {
		if set {
			ways++
		}
	}
	if ways > 1 {
		return wrong("user", "one of user with password, token, nkeySeed and credentials", "is not the only way to authenticate")
	}
	if (c.User == "") != (c.Password == nil) {
		return wrong("user", "both user and password, or neither", "has only one of user and password")
	}
	return nil
}

// named reports whether JetStream takes s as the name of a stream, consumer or
// domain.
func named(s string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune(`.*>/\`, r)
	})
}

// Subject reports whether s is a subject, with wildcards where they may be.
func Subject(s string, wild bool) bool {
	if s == "" || len(s) > 1024 {
		return false
	}
	tokens := strings.Split(s, ".")
	for i, t := range tokens {
		switch {
		case t == "" || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r == 0x7f }):
			return false
		case t == ">" && (!wild || i != len(tokens)-1):
			return false
		case t == "*" && !wild:
			return false
		case len(t) > 1 && strings.ContainsAny(t, "*>"):
			return false
		}
	}
	return true
}
