package kafka

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// certificate makes one for 127.0.0.1, signed by itself, and its file.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// stats reads until the error is of the kind, nil for none.
func stats(t *testing.T, s *Source, kind error) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		start := time.Now()
		_, err := s.Stats(t.Context())
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("stats took %s", took)
		}
		if kind == nil && err == nil || kind != nil && errors.Is(err, kind) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("stats: %v, want %v", err, kind)
		}
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-geheim"
	cert, ca := certificate(t)
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			server := servers.StartKafka(t, kfake.EnableSASL(), kfake.Superuser(mechanism, "muster", secret),
				kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}))
			server.Topic("tasks", 1)
			var log bytes.Buffer
			try := func(password string, authority string, kind error) {
				t.Helper()
				s, err := New(t.Context(), Config{
					Brokers: []string{server.Address}, Topic: "tasks", Mechanism: mechanism, User: "muster", Password: connect.Fixed(password),
					TLS: connect.TLS{Enabled: true, CAFile: authority}, Log: slog.New(slog.NewTextHandler(&log, nil)),
				})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				stats(t, s, kind)
				_, err = s.Stats(t.Context())
				_, also := s.Receive(t.Context(), 1, time.Minute)
				for _, err := range []error{err, also} {
					if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), password)) {
						t.Errorf("the error shows the password: %v", err)
					}
				}
			}
			try(secret, ca, nil)
			try("not-"+secret, ca, fleet.ErrDenied)
			if mechanism == "PLAIN" {
				try(secret, "", fleet.ErrUnavailable) // signed by nobody we know
			}
			if strings.Contains(log.String(), secret) {
				t.Errorf("the log shows the password: %s", log.String())
			}
		})
	}
}

// TestRefused: what Kafka answers where the fake ends the connection, and what
// it answers to a user with no rights.
func TestRefused(t *testing.T) {
	t.Parallel()
	server := servers.StartKafka(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.User("PLAIN", "muster", "right"), kfake.Superuser("PLAIN", "root", "root"))
	server.Topic("tasks", 1)
	s, err := New(t.Context(), Config{Brokers: []string{server.Address}, Topic: "tasks", Mechanism: "PLAIN", User: "muster", Password: connect.Fixed("right")})
	if err != nil {
		t.Fatal(err)
	}
	stats(t, closed(t, s), fleet.ErrDenied)
	server.Cluster().ControlKey(kmsg.SASLAuthenticate.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
		server.Cluster().KeepControl()
		resp := r.ResponseKind().(*kmsg.SASLAuthenticateResponse) //nolint:forcetypeassert // the key's
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
	s, err = New(t.Context(), Config{Brokers: []string{server.Address}, Topic: "tasks", Mechanism: "PLAIN", User: "muster", Password: connect.Fixed("wrong")})
	if err != nil {
		t.Fatal(err)
	}
	stats(t, closed(t, s), fleet.ErrDenied)
}

// The fake knows no OAUTHBEARER; this is what would be sent (RFC 7628, 3.1).
func TestToken(t *testing.T) {
	token := "first"
	c := Config{Mechanism: "OAUTHBEARER", Password: func(context.Context) (string, error) { return token, nil }}
	for _, want := range []string{"first", "renewed"} {
		token = want
		_, sent, err := c.mechanism().Authenticate(t.Context(), "kafka:9092")
		if err != nil || !strings.Contains(string(sent), "auth=Bearer "+want) {
			t.Errorf("sent %q, %v", sent, err)
		}
	}
}

func TestMissingTopic(t *testing.T) {
	t.Parallel()
	server := servers.StartKafka(t)
	s, err := New(t.Context(), Config{Brokers: []string{server.Address}, Topic: "tasks"})
	if err != nil {
		t.Fatal(err)
	}
	closed(t, s)
	stats(t, s, fleet.ErrNotFound)
	server.Topic("tasks", 1)
	stats(t, s, nil)
	if err := server.Fill(t.Context(), "tasks", 1); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if m, err := s.Receive(t.Context(), 1, time.Minute); len(m) == 1 {
			return
		} else if time.Now().After(end) {
			t.Fatalf("nothing came of a topic that was made later: %v", err)
		}
	}
}

// TestHangs: a broker that neither answers nor goes away.
func TestHangs(t *testing.T) {
	t.Parallel()
	server := servers.StartKafka(t)
	q := newQueue(t, server, "tasks")
	s := closed(t, q.source())
	q.bodies(8)
	m := q.receive(s, 4, time.Minute)
	n := q.open[s]
	thaw := n.freeze()
	defer thaw()
	calls := map[string]func() error{
		"stats":       func() error { _, err := s.Stats(t.Context()); return err },
		"extend":      func() error { _, err := s.Extend(t.Context(), m[3], time.Minute); return err },
		"ack":         func() error { return s.Ack(t.Context(), m[0]) },
		"dead-letter": func() error { return s.DeadLetter(t.Context(), m[1], "bad") },
		"receive":     func() error { _, err := s.Receive(t.Context(), 1, time.Minute); return err },
		"nack":        func() error { return s.Nack(t.Context(), m[3], 0) },
	}
	// What is in memory is good until half the session has passed.
	time.Sleep(q.cfg.Session/2 + time.Second)
	for name, call := range calls {
		start := time.Now()
		err := call()
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s took %s", name, took)
		}
		if !errors.Is(err, fleet.ErrUnavailable) && !errors.Is(err, fleet.ErrFenced) {
			t.Errorf("%s: %v, want ErrUnavailable, or ErrFenced where the session ended meanwhile", name, err)
		}
	}
	thaw()
	// What was asked of the broker it may have done, though nobody heard: the
	// other six come back.
	got := map[string]bool{}
	for end := time.Now().Add(20 * time.Second); len(got) < 6; time.Sleep(10 * time.Millisecond) {
		m, err := s.Receive(t.Context(), 8, time.Minute)
		for _, x := range m {
			got[string(x.Body)] = true
			if err := s.Ack(t.Context(), x); err != nil {
				t.Error(err)
			}
		}
		if time.Now().After(end) {
			t.Fatalf("only %v came back (%v)", got, err)
		}
	}
	q.until(s, "nothing left", func(st fleet.SignalStats) bool { return st.Backlog+st.InFlight+st.Delayed == 0 })
}

// TestClose: it ends within 5 s though the server is gone, and so do calls.
func TestClose(t *testing.T) {
	t.Parallel()
	server := servers.StartKafka(t)
	q := newQueue(t, server, "tasks")
	s := q.source()
	q.bodies(4)
	m := q.receive(s, 2, time.Minute)
	thaw := q.open[s].freeze()
	defer thaw()
	done := make(chan error, 2)
	go func() { done <- s.Ack(t.Context(), m[0]) }()
	go func() { _, err := s.Stats(t.Context()); done <- err }()
	start := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-done; !errors.Is(err, fleet.ErrUnavailable) && !errors.Is(err, fleet.ErrFenced) {
			t.Errorf("a call during close: %v", err)
		}
	}
	took := time.Since(start)
	if t.Logf("closing took %s", took); took > 5*time.Second {
		t.Error("that is too long")
	}
	for range 2 { // the second close as well
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Receive(t.Context(), 1, time.Minute); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("receive after close: %v", err)
	}
}

func TestConfig(t *testing.T) {
	good := func() Config { return Config{Brokers: []string{"kafka:9092"}, Topic: "tasks"} }
	minute := 2 * time.Minute
	for field, change := range map[string]func(*Config){
		"brokers":    func(c *Config) { c.Brokers = nil },
		"brokers[0]": func(c *Config) { c.Brokers = []string{"kafka"} },
		"topic":      func(c *Config) { c.Topic = "a b" },
		"deadTopic":  func(c *Config) { c.DeadTopic = c.Topic },
		"session":    func(c *Config) { c.Session = time.Millisecond },
		"handover":   func(c *Config) { c.Handover = &minute },
		"mechanism":  func(c *Config) { c.Mechanism = "GSSAPI" },
		"user":       func(c *Config) { c.Password = connect.Fixed("x") },
		"password":   func(c *Config) { c.User = "muster" },
	} {
		c := good()
		change(&c)
		_, err := New(t.Context(), c)
		var f *fleet.FieldError
		if !errors.As(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	c := good()
	c.TLS = connect.TLS{Enabled: true, CAFile: "/does/not/exist"}
	if _, err := New(t.Context(), c); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("TLS: %v", err)
	}
}

// TestDeadLetter: key, headers and reason are kept, the reason once.
func TestDeadLetter(t *testing.T) {
	t.Parallel()
	q := newQueue(t, servers.StartKafka(t), "tasks")
	s := closed(t, q.source())
	if err := q.publish(t.Context(), queuetest.Sent{Body: []byte("bad"), Headers: map[string]string{HeaderReason: "an older one", "team": "a"}}); err != nil {
		t.Fatal(err)
	}
	m := q.receive(s, 1, time.Minute)[0]
	s.mu.Lock()
	s.held[m.Receipt].record.Key = []byte("repo-7") // as a producer would
	s.mu.Unlock()
	if err := s.DeadLetter(t.Context(), m, strings.Repeat("ż", 4096)); err != nil {
		t.Fatal(err)
	}
	rs, err := q.records(t.Context(), "tasks.dead")
	if err != nil || len(rs) != 1 {
		t.Fatalf("%d records, %v", len(rs), err)
	}
	if string(rs[0].Key) != "repo-7" || len(rs[0].Headers) != 4 {
		t.Errorf("set aside as %+v", rs[0])
	}
	for _, h := range rs[0].Headers {
		if h.Key == HeaderReason && len(h.Value) > reasonMost || h.Key == HeaderAttempt && string(h.Value) != "1" {
			t.Errorf("header %s: %q", h.Key, h.Value)
		}
	}
}
