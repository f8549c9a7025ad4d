package redis

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// certificate makes an authority and a certificate for both sides.
func certificate(t *testing.T) servers.TLSFiles {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert := write("cert.pem", "CERTIFICATE", der)
	return servers.TLSFiles{CA: cert, Cert: cert, Key: write("key.pem", "PRIVATE KEY", private)}
}

// rules are the least a user needs; docs/queues/redis.md has them too.
var rules = []string{
	"resetchannels", "&__redis__:invalidate", "resetkeys", "~agents", "~agents:dead", "~{agents}:muster:*", "-@all",
	"+evalsha", "+eval", "+client|id", "+client|tracking", "+subscribe", "+ping", "+select",
	"+time", "+exists", "+del", "+hget", "+hset", "+hdel", "+hincrby", "+zadd", "+zrem", "+zscore", "+zcard", "+zcount", "+zrange", "+zrangebyscore",
	"+llen", "+lindex", "+lpop", "+rpop", "+rpush",
	"+xgroup|create", "+xreadgroup", "+xpending", "+xclaim", "+xack", "+xdel", "+xadd", "+xrange", "+xlen", "+xinfo|stream", "+xinfo|groups",
}

// lifecycle works one message off and sets another aside.
func lifecycle(t *testing.T, s *Source) {
	t.Helper()
	a, b := take(t, s, time.Minute), take(t, s, time.Minute)
	if _, err := s.Extend(t.Context(), a, time.Minute); err != nil {
		t.Error(err)
	}
	if err := s.Nack(t.Context(), b, time.Millisecond); err != nil {
		t.Error(err)
	}
	if err := s.Ack(t.Context(), a); err != nil {
		t.Error(err)
	}
	within(t, "what was given back comes again", func() bool {
		m, err := s.Receive(t.Context(), 1, time.Minute)
		if err != nil || len(m) == 0 {
			return false
		}
		b = m[0]
		return true
	})
	if err := s.DeadLetter(t.Context(), b, "bad"); err != nil {
		t.Error(err)
	}
	if st, err := s.Stats(t.Context()); err != nil || st.Backlog != 0 || st.InFlight != 0 || st.Dead != 1 {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestAccessList(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t)
	admin := client(t, server.Address)
	if err := admin.ACLSetUser(t.Context(), "muster", append([]string{"on", ">" + password}, rules...)...).Err(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []Config{{List: &List{Name: "agents"}}, {Stream: &Stream{Name: "agents"}}} {
		c.Addresses, c.Username, c.Password = []string{server.Address}, "muster", connect.Fixed(password)
		admin.FlushAll(t.Context())
		push(t, c, "one")
		push(t, c, "two")
		s := open(t, c)
		lifecycle(t, s)
		within(t, "the server tells of changes", s.pushed.Load)
		if s.cfg.Stream != nil {
			if _, err := s.run(t.Context(), "adopt", s.scripts.adopt, 60000, "-"); err != nil {
				t.Error(err)
			}
		}
		s.Close()
	}
	for name, c := range map[string]Config{
		"wrong password": {Username: "muster", Password: connect.Fixed(password + "x")},
		"no such user":   {Username: "none", Password: connect.Fixed(password)},
		"no credential":  {Username: "muster", Password: connect.Env("MUSTER_TEST_NOT_SET")},
		"another key":    {Username: "muster", Password: connect.Fixed(password), List: &List{Name: "other"}},
	} {
		c.Addresses = []string{server.Address}
		if c.List == nil {
			c.List = &List{Name: "agents"}
		}
		s := open(t, c)
		_, err := s.Stats(t.Context())
		fails(t, name, err, fleet.ErrDenied)
		if errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("%s looks like a missing queue: %v", name, err)
		}
		s.Close()
	}
}

func TestRotatedPassword(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t, "--requirepass", password)
	var value atomic.Value
	value.Store("old")
	s := open(t, Config{Addresses: []string{server.Address}, List: &List{Name: "agents"}, Password: func(context.Context) (string, error) { return value.Load().(string), nil }})
	defer s.Close()
	_, err := s.Stats(t.Context())
	fails(t, "the old password", err, fleet.ErrDenied)
	value.Store(password)
	if _, err := s.Stats(t.Context()); err != nil {
		t.Errorf("the new password: %v", err)
	}
	open := open(t, Config{Addresses: []string{server.Address}, List: &List{Name: "agents"}})
	defer open.Close()
	_, err = open.Stats(t.Context())
	fails(t, "no password", err, fleet.ErrDenied)
}

func TestTLS(t *testing.T) {
	t.Parallel()
	files := certificate(t)
	server := servers.StartRedisTLS(t, files, true)
	c := Config{Addresses: []string{server.Address}, List: &List{Name: "agents"}, TLS: connect.TLS{Enabled: true, CAFile: files.CA, CertFile: files.Cert, KeyFile: files.Key}}
	s := open(t, c)
	defer s.Close()
	pool, err := s.client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := pool.LPush(t.Context(), "agents", "one", "two").Err(); err != nil {
		t.Fatal(err)
	}
	lifecycle(t, s)
	within(t, "the server tells of changes", s.pushed.Load)
	for name, bad := range map[string]connect.TLS{
		"plain":             {},
		"no certificate":    {Enabled: true, CAFile: files.CA},
		"unknown authority": {Enabled: true, CertFile: files.Cert, KeyFile: files.Key},
		"another name":      {Enabled: true, CAFile: files.CA, CertFile: files.Cert, KeyFile: files.Key, ServerName: "elsewhere.example"},
	} {
		c.TLS = bad
		s := open(t, c)
		_, err := s.Stats(t.Context())
		fails(t, name, err, fleet.ErrUnavailable)
		s.Close()
	}
}

// All our keys are in the list's slot: else the server would refuse the scripts.
func TestCluster(t *testing.T) {
	t.Parallel()
	server := servers.StartRedisCluster(t)
	for _, c := range []Config{
		{List: &List{Name: "agents"}}, {List: &List{Name: "team{a}:agents"}}, {List: &List{Name: "ag{ents"}},
		{Stream: &Stream{Name: "tasks"}}, {Stream: &Stream{Name: "team{b}:tasks"}, Dead: "{b}dead"},
	} {
		c.Addresses, c.Cluster = []string{server.Address}, true
		s := open(t, c)
		push(t, c, "one")
		push(t, c, "two")
		lifecycle(t, s)
		within(t, "the server tells of changes", s.pushed.Load)
		if d := woken(t, s, func() { push(t, c, "three") }); d > time.Second {
			t.Errorf("%s: woken after %s", c.source(), d)
		}
		s.Close()
	}
	user := append([]string{"on", ">" + password}, rules...)
	if err := client(t, server.Address).ACLSetUser(t.Context(), "muster", append(user, "~{b}*", "+cluster|slots")...).Err(); err != nil {
		t.Fatal(err)
	}
	limited := Config{Addresses: []string{server.Address}, Cluster: true, List: &List{Name: "{b}list"}, Username: "muster", Password: connect.Fixed(password)}
	push(t, limited, "one")
	push(t, limited, "two")
	l := open(t, limited)
	defer l.Close()
	lifecycle(t, l)
	within(t, "the server tells of changes", l.pushed.Load)
	_, err := New(t.Context(), Config{Addresses: []string{server.Address}, Cluster: true, List: &List{Name: "agents"}, Dead: "agents:dead"})
	fails(t, "dead letters in another slot", err, fleet.ErrInvalid)
	if err == nil || !strings.Contains(err.Error(), "{agents}") {
		t.Errorf("%v does not say what would be right", err)
	}
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	server := servers.StartRedis(t)
	sentinel := servers.StartSentinel(t, server)
	c := Config{Addresses: []string{sentinel}, Sentinel: &Sentinel{Master: "mymaster"}, List: &List{Name: "agents"}}
	s := open(t, c)
	defer s.Close()
	push(t, Config{Addresses: []string{server.Address}, List: c.List}, "one")
	push(t, Config{Addresses: []string{server.Address}, List: c.List}, "two")
	lifecycle(t, s)
	within(t, "the server tells of changes", s.pushed.Load)
	c.Sentinel = &Sentinel{Master: "another"}
	other := open(t, c)
	defer other.Close()
	_, err := other.Stats(t.Context())
	fails(t, "an unknown master", err, fleet.ErrUnavailable)
}
