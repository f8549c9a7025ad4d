package kedaimport

import (
	"cmp"
	"net"
	"net/url"
	"strings"

	"muster.dev/muster/api/v1alpha1"
)

func rabbitmq(t *trigger, q *v1alpha1.Queue) {
	q.Type, t.field = "rabbitmq", "spec.queue.rabbitmq"
	t.targets("queueLength", "value")
	r := &v1alpha1.RabbitMQQueue{Queue: cmp.Or(t.plain("queue", "queueName"), Unknown), VHost: t.plain("vhost", "vhostName")}
	q.RabbitMQ = r
	if t.meta.text("mode") == "MessageRate" {
		t.notes.add(Changed, t.meta.at("mode"), "Muster reads how many messages wait, and learns their rate by itself")
	}
	t.meta.left("Muster counts messages that wait and those that consumers hold apart", "excludeUnacknowledged")
	if yes(t.meta.text("useRegex")) {
		t.notes.add(Todo, t.meta.at("useRegex"), "a fleet has one queue, not all that a pattern matches; write its name into "+t.field+".queue")
	}
	t.meta.left("belongs to useRegex", "operation", "pageSize")
	t.meta.left("calls end within 5 s", "timeout")
	t.meta.left("is told by the address", "protocol")
	rabbitHost(t, r)
	if p := t.take("workloadIdentityResource"); p != nil {
		t.notes.add(Left, p.at, "tokens of a cloud are not asked for; use a user of the broker")
	}
	if u := t.plain("username", "username"); u != "" {
		r.Username = u
	}
	if c := t.secret("password", "password"); c != nil {
		r.Password = c
	}
	on := r.TLS != nil
	if p := t.take("tls"); p != nil {
		on = true
		t.notes.add(Changed, p.at, "was taken as enable; remove "+t.field+".tls where it is not")
	}
	r.TLS = t.encrypted(on)
	if r.Username == "" || r.Password == nil {
		r.Username = cmp.Or(r.Username, Unknown)
		if r.Password == nil {
			r.Password = &v1alpha1.Credential{Env: placeholder("password")}
		}
		t.notes.add(Todo, t.meta.path, "says no user with a password apart from the address: write the user into "+t.field+".username, and where its password is into "+t.field+".password; "+placeholder("password")+" stands there now")
	}
}

// rabbitHost reads an address with user, password and vhost in it.
func rabbitHost(t *trigger, r *v1alpha1.RabbitMQQueue) {
	v := t.plain("addresses", "host")
	u, err := url.Parse(v)
	if v == "" || v == Unknown || err != nil || u.Hostname() == "" {
		r.Addresses = []string{Unknown + ":5672"}
		if v != Unknown {
			t.notes.add(Todo, t.meta.at("host"), "is no address; write host:port into "+t.field+".addresses")
		}
		return
	}
	port := "5672"
	switch u.Scheme {
	case "amqps":
		port, r.TLS = "5671", &v1alpha1.QueueTLS{}
	case "http", "https":
		r.Management = u.Scheme + "://" + u.Host
		if u.Scheme == "https" {
			port, r.TLS = "5671", &v1alpha1.QueueTLS{}
		}
		t.notes.add(Todo, t.meta.at("host"), "is the management API, and Muster speaks AMQP, too: check the port in "+t.field+".addresses")
	}
	if p := u.Port(); p != "" && r.Management == "" {
		port = p
	}
	r.Addresses = []string{net.JoinHostPort(u.Hostname(), port)}
	if path := strings.TrimPrefix(u.Path, "/"); path != "" && r.VHost == "" {
		r.VHost = path
	}
	if u.User == nil {
		return
	}
	r.Username = u.User.Username()
	if _, set := u.User.Password(); set {
		r.Password = &v1alpha1.Credential{Env: placeholder("password")}
		t.notes.add(Todo, t.meta.at("host"), "has a password in clear, which is not copied; set the environment variable "+placeholder("password")+", or name another place in "+t.field+".password")
	}
}

func sqs(t *trigger, q *v1alpha1.Queue) {
	q.Type, t.field = "sqs", "spec.queue.sqs"
	t.targets("queueLength")
	never := false // taking messages to learn of them counts as a delivery
	s := &v1alpha1.SQSQueue{Queue: cmp.Or(t.plain("queue", "queueURL"), Unknown), Region: t.plain("region", "awsRegion"), LongPoll: &never}
	q.SQS = s
	if s.Region == Unknown {
		s.Region = ""
	}
	if e := t.meta.text("awsEndpoint"); e != "" {
		s.Endpoint = strings.TrimSuffix(e, "/")
	}
	t.meta.left("Muster counts messages that wait, that consumers hold and that are delayed apart", "scaleOnInFlight", "scaleOnDelayed")
	t.meta.left("Muster uses its own identity: see the authentication in docs/queues/sqs.md", "identityOwner")
	s.AccessKeyID, s.SecretAccessKey = t.secret("accessKeyId", "awsAccessKeyID"), t.secret("secretAccessKey", "awsSecretAccessKey")
	if s.AccessKeyID == nil || s.SecretAccessKey == nil {
		s.AccessKeyID, s.SecretAccessKey = nil, nil
		t.notes.add(Changed, t.meta.path, "without keys, Muster's own identity is used: its environment, web identity or instance role")
	} else {
		s.SessionToken = t.secret("sessionToken", "awsSessionToken")
	}
	if role := t.plain("assumeRole", "awsRoleArn"); role != "" && role != Unknown {
		s.AssumeRole = role
	}
}

func nats(t *trigger, q *v1alpha1.Queue) {
	q.Type, t.field = "nats", "spec.queue.nats"
	t.targets("lagThreshold")
	n := &v1alpha1.NATSQueue{Stream: cmp.Or(t.plain("stream", "stream"), Unknown), Consumer: cmp.Or(t.plain("consumer", "consumer"), Unknown), Bind: true}
	q.NATS = n
	monitor := t.plain("servers", "natsServerMonitoringEndpoint")
	host, _, err := net.SplitHostPort(t.address(t.meta.at("natsServerMonitoringEndpoint"), monitor, "8222"))
	if err != nil {
		host = Unknown
	}
	n.Servers = []string{"nats://" + net.JoinHostPort(host, "4222")}
	if monitor != Unknown {
		t.notes.add(Todo, t.meta.at("natsServerMonitoringEndpoint"), "is the monitoring endpoint, and Muster is a client: check the address and port in "+t.field+".servers")
	}
	t.notes.add(Todo, t.meta.path, "KEDA needs no credentials for the monitoring endpoint, and Muster does where clients do: see the authentication in docs/queues/nats.md")
	t.meta.left("is of the monitoring endpoint", "useHttps", "account", "accountID")
	for _, name := range []string{"account", "accountID"} {
		if p := t.take(name); p != nil {
			t.notes.add(Left, p.at, "the account is that of the user who connects")
		}
	}
}

// mechanisms are KEDA's names of SASL mechanisms that Muster has, too.
var mechanisms = map[string]string{"plaintext": "PLAIN", "scram_sha256": "SCRAM-SHA-256", "scram_sha512": "SCRAM-SHA-512", "oauthbearer": "OAUTHBEARER"}

func kafka(t *trigger, q *v1alpha1.Queue) {
	q.Type, t.field = "kafka", "spec.queue.kafka"
	t.targets("lagThreshold")
	k := &v1alpha1.KafkaQueue{Group: t.plain("group", "consumerGroup")}
	q.Kafka = k
	for _, b := range items(t.plain("brokers", "bootstrapServers")) {
		k.Brokers = append(k.Brokers, t.address(t.meta.at("bootstrapServers"), b, "9092"))
	}
	if len(k.Brokers) == 0 {
		k.Brokers = []string{Unknown + ":9092"}
		t.notes.add(Todo, t.meta.at("bootstrapServers"), "is missing; write host:port into "+t.field+".brokers")
	}
	switch topics := items(t.plain("topic", "topic")); len(topics) {
	case 0:
		k.Topic = Unknown
		t.notes.add(Todo, t.meta.at("topic"), "is missing: KEDA adds up all topics of the group, and a fleet has one; write it into "+t.field+".topic")
	case 1:
		k.Topic = topics[0]
	default:
		k.Topic = topics[0]
		t.notes.add(Todo, t.meta.at("topic"), "has several topics, and a fleet has one: the first was taken; make a fleet for each")
	}
	t.meta.left("all partitions count", "partitionLimitation", "excludePersistentLag", "limitToPartitionsWithLag", "ensureEvenDistributionOfPartitions", "fullMetadata")
	t.meta.left("the number of partitions is no bound here: set spec.capacity.sandboxes.max to it, where each worker needs one", "allowIdleConsumers")
	t.meta.left("a group without offsets counts from the oldest record", "offsetResetPolicy", "scaleToZeroOnInvalidOffset")
	t.meta.left("the version is agreed on with the brokers", "version")
	kafkaLogin(t, k)
}

func kafkaLogin(t *trigger, k *v1alpha1.KafkaQueue) {
	sasl := t.plain("mechanism", "sasl")
	on := yes(t.meta.text("tls"))
	if p := t.take("tls"); p != nil {
		on = true
		t.notes.add(Changed, p.at, "was taken as enable; remove "+t.field+".tls where it is not")
	}
	k.TLS = t.encrypted(on)
	t.meta.left("belongs to a way to authenticate that Muster has not", "saslTokenProvider", "awsRegion")
	k.User, k.Password = t.plain("user", "username"), t.secret("password", "password")
	k.Mechanism = mechanisms[sasl]
	switch {
	case sasl == Unknown:
		t.notes.add(Todo, t.meta.path, "the mechanism is not known; SCRAM-SHA-512 is used where there is a user")
	case sasl == "oauthbearer":
		t.notes.add(Todo, t.meta.at("sasl"), "Muster fetches no token: something has to keep one where "+t.field+".password says")
		k.User = ""
		if k.Password == nil {
			k.Password = &v1alpha1.Credential{Env: placeholder("password")}
		}
	case sasl != "" && sasl != "none" && k.Mechanism == "":
		t.notes.add(Todo, t.meta.at("sasl"), sasl+" is not known to Muster: use one of "+strings.Join(v1alpha1.KafkaMechanisms, ", "))
		k.User, k.Password = "", nil
	case sasl == "none":
		k.User, k.Password = "", nil
	}
	if k.Mechanism != "" && k.Mechanism != "OAUTHBEARER" || k.User != "" || k.Password != nil && k.Mechanism == "" {
		if k.User == "" {
			k.User = Unknown
			t.notes.add(Todo, t.meta.path, "names no user; write it into "+t.field+".user")
		}
		if k.Password == nil {
			k.Password = &v1alpha1.Credential{Env: placeholder("password")}
			t.notes.add(Todo, t.meta.path, "says no password; set the environment variable "+placeholder("password")+", or name another place in "+t.field+".password")
		}
	}
}
