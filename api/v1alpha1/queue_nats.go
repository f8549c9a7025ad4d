package v1alpha1

import (
	"net/url"
	"regexp"
	"strings"
	"time"
)

// NATSQueue is a stream of NATS JetStream, consumed through a durable pull
// consumer that all control planes of the queue share.
type NATSQueue struct {
	Servers  []string `json:"servers" minItems:"1" doc:"Addresses of one cluster: nats://host:4222 or tls://host:4222"`
	Stream   string   `json:"stream" doc:"Stream the tasks are in; it must exist; work-queue retention suits best"`
	Consumer string   `json:"consumer,omitempty" doc:"Durable pull consumer; default: muster"`
	// Bind uses a consumer that exists and never creates one.
	Bind          bool   `json:"bind,omitempty"`
	Subject       string `json:"subject,omitempty" doc:"Subjects of the stream that a created consumer takes; default: all"`
	AckWait       string `json:"ackWait,omitempty" doc:"Of a created consumer: how long the tasks of a crashed control plane wait; 1s to 1h, default 60s"`
	MaxAckPending int    `json:"maxAckPending,omitempty" minimum:"1" maximum:"1000000" doc:"Of a created consumer: most messages that are leased or wait for a retry; default 20000"`
	DeadStream    string `json:"deadStream,omitempty" doc:"Stream of what was set aside, created when missing; default: the stream's name and _DEAD"`
	DeadSubject   string `json:"deadSubject,omitempty" doc:"Subject of deadStream; default: its name"`

	User        string      `json:"user,omitempty"`
	Password    *Credential `json:"password,omitempty"`
	Token       *Credential `json:"token,omitempty"`
	NKeySeed    *Credential `json:"nkeySeed,omitempty" doc:"Seed of a user, which begins with SU"`
	Credentials *Credential `json:"credentials,omitempty" doc:"Content of a .creds file"`
	TLS         *QueueTLS   `json:"tls,omitempty"`

	Domain      string `json:"domain,omitempty" doc:"JetStream domain"`
	APIPrefix   string `json:"apiPrefix,omitempty" doc:"Prefix of a JetStream API that is imported from another account"`
	InboxPrefix string `json:"inboxPrefix,omitempty" doc:"In place of _INBOX, where permissions ask for it"`
}

var (
	natsName    = regexp.MustCompile(`^[^\x00-\x20\x7f.*>/\\]{1,255}$`)
	natsSubject = regexp.MustCompile(`^[^\x00-\x20\x7f.*>]+(\.[^\x00-\x20\x7f.*>]+)*$`)
	natsFilter  = regexp.MustCompile(`^([^\x00-\x20\x7f.*>]+|\*)(\.([^\x00-\x20\x7f.*>]+|\*))*(\.>)?$`)
)

func (q *NATSQueue) validate(ps *problems, field string) {
	q.validateServers(ps, field)
	const aName = "a name of JetStream: 1-255 characters without space, \".\", \"*\", \">\", \"/\" and \"\\\""
	ps.required(sub(field, "stream"), q.Stream, "the stream that the tasks are in")
	for _, c := range []struct {
		name, value string
		syntax      *regexp.Regexp
		right       string
	}{
		{"stream", q.Stream, natsName, aName},
		{"consumer", q.Consumer, natsName, aName},
		{"deadStream", q.DeadStream, natsName, aName},
		{"domain", q.Domain, natsName, "one word"},
		{"subject", q.Subject, natsFilter, "a subject such as tasks.>"},
		{"deadSubject", q.DeadSubject, natsSubject, "a subject without wildcards, such as dead.tasks"},
		{"apiPrefix", strings.TrimSuffix(q.APIPrefix, "."), natsSubject, "a subject such as JS.agents.API"},
		{"inboxPrefix", q.InboxPrefix, natsSubject, "a subject such as _INBOX_agents"},
	} {
		if c.value != "" && (len(c.value) > 1024 || !c.syntax.MatchString(c.value)) {
			ps.addf(sub(field, c.name), c.right, "%q is none", clip(c.value))
		}
	}
	ps.duration(sub(field, "ackWait"), q.AckWait, time.Second, time.Hour, "")
	ps.whole(sub(field, "maxAckPending"), q.MaxAckPending, 1, 1_000_000)
	if q.DeadStream != "" && q.DeadStream == q.Stream {
		ps.addf(sub(field, "deadStream"), "a stream of its own", "is the stream that the tasks come from")
	}
	if q.Domain != "" && q.APIPrefix != "" {
		ps.addf(sub(field, "apiPrefix"), "domain or apiPrefix", "stands beside domain")
	}
	if q.Bind {
		q.validateBind(ps, field)
	}
	q.validateAccess(ps, field)
}

func (q *NATSQueue) validateServers(ps *problems, field string) {
	if len(q.Servers) == 0 {
		ps.addf(sub(field, "servers"), "an address such as nats://nats:4222", "is missing")
	}
	for i, s := range q.Servers {
		where := at(sub(field, "servers"), i)
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Hostname() == "" || (u.Scheme != "nats" && u.Scheme != "tls"):
			// Not shown: it may have a password in it.
			ps.addf(where, "nats://host:4222 or tls://host:4222", "is no such address")
		case u.User != nil:
			ps.addf(where, "an address without user and password; name them in user and password", "has a user in it")
		case strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
			ps.addf(where, "an address that ends after its port", "has a path or a query")
		case u.Scheme == "tls" && q.TLS == nil:
			ps.addf(sub(field, "tls"), "a tls block, which may be empty: tls: {}", "is missing for a tls:// address")
		}
	}
}

// validateBind refuses what describes a consumer that is not created.
func (q *NATSQueue) validateBind(ps *problems, field string) {
	for _, c := range []struct {
		name string
		set  bool
	}{{"subject", q.Subject != ""}, {"ackWait", q.AckWait != ""}, {"maxAckPending", q.MaxAckPending != 0}} {
		if c.set {
			ps.addf(sub(field, c.name), "no such field, or bind: false", "has no meaning for a consumer that is used as it is")
		}
	}
}

func (q *NATSQueue) validateAccess(ps *problems, field string) {
	ways := 0
	if q.User != "" || q.Password != nil {
		ways++
	}
	for _, c := range []struct {
		name string
		c    *Credential
	}{{"token", q.Token}, {"nkeySeed", q.NKeySeed}, {"credentials", q.Credentials}} {
		if c.c != nil {
			ways++
		}
		ps.credential(sub(field, c.name), c.c)
	}
	ps.credential(sub(field, "password"), q.Password)
	ps.printable(sub(field, "user"), q.User, 1024)
	if (q.User == "") != (q.Password == nil) {
		ps.addf(sub(field, "user"), "both user and password, or neither", "has only one of user and password")
	}
	if ways > 1 {
		ps.addf(field, "one of user with password, token, nkeySeed and credentials", "names %d ways to authenticate", ways)
	}
	ps.tls(sub(field, "tls"), q.TLS)
}
