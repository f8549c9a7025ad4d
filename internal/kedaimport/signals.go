package kedaimport

import (
	"cmp"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster.dev/muster/api/v1alpha1"
)

func postgres(t *trigger, q *v1alpha1.Queue) {
	q.Type, t.field = "postgres", "spec.queue.postgres"
	t.targets("targetQueryValue")
	query := statement(t.meta.text("query"))
	if query == "" {
		query = "SELECT 0"
		t.notes.add(Todo, t.meta.at("query"), "is missing; write it into "+t.field+".sql.stats")
	}
	// KEDA reads one value, which may have a fraction, of the first row.
	stats := &v1alpha1.PostgresSQL{Stats: "SELECT ceil(waiting)::bigint AS backlog FROM (\n" + query + "\n) AS keda(waiting) LIMIT 1"}
	whole := t.take("connection")
	for _, name := range []string{"connection", "connectionFromEnv"} {
		if t.meta.text(name) != "" {
			whole = &parameter{at: t.meta.at(name)}
		}
	}
	if whole != nil {
		q.Postgres = &v1alpha1.PostgresQueue{Host: Unknown, User: Unknown, Password: &v1alpha1.Credential{Env: placeholder("password")}, SQL: stats}
		t.notes.add(Todo, whole.at, "is the connection in one text, with the password in it: write host, port, database and user into "+t.field+", and name a place of the password in "+t.field+".password")
		return
	}
	p := &v1alpha1.PostgresQueue{
		Host: t.plain("host", "host"), User: t.plain("user", "userName"), Database: t.plain("database", "dbName"), Password: t.secret("password", "password"),
	}
	q.Postgres = p
	port := 0
	if text := t.plain("port", "port"); text != "" && text != Unknown {
		if n, err := strconv.Atoi(text); err == nil && n > 0 && n < 65536 {
			port = n
		} else {
			t.notes.add(Todo, t.meta.at("port"), "is no port")
		}
	}
	p.Port = port
	if mode := t.plain("url", "sslmode"); mode != "" && mode != Unknown {
		u := url.URL{Scheme: "postgres", Host: p.Host, Path: "/" + p.Database, RawQuery: url.Values{"sslmode": {mode}}.Encode()}
		if p.User != "" {
			u.User = url.User(p.User)
		}
		if port != 0 {
			u.Host += ":" + strconv.Itoa(port)
		}
		p.URL, p.Host, p.Port, p.Database, p.User = u.String(), "", 0, "", ""
	}
	p.SQL = stats
}

// statement takes what ends a query away: semicolons, and comments behind them.
func statement(query string) string {
	for {
		query = strings.TrimRight(query, "; \t\r\n")
		last := query[strings.LastIndexByte(query, '\n')+1:]
		code, _, comment := strings.Cut(last, "--")
		if !comment || strings.Count(code, "'")%2 != 0 || strings.Count(code, `"`)%2 != 0 {
			return strings.TrimSpace(query)
		}
		query = query[:len(query)-len(last)+len(code)]
	}
}

func prometheus(t *trigger, q *v1alpha1.Queue) {
	q.Type, t.field = "prometheus", "spec.queue.prometheus"
	t.targets("threshold")
	p := &v1alpha1.PrometheusSignal{Backlog: t.meta.text("query")}
	q.Prometheus = p
	if p.Backlog == "" {
		p.Backlog = "vector(0)"
		t.notes.add(Todo, t.meta.at("query"), "is missing; write it into "+t.field+".backlog")
	}
	extra := url.Values{}
	if n := t.meta.text("namespace"); n != "" {
		extra.Set("namespace", n)
	}
	for k, v := range t.pairs("queryParameters") {
		extra.Set(k, v)
	}
	p.URL = t.service("serverAddress", extra)
	p.Headers = t.headers("customHeaders")
	if t.meta.text("ignoreNullValues") == "false" {
		t.notes.add(Changed, t.meta.at("ignoreNullValues"), "a query without a sample is an error, as here")
	} else {
		t.notes.add(Changed, t.meta.at("ignoreNullValues"), "KEDA takes a query without a sample for zero, so that a target that is gone scales to zero; here it is an error, and the fleet stays as it is. "+
			"Where no sample means no messages, set "+t.field+".empty: zero")
	}
	t.meta.left("requests are not signed for a cloud", "awsRegion", "identityOwner")
	p.Timeout = t.timeout()
	a := t.httpAccess()
	p.Username, p.Password, p.Token = a.username, a.password, a.token
	if a.key != nil {
		t.notes.add(Todo, t.meta.path, "an API key cannot be sent to Prometheus; use token, or username and password")
	}
	p.TLS = t.encrypted(strings.HasPrefix(p.URL, "https:") && yes(t.meta.text("unsafeSsl")))
	if strings.HasPrefix(p.URL, "http:") {
		p.TLS = nil
	}
}

func metricsAPI(t *trigger, q *v1alpha1.Queue) {
	q.Type, t.field = "http", "spec.queue.http"
	t.targets("targetValue")
	h := &v1alpha1.HTTPSignal{URL: t.service("url", nil), Backlog: t.meta.text("valueLocation"), Timeout: t.timeout()}
	q.HTTP = h
	if h.Backlog == "" {
		h.Backlog = Unknown
		t.notes.add(Todo, t.meta.at("valueLocation"), "is missing; write the path of the number into "+t.field+".backlog")
	}
	if f := t.meta.text("format"); f != "" && f != "json" {
		t.notes.add(Todo, t.meta.at("format"), "Muster reads JSON only; of metrics in the format of Prometheus, read the server that scrapes them with type: prometheus")
	}
	if yes(t.meta.text("aggregateFromKubeServiceEndpoints")) {
		t.notes.add(Todo, t.meta.at("aggregateFromKubeServiceEndpoints"), "Muster reads one address; let it answer for all")
	}
	t.meta.left("belongs to aggregateFromKubeServiceEndpoints", "aggregationType")
	a := t.httpAccess()
	h.Username, h.Password, h.Token, h.APIKey, h.APIKeyHeader, h.APIKeyQuery = a.username, a.password, a.token, a.key, a.keyHeader, a.keyQuery
	h.TLS = t.encrypted(strings.HasPrefix(h.URL, "https:") && yes(t.meta.text("unsafeSsl")))
	if strings.HasPrefix(h.URL, "http:") {
		h.TLS = nil
	}
}

func temporal(t *trigger, q *v1alpha1.Queue) {
	q.Type, t.field = "temporal", "spec.queue.temporal"
	t.targets("targetQueueSize")
	s := &v1alpha1.TemporalSignal{
		Address:   t.address(t.meta.at("endpoint"), t.plain("address", "endpoint"), "7233"),
		Namespace: t.plain("namespace", "namespace"), TaskQueue: cmp.Or(t.plain("taskQueue", "taskQueue"), Unknown),
		APIKey: t.secret("apiKey", "apiKey"),
	}
	q.Temporal = s
	for _, k := range items(t.meta.text("queueTypes")) {
		if !slices.Contains(v1alpha1.TemporalKinds, k) || slices.Contains(s.Kinds, k) {
			t.notes.add(Todo, t.meta.at("queueTypes"), k+" is no kind of task")
			continue
		}
		s.Kinds = append(s.Kinds, k)
	}
	if len(s.Kinds) == 0 {
		s.Kinds = slices.Clone(v1alpha1.TemporalKinds) // KEDA's default
	}
	t.meta.left("a task queue counts with all its versions", "buildId", "workerDeploymentName", "workerDeploymentBuildId", "selectAllActive", "selectUnversioned")
	t.meta.left("tasks that wait count, and workflows that run do not", "includeRunningWorkflowCount", "workflowTaskQueueForCount")
	t.meta.left("calls end within 5 s", "minConnectTimeout")
	s.TLS = t.encrypted(t.meta.text("enableTLS") != "false") // KEDA's default
	if name := t.meta.text("tlsServerName"); name != "" && s.TLS != nil {
		s.TLS.ServerName = name
	}
	if s.APIKey != nil && s.TLS == nil {
		s.TLS = &v1alpha1.QueueTLS{}
		t.notes.add(Changed, t.meta.at("enableTLS"), "an API key is sent over TLS only")
	}
}

// service is an http address; what is not known stands in for it.
func (t *trigger) service(name string, extra url.Values) string {
	v := t.meta.text(name)
	u, err := url.Parse(v)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		t.notes.add(Todo, t.meta.at(name), "is no http address; write it into "+t.field+".url")
		return "http://" + Unknown
	}
	if u.User != nil {
		u.User = nil
		t.notes.add(Todo, t.meta.at(name), "has a user in it, which was not copied; name it in "+t.field+".username and .password")
	}
	q := u.Query()
	for k := range q {
		if secretive(k) {
			q.Del(k)
			t.notes.add(Todo, t.meta.at(name), "has the parameter "+k+", which looks like a credential and was not copied")
		}
	}
	for k, v := range extra {
		q[k] = v
	}
	u.RawQuery = q.Encode()
	return u.String()
}

var credentials = regexp.MustCompile(`(?i)auth|token|secret|passw|key|cookie|credential|signature`)

// secretive tells whether a header or parameter looks like a credential.
func secretive(name string) bool { return credentials.MatchString(name) }

// pairs reads name=value,name=value without what looks like a credential.
func (t *trigger) pairs(field string) map[string]string {
	out := map[string]string{}
	for _, kv := range items(t.meta.text(field)) {
		k, v, ok := strings.Cut(kv, "=")
		switch {
		case !ok:
			t.notes.add(Todo, t.meta.at(field), "has a part without =")
		case secretive(k):
			t.notes.add(Todo, t.meta.at(field), k+" looks like a credential and was not copied")
		default:
			out[strings.TrimSpace(k)] = strings.TrimSpace(v)
		}
	}
	return out
}

var header = regexp.MustCompile(`^[A-Za-z0-9-]{1,256}$`)

func (t *trigger) headers(field string) map[string]string {
	out := t.pairs(field)
	for k := range out {
		if !header.MatchString(k) {
			delete(out, k)
			t.notes.add(Todo, t.meta.at(field), "has a name that is none of a header")
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// timeout is in milliseconds, or a duration in newer versions.
func (t *trigger) timeout() string {
	v := t.meta.text("timeout")
	if v == "" {
		return ""
	}
	d, err := time.ParseDuration(v)
	if n, no := strconv.Atoi(v); no == nil {
		d, err = time.Duration(n)*time.Millisecond, nil
	}
	if err != nil || d < 100*time.Millisecond || d > 5*time.Second {
		t.notes.add(Left, t.meta.at("timeout"), "Muster allows 100ms to 5s; its default of 4s is used")
		return ""
	}
	return d.String()
}

// access is how a service over HTTP is told who asks.
type access struct {
	username             string
	password, token, key *v1alpha1.Credential
	keyHeader, keyQuery  string
}

func (t *trigger) httpAccess() access {
	modes := items(t.plain("token", "authModes"))
	modes = append(modes, items(t.plain("token", "authMode"))...)
	var a access
	for _, mode := range modes {
		switch mode {
		case "basic":
			a.username, a.password = cmp.Or(t.plain("username", "username"), Unknown), t.secret("password", "password")
		case "bearer":
			a.token = t.secret("token", "bearerToken", "token")
		case "apiKey":
			a.key = t.secret("apiKey", "apiKey")
			name := t.plain("apiKeyHeader", "keyParamName")
			if t.plain("apiKeyQuery", "method") == "query" {
				a.keyQuery = cmp.Or(name, "api_key")
			} else {
				a.keyHeader = name
			}
			if a.key == nil {
				a.keyHeader, a.keyQuery = "", ""
			}
		case "custom":
			a.key, a.keyHeader = t.secret("apiKey", "customAuthValue"), t.plain("apiKeyHeader", "customAuthHeader")
		case "tls":
		default:
			t.notes.add(Todo, t.meta.at("authModes"), mode+" is not known to Muster: use a token, a user with a password, an API key or a certificate")
		}
	}
	return a
}
