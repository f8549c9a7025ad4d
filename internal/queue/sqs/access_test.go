package sqs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest/servers"
	"muster.dev/muster/internal/queue/sqs"
)

func closing(t *testing.T, c sqs.Config) *sqs.Source {
	t.Helper()
	q := open(t, c)
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return q
}

// stats reads until the reading is as wanted.
func stats(t *testing.T, q fleet.Source, what string, want func(fleet.SignalStats, error) bool) fleet.SignalStats {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		st, err := q.Stats(t.Context())
		if want(st, err) {
			return st
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %+v, %v", what, st, err)
		}
	}
}

func fine(_ fleet.SignalStats, err error) bool { return err == nil }

func TestCredentials(t *testing.T) {
	t.Parallel()
	s := servers.StartSQS(t, nil)
	create(t, s, "q", 10)
	c := conf(s, "q")
	var secret, token atomic.Value
	secret.Store("wr0ng-secret")
	token.Store("t0ken")
	c.SecretAccessKey = func(context.Context) (string, error) { return secret.Load().(string), nil }
	c.SessionToken = func(context.Context) (string, error) { return token.Load().(string), nil }
	q := closing(t, c)
	for name, call := range map[string]func() error{
		"stats":   func() error { _, err := q.Stats(t.Context()); return err },
		"receive": func() error { _, err := q.Receive(t.Context(), 1, time.Minute); return err },
		"ack": func() error {
			return q.Ack(t.Context(), fleet.Message{ID: "i", Receipt: strconv.FormatInt(time.Now().UnixMilli(), 36) + ".AQEB"})
		},
	} {
		err := call()
		if !errors.Is(err, fleet.ErrDenied) {
			t.Errorf("%s with a wrong secret: %v, want ErrDenied", name, err)
		}
		for _, hidden := range []string{"wr0ng-secret", "t0ken"} {
			if err != nil && strings.Contains(err.Error(), hidden) {
				t.Errorf("%s: the error shows %s: %v", name, hidden, err)
			}
		}
	}
	secret.Store(servers.SQSSecretKey)
	token.Store("")
	stats(t, q, "after the secret was mended", fine)
}

func TestMissingCredentials(t *testing.T) {
	t.Parallel()
	s := servers.StartSQS(t, nil)
	c := conf(s, "q")
	c.SecretAccessKey = connect.File(filepath.Join(t.TempDir(), "none"))
	if _, err := closing(t, c).Stats(t.Context()); !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), "secretAccessKey") {
		t.Errorf("no file: %v, want ErrDenied", err)
	}
	c.AccessKeyID, c.SecretAccessKey = nil, nil
	if _, err := closing(t, c).Stats(t.Context()); !errors.Is(err, fleet.ErrDenied) {
		t.Errorf("none at all: %v, want ErrDenied", err)
	}
}

func TestDefaultChain(t *testing.T) {
	s := servers.StartSQS(t, nil)
	create(t, s, "q", 10)
	t.Setenv("AWS_ACCESS_KEY_ID", servers.SQSAccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", servers.SQSSecretKey)
	t.Setenv("AWS_REGION", servers.SQSRegion)
	q := closing(t, sqs.Config{Queue: "q", Endpoint: s.Endpoint()})
	stats(t, q, "credentials and region of the environment", fine)
}

func TestAssumeRole(t *testing.T) {
	t.Parallel()
	s := servers.StartSQS(t, nil)
	create(t, s, "q", 10)
	c := conf(s, "q")
	c.AssumeRole, c.ExternalID = servers.SQSRole, "muster"
	stats(t, closing(t, c), "as a role", fine)
	if n := s.Calls("AssumeRole"); n != 1 {
		t.Errorf("the role was assumed %d times", n)
	}
	c.ExternalID = "other"
	if _, err := closing(t, c).Stats(t.Context()); !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), "credentials") {
		t.Errorf("a role that is not ours: %v, want ErrDenied", err)
	}
}

func TestDenied(t *testing.T) {
	t.Parallel()
	s := servers.StartSQS(t, nil)
	create(t, s, "q", 10)
	s.Deny("ReceiveMessage")
	q := closing(t, conf(s, "q"))
	if _, err := q.Receive(t.Context(), 1, time.Minute); !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), "sqs:receivemessage") {
		t.Errorf("receive: %v, want ErrDenied and the permission", err)
	}
	stats(t, q, "what is allowed", fine)
}

func TestMissingQueue(t *testing.T) {
	t.Parallel()
	s := servers.StartSQS(t, nil)
	q := closing(t, conf(s, "q"))
	if _, err := q.Stats(t.Context()); !errors.Is(err, fleet.ErrNotFound) || !strings.Contains(err.Error(), "queue q") {
		t.Errorf("no queue: %v, want ErrNotFound and its name", err)
	}
	if _, err := q.Receive(t.Context(), 1, time.Minute); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("no queue: %v, want ErrNotFound", err)
	}
	url, _ := create(t, s, "q", 10)
	stats(t, q, "once it was created", fine)
	byURL := conf(s, url)
	stats(t, closing(t, byURL), "by its URL", fine)
	remove(t, s, url)
	stats(t, q, "deleted while in use", func(_ fleet.SignalStats, err error) bool { return errors.Is(err, fleet.ErrNotFound) })
	if _, err := q.Receive(t.Context(), 1, time.Minute); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("deleted while in use: %v, want ErrNotFound", err)
	}
}

// authority makes certificates for one test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("ca", &x509.Certificate{IsCA: true, KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true})
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) issue(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, b := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(a.path(name+file), pem.EncodeToMemory(b), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return made, key
}

func TestTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	a.issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	pair, err := tls.LoadX509KeyPair(a.path("server.pem"), a.path("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	for name, tt := range map[string]struct {
		ask  tls.ClientAuthType
		tls  connect.TLS
		good bool
	}{
		"the right authority":         {tls.NoClientCert, connect.TLS{Enabled: true, CAFile: a.path("ca.pem")}, true},
		"the system's authorities":    {tls.NoClientCert, connect.TLS{}, false},
		"another name":                {tls.NoClientCert, connect.TLS{Enabled: true, CAFile: a.path("ca.pem"), ServerName: "other"}, false},
		"unchecked":                   {tls.NoClientCert, connect.TLS{Enabled: true, Insecure: true}, true},
		"our own certificate":         {tls.RequireAndVerifyClientCert, connect.TLS{Enabled: true, CAFile: a.path("ca.pem"), CertFile: a.path("client.pem"), KeyFile: a.path("client.key")}, true},
		"without our own certificate": {tls.RequireAndVerifyClientCert, connect.TLS{Enabled: true, CAFile: a.path("ca.pem")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tt.ask, ClientCAs: pool}
			s := servers.StartSQS(t, config)
			if tt.ask == tls.NoClientCert { // the fake's own client has no certificate
				create(t, s, "q", 10)
			}
			c := conf(s, "q")
			c.TLS = tt.tls
			_, err := closing(t, c).Stats(t.Context())
			if tt.ask != tls.NoClientCert && tt.good {
				if !errors.Is(err, fleet.ErrNotFound) { // an answer over TLS all the same
					t.Errorf("got %v, want ErrNotFound", err)
				}
				return
			}
			if tt.good != (err == nil) || err != nil && !errors.Is(err, fleet.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
		})
	}
}
