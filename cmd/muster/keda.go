package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/keda"
)

// kedaService is the external scaler of a fleet that asks for one.
type kedaService struct {
	*keda.Service
	listener net.Listener
}

// openKEDA opens the address of the external scaler; nil where none is asked
// for.
func openKEDA(u *unit) (*kedaService, error) {
	k := u.fleet.Spec.KEDA
	if k == nil {
		return nil, nil
	}
	c := keda.Config{Targets: u.control.Targets, Logger: u.log}
	var err error
	if c.TLS, err = serverTLS(k); err != nil {
		return nil, fmt.Errorf("spec.keda: %w", err)
	}
	l, err := net.Listen("tcp", k.Listen)
	if err != nil {
		return nil, fmt.Errorf("spec.keda.listen: %w", err)
	}
	if c.TLS == nil {
		if a, ok := l.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
			u.log.Warn("the external scaler for KEDA is in the clear and open to whoever reaches it; spec.keda.cert, key and clientCA protect it", "address", l.Addr().String())
		}
	}
	u.log.Info("serving KEDA's external scaler", "address", l.Addr().String(), "tls", c.TLS != nil)
	return &kedaService{keda.New(c), l}, nil
}

// run serves until ctx ends.
func (k *kedaService) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, k.Stop)()
	return k.Serve(k.listener)
}

// serverTLS is our side of TLS; certificates are read anew at each connection,
// so that renewed ones are taken up. nil: in the clear.
func serverTLS(k *v1alpha1.KEDA) (*tls.Config, error) {
	if k.Cert == "" {
		return nil, nil
	}
	load := func() (*tls.Config, error) {
		pair, err := tls.LoadX509KeyPair(k.Cert, k.Key)
		if err != nil {
			return nil, fmt.Errorf("certificate %s with key %s: %w", k.Cert, k.Key, err)
		}
		c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
		if k.ClientCA == "" {
			return c, nil
		}
		pem, err := os.ReadFile(k.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("clientCA: %w", err)
		}
		c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !c.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("clientCA %s has no PEM certificate in it: %w", k.ClientCA, fleet.ErrInvalid)
		}
		return c, nil
	}
	c, err := load()
	if err != nil {
		return nil, err
	}
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return load() }
	return c, nil
}
