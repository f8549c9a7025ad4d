package kedaimport

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"

	"muster.dev/muster/api/v1alpha1"
)

// trigger is one of a ScaledObject while it becomes a queue.
type trigger struct {
	kind  string
	meta  *object
	auth  map[string]*parameter
	notes *notes
	field string // of the fleet: spec.queue.redis
}

// queues make a queue of a trigger, by KEDA's name for it.
var queues = map[string]func(*trigger, *v1alpha1.Queue){
	"redis":                  redisList,
	"redis-cluster":          redisList,
	"redis-sentinel":         redisList,
	"redis-streams":          redisStream,
	"redis-cluster-streams":  redisStream,
	"redis-sentinel-streams": redisStream,
	"rabbitmq":               rabbitmq,
	"aws-sqs-queue":          sqs,
	"nats-jetstream":         nats,
	"postgresql":             postgres,
	"kafka":                  kafka,
	"apache-kafka":           kafka,
	"prometheus":             prometheus,
	"metrics-api":            metricsAPI,
	"temporal":               temporal,
}

// Kinds are the triggers that become a queue.
func Kinds() []string { return slices.Sorted(maps.Keys(queues)) }

// plain takes a value that the fleet holds itself. It is empty where there is
// none, and Unknown, with a note, where KEDA reads it from elsewhere.
func (t *trigger) plain(field string, names ...string) string {
	for _, n := range names {
		if v := t.meta.text(n); v != "" {
			return v
		}
		if v := t.meta.text(n + "FromEnv"); v != "" {
			t.todo(t.meta.at(n+"FromEnv"), field, "the environment variable "+v+" of the workload's container")
			return Unknown
		}
		if p := t.take(n); p != nil {
			t.todo(p.at, field, p.place)
			return Unknown
		}
	}
	return ""
}

func (t *trigger) todo(at, field, place string) {
	t.notes.add(Todo, at, fmt.Sprintf("write the value into %s.%s, which has %s now; it is in %s", t.field, field, Unknown, place))
}

// take is a parameter of the authentication; nil where there is none.
func (t *trigger) take(name string) *parameter {
	p := t.auth[name]
	if p != nil {
		p.used = true
	}
	return p
}

// secret takes a value that the fleet only names; nil where there is none.
func (t *trigger) secret(field string, names ...string) *v1alpha1.Credential {
	for _, n := range names {
		if t.meta.text(n) != "" {
			t.notes.add(Todo, t.meta.at(n), fmt.Sprintf("is a credential in clear, which is not copied; set the environment variable %s, or name another place in %s.%s", placeholder(field), t.field, field))
			return &v1alpha1.Credential{Env: placeholder(field)}
		}
		if v := t.meta.text(n + "FromEnv"); v != "" {
			return t.variable(t.meta.at(n+"FromEnv"), field, v)
		}
		p := t.take(n)
		switch {
		case p == nil:
		case p.credential == nil:
			t.notes.add(Todo, p.at, fmt.Sprintf("is in %s, which a fleet cannot name; name another place in %s.%s", p.place, t.field, field))
			return &v1alpha1.Credential{Env: placeholder(field)}
		case p.credential.Env != "":
			return t.variable(p.at, field, p.credential.Env)
		default:
			return p.credential
		}
	}
	return nil
}

func (t *trigger) variable(at, field, name string) *v1alpha1.Credential {
	if !variable(name) {
		name = placeholder(field)
	}
	t.notes.add(Changed, at, fmt.Sprintf("KEDA reads the variable of the workload's container; %s.%s reads the one of Muster's own process, which needs it, too", t.field, field))
	return &v1alpha1.Credential{Env: name}
}

// placeholder is a variable to put a credential into.
func placeholder(field string) string {
	return "MUSTER_QUEUE_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(field))
}

// targets notes what a length per worker was.
func (t *trigger) targets(names ...string) {
	t.meta.left("a length per worker is not what Muster sizes by: say how long tasks may wait in spec.objective.startP99", names...)
	t.meta.left("Muster needs no threshold to leave zero: one task that waits is enough", "activationListLength", "activationLagCount", "activationValue",
		"activationQueueLength", "activationLagThreshold", "activationTargetQueryValue", "activationThreshold", "activationTargetValue", "activationTargetQueueSize")
}

// encrypted makes the block tls: of what KEDA knows as parameters.
func (t *trigger) encrypted(on bool) *v1alpha1.QueueTLS {
	out := &v1alpha1.QueueTLS{}
	for _, f := range []struct {
		name  string
		names []string
		to    *string
	}{{"ca", []string{"ca"}, &out.CA}, {"cert", []string{"cert", "Cert"}, &out.Cert}, {"key", []string{"key"}, &out.Key}} {
		for _, n := range f.names {
			p := t.take(n)
			if p == nil {
				continue
			}
			on = true
			*f.to = "/etc/muster/" + Unknown + "/" + f.name + ".pem"
			t.notes.add(Todo, p.at, fmt.Sprintf("%s.tls.%s names a file: put there what is in %s", t.field, f.name, p.place))
		}
	}
	if p := t.take("keyPassword"); p != nil {
		t.notes.add(Todo, p.at, "a key with a password cannot be read; store it without")
	}
	if (out.Cert == "") != (out.Key == "") {
		out.Cert, out.Key = "", ""
		t.notes.add(Todo, t.meta.path, "only one of cert and key is there; both belong in "+t.field+".tls")
	}
	if t.meta.text("unsafeSsl") == "true" && on {
		out.InsecureSkipVerify = true
	}
	if !on {
		return nil
	}
	return out
}

// yes takes a switch; KEDA writes true, enable or enabled.
func yes(v string) bool { return v == "true" || v == "enable" || v == "enabled" }

// address makes host:port of what may be a host, a URL, or unknown.
func (t *trigger) address(at, v, port string) string {
	if v == Unknown || v == "" {
		return Unknown + ":" + port
	}
	host := v
	if strings.Contains(v, "://") {
		u, err := url.Parse(v)
		if err != nil || u.Hostname() == "" {
			t.notes.add(Todo, at, "is no address; write host:port into "+t.field)
			return Unknown + ":" + port
		}
		if u.User != nil {
			t.notes.add(Todo, at, "has a user in it, which was not copied")
		}
		host = u.Host
	}
	if strings.ContainsAny(host, "/@ ") {
		t.notes.add(Todo, at, "is no address; write host:port into "+t.field)
		return Unknown + ":" + port
	}
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// items are the parts of a list with commas.
func items(v string) []string {
	var out []string
	for _, s := range strings.Split(v, ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// unused notes parameters that no field asked for.
func (t *trigger) unused() {
	for _, name := range slices.Sorted(maps.Keys(t.auth)) {
		if p := t.auth[name]; !p.used {
			t.notes.add(Left, p.at, "the parameter "+name+" is not used by this import for "+t.kind)
		}
	}
}
