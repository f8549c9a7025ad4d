package postgres

import (
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
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// authorityKeys issues certificates of a test's own.
type authorityKeys struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newAuthority(t *testing.T) *authorityKeys {
	t.Helper()
	a := &authorityKeys{}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = template, newKey(t)
	a.pem = a.sign(t, template, a.key)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (a *authorityKeys) sign(t *testing.T, c *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// issue makes a certificate and its key, both PEM.
func (a *authorityKeys) issue(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	k := newKey(t)
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert = a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, k)
	return cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

func (a *authorityKeys) server(t *testing.T) map[string][]byte {
	cert, key := a.issue(t, "db.internal")
	return map[string][]byte{"ca.pem": a.pem, "server.pem": cert, "server.key": key}
}

func encrypted(t *testing.T, s *servers.Postgres, keys *authorityKeys) {
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	ca, other := file("ca.pem", keys.pem), file("other.pem", newAuthority(t).pem)
	cert, key := keys.issue(t, "certified")
	mine, private := file("mine.pem", cert), file("mine.key", key)
	exec(t, s, `CREATE ROLE encrypted SUPERUSER LOGIN PASSWORD 'p'; CREATE ROLE certified SUPERUSER LOGIN`)
	for _, tt := range []struct {
		name, user string
		tls        connect.TLS
		want       error
	}{
		{"password over TLS", "encrypted", connect.TLS{Enabled: true, CAFile: ca}, nil},
		{"server by its name", "encrypted", connect.TLS{Enabled: true, CAFile: ca, ServerName: "db.internal"}, nil},
		{"unchecked", "encrypted", connect.TLS{Enabled: true, Insecure: true}, nil},
		{"no TLS where it is demanded", "encrypted", connect.TLS{}, fleet.ErrDenied},
		{"another's authority", "encrypted", connect.TLS{Enabled: true, CAFile: other}, fleet.ErrUnavailable},
		{"another's name", "encrypted", connect.TLS{Enabled: true, CAFile: ca, ServerName: "db.evil"}, fleet.ErrUnavailable},
		{"certificate", "certified", connect.TLS{Enabled: true, CAFile: ca, CertFile: mine, KeyFile: private}, nil},
		{"no certificate where it is demanded", "certified", connect.TLS{Enabled: true, CAFile: ca}, fleet.ErrDenied},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := at(s, Config{Table: "tls", Create: true, TLS: tt.tls, Password: connect.Fixed("p")})
			c.User = tt.user
			q, err := New(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			if _, err := q.Stats(t.Context()); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if tt.want != nil {
				return
			}
			exec(t, s, `INSERT INTO tls (body) VALUES ('x')`)
			woken(t, q, "over TLS", 10*time.Second)
		})
	}
	if _, err := New(t.Context(), at(s, Config{TLS: connect.TLS{Enabled: true, CAFile: dir + "/none.pem"}})); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("an authority that is missing: %v, want ErrInvalid", err)
	}
}
