package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"

	"muster.dev/muster/internal/fleet"
)

// settingKeys is where the control plane's keys are kept.
const settingKeys = "gateway.keys"

// planeKeys are what the gateway proves itself and knows runners with. They
// outlive the process, so that runners find back after a rollout.
type planeKeys struct {
	Session   []byte `json:"session"`   // 32 bytes: signs sessions
	Authority []byte `json:"authority"` // our own authority's certificate, PEM
	Key       []byte `json:"key"`       // its key, PEM
}

// readKeys reads the keys; fleet.ErrUnavailable where no control plane has made
// them yet.
func readKeys(ctx context.Context, s fleet.Settings) (*planeKeys, error) {
	b, err := s.Setting(ctx, settingKeys)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the gateway's keys: %w", err)
	case b == nil:
		return nil, fmt.Errorf("no control plane has led on this store yet: %w", fleet.ErrUnavailable)
	}
	k := &planeKeys{}
	if err := json.Unmarshal(b, k); err != nil || len(k.Session) != 32 {
		return nil, fmt.Errorf("the gateway's keys in the store: %w", fleet.ErrCorrupt)
	}
	return k, nil
}

// loadKeys reads the keys, making them on the first start.
func loadKeys(ctx context.Context, s fleet.Settings) (*planeKeys, error) {
	b, err := s.Setting(ctx, settingKeys)
	if err != nil || b != nil {
		return readKeys(ctx, s)
	}
	k := &planeKeys{}
	k.Session = make([]byte, 32)
	_, _ = rand.Read(k.Session) // never fails
	if k.Authority, k.Key, err = newAuthority(); err != nil {
		return nil, err
	}
	if b, err = json.Marshal(k); err == nil {
		err = s.PutSetting(ctx, settingKeys, b)
	}
	if err != nil {
		return nil, fmt.Errorf("keep the gateway's keys: %w", err)
	}
	return k, nil
}

// Our certificates: an authority that runners trust for as long as a store is
// likely to be kept, and a certificate that is made anew at each start.
const (
	authorityLife = 20 * 365 * 24 * time.Hour
	leafLife      = 2 * 365 * 24 * time.Hour
)

func newAuthority() (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the gateway's authority: %w", err)
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "muster gateway authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the gateway's authority: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the gateway's authority: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), nil
}

// gatewayCert is the gateway's side of TLS.
type gatewayCert struct {
	authority []byte // PEM that runners trust
	load      func() (*tls.Certificate, error)
}

func (c *gatewayCert) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.load() },
	}
}

// certificate is the one that was given, read anew at each connection so that a
// renewed one is taken up, or one of our own authority.
func (g gatewayOptions) certificate(k *planeKeys) (*gatewayCert, error) {
	if g.cert == "" {
		return ownCertificate(k, g.address)
	}
	load := func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(g.cert, g.key)
		if err != nil {
			return nil, fmt.Errorf("--gateway-cert %s with --gateway-key %s: %w", g.cert, g.key, err)
		}
		return &c, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	chain, err := os.ReadFile(g.cert)
	if err != nil {
		return nil, fmt.Errorf("--gateway-cert: %w", err)
	}
	var last []byte // the authority, or the certificate itself where it is alone
	for rest := chain; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type == "CERTIFICATE" {
			last = pem.EncodeToMemory(b)
		}
	}
	return &gatewayCert{authority: last, load: load}, nil
}

// ownCertificate is one for the gateway's address, signed by our own authority.
func ownCertificate(k *planeKeys, address string) (*gatewayCert, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, usageError("--gateway-address %q: want host:port such as muster-gateway.muster.svc:7443", address)
	}
	pair, err := tls.X509KeyPair(k.Authority, k.Key)
	if err != nil {
		return nil, fmt.Errorf("the gateway's authority in the store: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the gateway's certificate: %w", err)
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "muster gateway"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else {
		t.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, pair.Leaf, &key.PublicKey, pair.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("make the gateway's certificate: %w", err)
	}
	cert := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return &gatewayCert{authority: k.Authority, load: func() (*tls.Certificate, error) { return cert, nil }}, nil
}
