package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// most bounds a credential: certificates with their chain fit.
const most = 256 << 10

// Env reads an environment variable of this process; ErrNotFound where it is
// not set.
func Env(name string) Credential {
	return func(context.Context) (string, error) {
		v, ok := os.LookupEnv(name)
		if !ok {
			return "", fmt.Errorf("environment variable %s is not set: %w", name, fleet.ErrNotFound)
		}
		return v, nil
	}
}

// File reads a file of at most 256 KiB; one trailing newline is not part of the
// value.
func File(name string) Credential {
	return func(context.Context) (string, error) {
		f, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("credential: %w: %w", fleet.ErrNotFound, err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, most+1))
		if err != nil {
			return "", fmt.Errorf("credential: %w", err)
		}
		if len(b) > most {
			return "", fmt.Errorf("credential %s is larger than %d bytes: %w", name, most, fleet.ErrInvalid)
		}
		return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
	}
}

// account is where Kubernetes puts a pod's service account; see "Accessing the
// Kubernetes API from a Pod" in its documentation.
const account = "/var/run/secrets/kubernetes.io/serviceaccount"

// KubernetesSecret reads one key of a secret through the API of the cluster
// this process runs in, with the pod's service account, which must be allowed
// to get it. An empty namespace is the pod's own.
func KubernetesSecret(namespace, name, key string) Credential {
	return cluster{dir: account, env: os.Getenv}.secret(namespace, name, key)
}

// cluster is how a pod finds its API server.
type cluster struct {
	dir string
	env func(string) string
}

func (c cluster) secret(namespace, name, key string) Credential {
	return func(ctx context.Context) (string, error) {
		what := "Kubernetes secret " + name
		host := c.env("KUBERNETES_SERVICE_HOST")
		if host == "" {
			return "", fmt.Errorf("%s: this process does not run in a cluster (KUBERNETES_SERVICE_HOST is not set): %w", what, fleet.ErrUnavailable)
		}
		token, err := File(filepath.Join(c.dir, "token"))(ctx)
		if err != nil {
			return "", fmt.Errorf("%s: %w", what, err)
		}
		if namespace == "" {
			if namespace, err = File(filepath.Join(c.dir, "namespace"))(ctx); err != nil {
				return "", fmt.Errorf("%s: %w", what, err)
			}
		}
		b, err := c.get(ctx, token, (&url.URL{
			Scheme: "https", Host: net.JoinHostPort(host, c.env("KUBERNETES_SERVICE_PORT")),
			Path: "/api/v1/namespaces/" + namespace + "/secrets/" + name,
		}).String())
		if err != nil {
			return "", fmt.Errorf("%s/%s: %w", namespace, what, err)
		}
		var got struct {
			Data map[string][]byte `json:"data"`
		}
		if err := json.Unmarshal(b, &got); err != nil {
			return "", fmt.Errorf("%s: the answer is no secret: %w", what, fleet.ErrUnavailable)
		}
		v, ok := got.Data[key]
		if !ok {
			return "", fmt.Errorf("%s has no key %q: %w", what, key, fleet.ErrNotFound)
		}
		return string(v), nil
	}
}

// get asks the API server, whose authority is in the pod.
func (c cluster) get(ctx context.Context, token, address string) ([]byte, error) {
	pem, err := os.ReadFile(filepath.Join(c.dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("ca.crt of the service account has no certificate in it")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: 10 * time.Second}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return io.ReadAll(io.LimitReader(resp.Body, 4<<20)) // larger than any secret, of 1 MiB at most
	case http.StatusNotFound:
		return nil, fleet.ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, fmt.Errorf("the service account may not read it (HTTP %d): %w", resp.StatusCode, fleet.ErrDenied)
	}
	return nil, fmt.Errorf("HTTP %d: %w", resp.StatusCode, fleet.ErrUnavailable)
}
