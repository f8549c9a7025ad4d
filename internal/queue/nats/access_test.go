package nats

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdk "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// certificates writes an authority, a server's pair and a client's pair.
func certificates(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caKey := certify(t, dir, "ca", authority, authority, nil)
	for i, name := range []string{"server", "client"} {
		certify(t, dir, name, &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
			DNSNames: []string{"nats.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}, authority, caKey)
	}
	return dir
}

func certify(t *testing.T, dir, name string, c, by *x509.Certificate, with *ecdsa.PrivateKey) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if with == nil {
		with = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), with)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for ext, b := range map[string]*pem.Block{"pem": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name+"."+ext), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key
}

// reach opens a Source, takes one message through it and closes it; the error
// is that of the first reading.
func (r *rig) reach(t *testing.T, c Config) error {
	t.Helper()
	s := r.open(t, c)
	defer s.Close()
	if _, err := s.Stats(t.Context()); err != nil {
		return err
	}
	if err := r.publish(t.Context(), c.Stream, sent("one")); err != nil {
		t.Fatal(err)
	}
	if err := s.Ack(t.Context(), receive(t, s, time.Minute)); err != nil {
		t.Errorf("ack: %v", err)
	}
	return nil
}

func wants(t *testing.T, what string, err, kind error, hidden ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: %v, want %v", what, err, kind)
	}
	for _, h := range hidden {
		if err != nil && strings.Contains(err.Error(), h) {
			t.Errorf("%s: the error shows a credential: %v", what, err)
		}
	}
}

func TestPasswordAndTLS(t *testing.T) {
	t.Parallel()
	dir := certificates(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	r := newRig(t, fmt.Sprintf("authorization { user: muster, password: 'right horse' }\ntls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }", file("server.pem"), file("server.key"), file("ca.pem")),
		sdk.UserInfo("muster", "right horse"), sdk.RootCAs(file("ca.pem")), sdk.ClientCert(file("client.pem"), file("client.key")))
	good := r.config(r.stream(t, jetstream.StreamConfig{Retention: jetstream.WorkQueuePolicy}))
	good.User, good.Password = "muster", connect.Fixed("right horse")
	good.TLS = connect.TLS{Enabled: true, CAFile: file("ca.pem"), CertFile: file("client.pem"), KeyFile: file("client.key")}
	if err := r.reach(t, good); err != nil {
		t.Errorf("user, password and certificate: %v", err)
	}
	named := good
	named.Servers, named.TLS.ServerName = []string{r.URL("tls")}, "nats.test"
	if err := r.reach(t, named); err != nil {
		t.Errorf("another server name: %v", err)
	}

	for name, tt := range map[string]struct {
		change func(*Config)
		kind   error
	}{
		"wrong password":      {func(c *Config) { c.Password = connect.Fixed("wrong horse") }, fleet.ErrDenied},
		"no user":             {func(c *Config) { c.User, c.Password = "", nil }, fleet.ErrDenied},
		"missing password":    {func(c *Config) { c.Password = connect.File(file("none")) }, fleet.ErrNotFound},
		"unknown authority":   {func(c *Config) { c.TLS.CAFile = "" }, fleet.ErrUnavailable},
		"wrong name":          {func(c *Config) { c.TLS.ServerName = "other.test" }, fleet.ErrUnavailable},
		"no own certificate":  {func(c *Config) { c.TLS.CertFile, c.TLS.KeyFile = "", "" }, fleet.ErrUnavailable},
		"no encryption":       {func(c *Config) { c.TLS = connect.TLS{} }, fleet.ErrUnavailable},
		"unknown stream":      {func(c *Config) { c.Stream = "NONE" }, fleet.ErrNotFound},
		"consumer not to add": {func(c *Config) { c.Consumer, c.Bind = "other", true }, fleet.ErrNotFound},
	} {
		c := good
		tt.change(&c)
		wants(t, name, r.reach(t, c), tt.kind, "right horse", "wrong horse")
	}
}

func TestRotatedPassword(t *testing.T) {
	t.Parallel()
	r := newRig(t, "authorization { user: muster, password: new }", sdk.UserInfo("muster", "new"))
	c := r.config(r.stream(t, jetstream.StreamConfig{}))
	file := filepath.Join(t.TempDir(), "password")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old\n")
	c.User, c.Password = "muster", connect.File(file)
	s := r.open(t, c)
	defer s.Close()
	_, err := s.Stats(t.Context())
	wants(t, "old password", err, fleet.ErrDenied)
	write("new\n")
	eventually(t, "the new password is used", func() error {
		_, err := s.Stats(t.Context())
		return err
	})
}

func TestTokenAndSeed(t *testing.T) {
	t.Parallel()
	r := newRig(t, "authorization { token: s3cr3t }", sdk.Token("s3cr3t"))
	c := r.config(r.stream(t, jetstream.StreamConfig{}))
	c.Token = connect.Fixed("s3cr3t")
	if err := r.reach(t, c); err != nil {
		t.Errorf("token: %v", err)
	}
	c.Token = connect.Fixed("an0th3r")
	wants(t, "wrong token", r.reach(t, c), fleet.ErrDenied, "s3cr3t", "an0th3r")

	pair, seed, public := key(t, nkeys.CreateUser)
	r = newRig(t, "authorization { users: [ { nkey: "+public+" } ] }", sdk.Nkey(public, pair.Sign))
	c = r.config(r.stream(t, jetstream.StreamConfig{}))
	c.NKeySeed = connect.Fixed(seed + "\n")
	if err := r.reach(t, c); err != nil {
		t.Errorf("seed: %v", err)
	}
	_, other, _ := key(t, nkeys.CreateUser)
	c.NKeySeed = connect.Fixed(other)
	wants(t, "another seed", r.reach(t, c), fleet.ErrDenied, seed, other)
	c.NKeySeed = connect.Fixed("nonsense")
	wants(t, "no seed", r.reach(t, c), fleet.ErrInvalid, "nonsense")
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	r := newRig(t, `authorization { users: [
  { user: admin, password: a }
  { user: muster, password: b, permissions: { publish: { allow: ["$JS.API.STREAM.INFO.*"] }, subscribe: { allow: ["_INBOX_m.>"] } } }
  { user: least, password: c, permissions: { publish: { allow: [
    "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.MSG.GET.*", "$JS.API.CONSUMER.INFO.*.muster",
    "$JS.API.CONSUMER.CREATE.*.muster", "$JS.API.CONSUMER.MSG.NEXT.*.muster", "$JS.ACK.*.muster.>", "dead" ] },
    subscribe: { allow: ["_INBOX.>"] } } }
] }`, sdk.UserInfo("admin", "a"))
	c := r.config(r.stream(t, jetstream.StreamConfig{}))
	c.User, c.Password, c.InboxPrefix = "muster", connect.Fixed("b"), "_INBOX_m"
	err := r.reach(t, c)
	wants(t, "may not look at consumers", err, fleet.ErrDenied)
	if err != nil && !strings.Contains(err.Error(), "CONSUMER.INFO") {
		t.Errorf("%v does not say what is not allowed", err)
	}
	// What docs/queues/nats.md lists is enough.
	c.User, c.Password, c.InboxPrefix, c.DeadSubject = "least", connect.Fixed("c"), "", "dead"
	if err := r.reach(t, c); err != nil {
		t.Errorf("least permissions: %v", err)
	}
	s := r.open(t, c)
	defer s.Close()
	if err := r.publish(t.Context(), c.Stream, sent("bad")); err != nil {
		t.Fatal(err)
	}
	if err := s.DeadLetter(t.Context(), receive(t, s, time.Minute), "bad"); err != nil {
		t.Errorf("dead-letter with least permissions: %v", err)
	}
}

func key(t *testing.T, create func() (nkeys.KeyPair, error)) (pair nkeys.KeyPair, seed, public string) {
	t.Helper()
	pair, err := create()
	if err != nil {
		t.Fatal(err)
	}
	b, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = pair.PublicKey(); err != nil {
		t.Fatal(err)
	}
	return pair, string(b), public
}

// claim signs a JWT as NATS wants it.
func claim(t *testing.T, by nkeys.KeyPair, subject string, nats map[string]any) string {
	t.Helper()
	issuer, err := by.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	nats["version"] = 2
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(map[string]string{"typ": "JWT", "alg": "ed25519-nkey"}) + "." +
		part(map[string]any{"jti": subject, "iat": time.Now().Unix(), "iss": issuer, "sub": subject, "name": "test", "nats": nats})
	sig, err := by.Sign([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func TestCredentialsFile(t *testing.T) {
	t.Parallel()
	operator, _, operatorID := key(t, nkeys.CreateOperator)
	account, _, accountID := key(t, nkeys.CreateAccount)
	_, _, systemID := key(t, nkeys.CreateAccount)
	_, seed, userID := key(t, nkeys.CreateUser)
	limits := map[string]any{"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
	bare := map[string]any{"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1}
	jwt := claim(t, account, userID, map[string]any{"type": "user", "pub": map[string]any{}, "sub": map[string]any{}, "subs": -1, "data": -1, "payload": -1})
	creds := fmt.Sprintf("-----BEGIN NATS USER JWT-----\n%s\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n%s\n------END USER NKEY SEED------\n", jwt, seed)
	r := newRig(t, fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: { %s: %s, %s: %s }",
		claim(t, operator, operatorID, map[string]any{"type": "operator"}), systemID,
		accountID, claim(t, operator, accountID, map[string]any{"type": "account", "limits": limits}),
		systemID, claim(t, operator, systemID, map[string]any{"type": "account", "limits": bare})),
		sdk.UserCredentialBytes([]byte(creds)))
	c := r.config(r.stream(t, jetstream.StreamConfig{}))
	c.Credentials = connect.Fixed(creds)
	if err := r.reach(t, c); err != nil {
		t.Errorf("credentials: %v", err)
	}
	c.Credentials = connect.Fixed(jwt)
	wants(t, "no seed", r.reach(t, c), fleet.ErrInvalid, jwt)
	c.Credentials = nil
	wants(t, "none", r.reach(t, c), fleet.ErrDenied)
}

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not so: %v", what, err)
}

func receive(t *testing.T, s *Source, visibility time.Duration) (m fleet.Message) {
	t.Helper()
	eventually(t, "a message comes", func() error {
		got, err := s.Receive(t.Context(), 1, visibility)
		if err == nil && len(got) == 0 {
			err = context.DeadlineExceeded
		}
		if err == nil {
			m = got[0]
		}
		return err
	})
	return m
}
