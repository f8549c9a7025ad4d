package connect

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
)

func TestTLS(t *testing.T) {
	if c, err := (TLS{CAFile: "/does/not/exist"}).Config(); c != nil || err != nil {
		t.Errorf("TLS that is off: %v, %v", c, err)
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]TLS{
		"missing authority": {Enabled: true, CAFile: "/does/not/exist"},
		"empty authority":   {Enabled: true, CAFile: empty},
		"half a pair":       {Enabled: true, CertFile: empty},
	} {
		_, err := s.Config()
		if !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		} else if !strings.Contains(err.Error(), "/") {
			t.Errorf("%s: %v does not name the file", name, err)
		}
	}
	c, err := (TLS{Enabled: true, ServerName: "queue.example"}).Config()
	if err != nil || c.ServerName != "queue.example" || c.InsecureSkipVerify {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Backoff
		most := 50 * time.Millisecond
		for range 12 {
			if d := b.Next(); d < most/2 || d > most {
				t.Errorf("pause %s, want %s to %s", d, most/2, most)
			}
			most = min(2*most, 5*time.Second)
		}
		b.Reset()
		if d := b.Next(); d > 50*time.Millisecond {
			t.Errorf("pause %s after a success", d)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("wait with an ended context: %v", err)
		}
	})
}

func TestNoCredential(t *testing.T) {
	var c Credential
	if v, err := c.Value(t.Context()); v != "" || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
	if v, err := Fixed("x").Value(t.Context()); v != "x" || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
}
