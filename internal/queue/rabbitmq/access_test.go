package rabbitmq

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
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// TestBroker has what the suite does not cover, on one broker.
func TestBroker(t *testing.T) {
	t.Parallel()
	pki := authority(t)
	s := servers.StartRabbitMQ(t, servers.RabbitMQSetup{CA: pki.ca, Cert: pki.cert, Key: pki.key})
	t.Run("TLS and EXTERNAL", func(t *testing.T) { access(t, s, pki) })
	t.Run("refusals", func(t *testing.T) { refusals(t, s) })
	t.Run("dead-letter exchange", func(t *testing.T) { deadLetterExchange(t, s) })
	t.Run("a channel ends", func(t *testing.T) { channelEnds(t, s) })
	t.Run("the queue is deleted", func(t *testing.T) { deleted(t, s) })
	t.Run("read only", func(t *testing.T) { readOnly(t, s) })
	t.Run("nobody takes what was offered", func(t *testing.T) { ignored(t, s) })
	t.Run("the broker hangs", func(t *testing.T) { hangs(t, s) })
}

// eventually asks until what is asked is true.
func eventually(t *testing.T, what string, ask func() (bool, error)) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var ok bool
		if ok, err = ask(); ok {
			return
		}
	}
	t.Fatalf("%s: not within 30 s (%v)", what, err)
}

func reads(q *Source, backlog int64) func() (bool, error) {
	return func() (bool, error) {
		st, err := q.Stats(context.Background())
		return err == nil && st.Backlog == backlog, err
	}
}

func closing(t *testing.T, q *Source) *Source {
	t.Helper()
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return q
}

func access(t *testing.T, s *servers.RabbitMQ, pki pki) {
	c := mode{create: "classic"}.config(s, "access")
	c.Addresses = []string{"127.0.0.1:1", s.TLS} // the first is down
	c.TLS = connect.TLS{Enabled: true, CAFile: pki.ca}
	eventually(t, "password over TLS", reads(closing(t, open(t, c)), 0))

	c.Username, c.Password, c.External = "", nil, true
	c.TLS.CertFile, c.TLS.KeyFile = pki.clientCert, pki.clientKey
	eventually(t, "certificate", reads(closing(t, open(t, c)), 0))

	c.TLS.CAFile = "" // the system's authorities do not know ours
	_, err := closing(t, open(t, c)).Stats(t.Context())
	if !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
}

func refusals(t *testing.T, s *servers.RabbitMQ) {
	for name, tt := range map[string]struct {
		change func(*Config)
		want   error
	}{
		"wrong password":   {func(c *Config) { c.Password = connect.Fixed("hunter2hunter2") }, fleet.ErrDenied},
		"no such user":     {func(c *Config) { c.Username = "nobody" }, fleet.ErrDenied},
		"no such vhost":    {func(c *Config) { c.VHost = "elsewhere" }, fleet.ErrDenied},
		"no such queue":    {func(c *Config) { c.Create = "" }, fleet.ErrNotFound},
		"no password":      {func(c *Config) { c.Password = connect.Env("MUSTER_TEST_UNSET") }, fleet.ErrNotFound},
		"management wrong": {func(c *Config) { c.Management = "http://127.0.0.1:1" }, fleet.ErrUnavailable},
	} {
		c := mode{create: "classic"}.config(s, "refused "+name)
		tt.change(&c)
		q := closing(t, open(t, c))
		_, err := q.Stats(t.Context())
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), s.Password) {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
	}
}

// deadLetterExchange sets a message aside by the queue's own means.
func deadLetterExchange(t *testing.T, s *servers.RabbitMQ) {
	p := producer{t: t, server: s, queue: "own dlx"}
	if err := p.with(func(ch *amqp.Channel) error {
		if _, err := ch.QueueDeclare("aside", true, false, false, false, nil); err != nil {
			return err
		}
		_, err := ch.QueueDeclare(p.queue, true, false, false, false, amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "aside"})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	c := mode{}.config(s, p.queue)
	c.UseDLX, c.DeadQueue = true, "aside"
	q := closing(t, open(t, c))
	if err := p.publish(t.Context(), queuetest.Sent{Body: []byte("bad")}); err != nil {
		t.Fatal(err)
	}
	if err := q.DeadLetter(t.Context(), one(t, q), "why"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "set aside", func() (bool, error) {
		st, err := q.Stats(t.Context())
		return st.Dead == 1 && st.Backlog == 0 && st.InFlight == 0, err
	})
}

func one(t *testing.T, q *Source) (m fleet.Message) {
	t.Helper()
	eventually(t, "a message", func() (bool, error) {
		got, err := q.Receive(t.Context(), 1, time.Minute)
		if len(got) == 1 {
			m = got[0]
		}
		return len(got) == 1, err
	})
	return m
}

// channelEnds does to one generation of leases what consumer_timeout does.
func channelEnds(t *testing.T, s *servers.RabbitMQ) {
	q := closing(t, open(t, mode{create: "quorum"}.config(s, "lost")))
	eventually(t, "declared", reads(q, 0))
	p := producer{t: t, server: s, queue: "lost"}
	if err := p.publish(t.Context(), queuetest.Sent{Body: []byte("old")}, queuetest.Sent{Body: []byte("new")}); err != nil {
		t.Fatal(err)
	}
	old := one(t, q)
	q.mu.Lock()
	l := q.leases[old.Receipt].lane
	l.since = l.since.Add(-2 * generation) // so that the next is held on another channel
	q.mu.Unlock()
	young := one(t, q)
	// A second ack of a tag is an error of the channel, with the code that a
	// timeout has.
	if err := l.ch.Ack(1<<40, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lease is lost", func() (bool, error) {
		_, err := q.Extend(t.Context(), old, time.Minute)
		return errors.Is(err, fleet.ErrFenced) && strings.Contains(err.Error(), "406"), err
	})
	again := one(t, q)
	if string(again.Body) != "old" || again.Attempt != 2 || again.ID != old.ID || again.ID == "" {
		t.Errorf("delivered again as %+v after %+v", again, old)
	}
	for _, m := range []fleet.Message{young, again} {
		if err := q.Ack(t.Context(), m); err != nil {
			t.Errorf("ack of %q: %v", m.Body, err)
		}
	}
}

func deleted(t *testing.T, s *servers.RabbitMQ) {
	q := closing(t, open(t, mode{create: "classic"}.config(s, "deleted")))
	eventually(t, "declared", reads(q, 0))
	p := producer{t: t, server: s, queue: "deleted"}
	if err := p.publish(t.Context(), queuetest.Sent{Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	m := one(t, q)
	p.remove()
	if err := q.Ack(t.Context(), m); err != nil && !errors.Is(err, fleet.ErrFenced) && !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("ack in a queue that is gone: %v", err)
	}
	eventually(t, "declared again", reads(q, 0))
	if err := p.publish(t.Context(), queuetest.Sent{Body: []byte("y")}); err != nil {
		t.Fatal(err)
	}
	if m := one(t, q); string(m.Body) != "y" {
		t.Errorf("received %q", m.Body)
	}
}

// readOnly checks that a queue that others work off is not touched.
func readOnly(t *testing.T, s *servers.RabbitMQ) {
	c := mode{create: "classic"}.config(s, "others")
	c.ReadOnly = true
	q := closing(t, open(t, c))
	eventually(t, "missing, and not declared", func() (bool, error) {
		_, err := q.Stats(t.Context())
		return errors.Is(err, fleet.ErrNotFound), err
	})
	theirs := closing(t, open(t, mode{create: "classic"}.config(s, "others")))
	eventually(t, "declared by its owner", reads(theirs, 0))
	eventually(t, "read", reads(q, 0))
	if q.Wake() != nil || q.Traits().Push {
		t.Error("it says that it pushes")
	}
	p := producer{t: t, server: s, queue: "others"}
	for i := range 20 {
		if err := p.publish(t.Context(), queuetest.Sent{Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "one more", reads(q, int64(i+1)))
	}
	if _, err := q.Receive(t.Context(), 1, time.Minute); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("receive: %v, want ErrInvalid", err)
	}
	for range 20 {
		if m := one(t, theirs); m.Attempt != 1 {
			t.Errorf("delivered to its owner the %dnd time", m.Attempt)
		}
	}
}

// ignored checks that a message held to learn of arrivals goes back in time.
func ignored(t *testing.T, s *servers.RabbitMQ) {
	q := closing(t, open(t, mode{create: "classic"}.config(s, "ignored")))
	eventually(t, "declared", reads(q, 0))
	if m, err := q.Receive(t.Context(), 1, time.Minute); err != nil || len(m) != 0 {
		t.Fatal(m, err)
	}
	p := producer{t: t, server: s, queue: "ignored"}
	if err := p.publish(t.Context(), queuetest.Sent{Body: []byte("x")}, queuetest.Sent{Body: []byte("y")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both are backlog", reads(q, 2))
	begin := time.Now()
	other := closing(t, open(t, mode{create: "classic"}.config(s, "ignored")))
	got := map[string]bool{string(one(t, other).Body): true, string(one(t, other).Body): true}
	if len(got) != 2 || time.Since(begin) > 10*time.Second {
		t.Errorf("another consumer received %v after %s", got, time.Since(begin))
	}
}

// hangs checks that no call waits for a broker that is stuck.
func hangs(t *testing.T, s *servers.RabbitMQ) {
	q := closing(t, open(t, mode{create: "classic"}.config(s, "hangs")))
	eventually(t, "declared", reads(q, 0))
	p := producer{t: t, server: s, queue: "hangs"}
	if err := p.publish(t.Context(), queuetest.Sent{Body: []byte("x")}, queuetest.Sent{Body: []byte("y")}); err != nil {
		t.Fatal(err)
	}
	m := one(t, q)
	thaw := s.Freeze()
	defer thaw()
	calls := map[string]func() error{
		"stats":       func() error { _, err := q.Stats(t.Context()); return err },
		"receive":     func() error { _, err := q.Receive(t.Context(), 3, time.Minute); return err },
		"dead-letter": func() error { return q.DeadLetter(t.Context(), m, "") },
	}
	type outcome struct {
		name string
		took time.Duration
		err  error
	}
	out := make(chan outcome, len(calls))
	for name, call := range calls {
		go func() {
			start := time.Now()
			err := call()
			out <- outcome{name, time.Since(start), err}
		}()
	}
	for range calls {
		if o := <-out; !errors.Is(o.err, fleet.ErrUnavailable) || o.took > 5500*time.Millisecond {
			t.Errorf("%s: %v after %s", o.name, o.err, o.took)
		}
	}
	thaw()
	eventually(t, "a reading", func() (bool, error) { _, err := q.Stats(t.Context()); return err == nil, err })
	if _, err := q.Extend(t.Context(), m, time.Minute); err != nil {
		t.Errorf("the lease did not outlive it: %v", err)
	}
}

// pki is an authority of the test's own, with a certificate for the broker and
// one for us.
type pki struct{ ca, cert, key, clientCert, clientKey string }

func authority(t *testing.T) pki {
	t.Helper()
	dir := t.TempDir()
	p := pki{ca: filepath.Join(dir, "ca.pem"), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"), clientCert: filepath.Join(dir, "client.pem"), clientKey: filepath.Join(dir, "client.key")}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootKey := issue(t, root, root, nil, p.ca, filepath.Join(dir, "ca.key"))
	issue(t, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "broker"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, root, rootKey, p.cert, p.key)
	issue(t, &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "muster"}, NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, root, rootKey, p.clientCert, p.clientKey)
	return p
}

func issue(t *testing.T, c, by *x509.Certificate, byKey *ecdsa.PrivateKey, certFile, keyFile string) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if byKey == nil {
		byKey = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, byKey)
	if err != nil {
		t.Fatal(err)
	}
	kd, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: kd}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key
}
