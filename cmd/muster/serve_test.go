package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/operator"
	"muster.dev/muster/internal/store/memory"
)

func TestParseStore(t *testing.T) {
	for given, want := range map[string]string{
		"":                          "/d/muster.db",
		"sqlite:/x/y.db":            "/x/y.db",
		"sqlite:y.db":               "want an absolute path",
		"mysql://root:hunter2@x/y":  "want sqlite:PATH or a postgres:// URL",
		"postgres://a:b@c/d":        "",
		"/x/y.db":                   "want sqlite:PATH",
		"postgresql://a:b@c/d?x=y":  "",
		"sqlserver:hunter2@nowhere": "want sqlite:PATH",
	} {
		s, err := parseStore(given, "/d")
		switch {
		case err != nil:
			if want == "" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q: %v, want %q", given, err, want)
			}
		case s.shared() != (want == "") || s.file != want:
			t.Errorf("%q: %+v", given, s)
		}
	}
	a, b := storeChoice{file: "/x/y.db"}.placeOf("/d", "a", "b"), storeChoice{dsn: "x"}.placeOf("/d", "a-b", "c")
	if a.file != "/x/fleets/a/b/muster.db" || b.files != "/d/fleets/a-b/c/tasks" || b.schema == (storeChoice{dsn: "x"}).placeOf("/d", "a", "b-c").schema {
		t.Errorf("%+v, %+v", a, b)
	}
}

func TestServeToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(testToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ file, env, want, wrong string }{
		{"", "", "", ""},
		{"", testToken, testToken, ""},
		{file, "short", testToken, ""},
		{"", "short", "", "$MUSTER_TOKEN has 5 characters"},
		{"/nowhere/token", "", "", "read the token"},
	} {
		got, err := serveToken(c.file, c.env)
		if got != c.want && c.wrong == "" || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

// TestGatewayKeys: the keys of the first start are those of the next, and the
// certificate is for the address that sandboxes are told.
func TestGatewayKeys(t *testing.T) {
	s := memory.New(memory.Options{})
	first, err := loadKeys(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	second, err := loadKeys(t.Context(), s)
	if err != nil || string(first.Session) != string(second.Session) || string(first.Authority) != string(second.Authority) {
		t.Fatalf("other keys after a restart: %v", err)
	}
	for _, host := range []string{"muster-gateway.muster.svc", "127.0.0.1", "::1"} {
		cert, err := gatewayOptions{address: net.JoinHostPort(host, "7443")}.certificate(second)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(cert.authority) {
			t.Fatal("no authority")
		}
		ours, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- tls.Server(theirs, cert.config()).HandshakeContext(t.Context()) }()
		err = tls.Client(ours, &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}).HandshakeContext(t.Context())
		if err != nil {
			t.Errorf("%s: %v", host, err)
		}
		_ = ours.Close()
		<-done
		_ = theirs.Close()
	}
	if err := s.PutSetting(t.Context(), settingKeys, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if _, err := loadKeys(t.Context(), s); err == nil || !strings.Contains(err.Error(), fleet.ErrCorrupt.Error()) {
		t.Errorf("broken keys: %v", err)
	}
}

// TestTeller: what happens is told once, and not what happened before.
func TestTeller(t *testing.T) {
	s := memory.New(memory.Options{})
	event := func(kind string) {
		if _, err := s.AppendEvents(t.Context(), []fleet.Event{{Kind: kind, Reason: "because"}}); err != nil {
			t.Fatal(err)
		}
	}
	event("scale_out")
	var w teller
	w.open(t.Context(), s)
	defer w.close()
	event("scale_in")
	event("sandbox_ready")
	event("breaker_open")
	got := w.events(t.Context())
	want := []operator.Event{{Reason: "ScaleIn", Message: "because"}, {Warning: true, Reason: "BreakerOpen", Message: "because"}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%+v, want %+v", got, want)
	}
	if again := w.events(t.Context()); len(again) > 0 {
		t.Errorf("told twice: %+v", again)
	}
}
