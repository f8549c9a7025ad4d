package connect

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster.dev/muster/internal/fleet"
)

func TestEnvAndFile(t *testing.T) {
	t.Setenv("MUSTER_TEST_PASSWORD", "pa ss")
	name := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(name, []byte("pa ss\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []Credential{Env("MUSTER_TEST_PASSWORD"), File(name)} {
		if v, err := c(t.Context()); v != "pa ss" || err != nil {
			t.Errorf("got %q, %v", v, err)
		}
	}
	if err := os.WriteFile(name, []byte("rotated"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := File(name)(t.Context()); v != "rotated" || err != nil {
		t.Errorf("after a rotation: %q, %v", v, err)
	}
	for _, c := range []Credential{Env("MUSTER_TEST_NONE"), File(name + ".none")} {
		if _, err := c(t.Context()); !errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("missing: %v", err)
		}
	}
	if err := os.WriteFile(name, make([]byte, most+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := File(name)(t.Context()); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("too large: %v", err)
	}
}

func TestKubernetesSecret(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer t0ken":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/api/v1/namespaces/agents/secrets/redis":
			fmt.Fprint(w, `{"data":{"password":"aHVudGVyMg=="}}`)
		case r.URL.Path == "/api/v1/namespaces/other/secrets/redis":
			w.WriteHeader(http.StatusForbidden)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer s.Close()
	dir := t.TempDir()
	for name, b := range map[string][]byte{
		"token": []byte("t0ken"), "namespace": []byte("agents"),
		"ca.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in := map[string]string{"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
	c := cluster{dir: dir, env: func(k string) string { return in[k] }}
	if v, err := c.secret("", "redis", "password")(t.Context()); v != "hunter2" || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
	for _, tt := range []struct {
		namespace, name, key string
		want                 error
	}{
		{"", "redis", "user", fleet.ErrNotFound},
		{"", "none", "password", fleet.ErrNotFound},
		{"other", "redis", "password", fleet.ErrDenied},
	} {
		_, err := c.secret(tt.namespace, tt.name, tt.key)(t.Context())
		if !errors.Is(err, tt.want) {
			t.Errorf("%+v: %v", tt, err)
		} else if strings.Contains(err.Error(), "t0ken") {
			t.Errorf("the error shows the token: %v", err)
		}
	}
	in["KUBERNETES_SERVICE_HOST"] = ""
	if _, err := c.secret("", "redis", "password")(t.Context()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("outside a cluster: %v", err)
	}
}
