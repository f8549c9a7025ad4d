package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"muster.dev/muster/internal/fleet"
)

// Credential returns a secret as it is now. It is called at each connection;
// its value is never logged and no part of an error. A nil Credential is none.
type Credential func(context.Context) (string, error)

// Fixed is a credential that does not change; for tests.
func Fixed(value string) Credential {
	return func(context.Context) (string, error) { return value, nil }
}

// Value returns the credential, empty for a nil one.
func (c Credential) Value(ctx context.Context) (string, error) {
	if c == nil {
		return "", nil
	}
	return c(ctx)
}

// TLS says how a connection is encrypted. Files are read at each call of
// Config, so that renewed certificates are taken up.
type TLS struct {
	Enabled bool
	CAFile  string // PEM; empty: the system's authorities
	// CertFile and KeyFile are our own certificate, where the server asks for
	// one; both or neither.
	CertFile, KeyFile string
	ServerName        string // in the server's certificate; empty: the host dialled
	// Insecure skips the check of the server's certificate.
	Insecure bool
}

// Config returns the client's side of TLS; nil where it is not enabled. Errors
// wrap fleet.ErrInvalid and name the file.
func (t TLS) Config() (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.Insecure} //nolint:gosec // asked for by the user, for test set-ups
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("TLS authority: %w: %w", fleet.ErrInvalid, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("TLS authority %s has no PEM certificate in it: %w", t.CAFile, fleet.ErrInvalid)
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("TLS certificate %s with key %s: %w: %w", t.CertFile, t.KeyFile, fleet.ErrInvalid, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
