package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	kubetest "muster.dev/muster/test/kube"
)

// Three control planes in one namespace, each with a Lease of its own: two run the
// fleets of different namespaces side by side; the third, for the same fleets as
// the first, stands by and says why, and leads when the first has ended.
func TestControlPlanesOfOneNamespace(t *testing.T) {
	t.Parallel()
	a := setUp(t, options{group: kubetest.GroupOptions{Min: 1}})
	b := setUp(t, options{group: kubetest.GroupOptions{Min: 1}})
	for _, w := range []*world{a, b} {
		w.apply("agents", w.fleetSpec("capacity: {sandboxes: {min: 1, max: 4}}"))
	}
	first := a.plane("first", "", "--lease", "first").start()
	second := b.plane("second", "", "--lease", "second")
	second.token = strings.Repeat("t", 32)
	second.env = []string{"POD_NAMESPACE=" + a.ns, "MUSTER_TOKEN=" + second.token}
	second.start()
	first.ready("agents")
	second.ready("agents")
	third := a.plane("third", "", "--lease", "third").start()
	first.submit("agents", "one", 2, "sleep 1")
	second.submit("agents", "two", 2, "sleep 1")
	first.succeed("agents", 2, 3*time.Minute)
	second.succeed("agents", 2, 3*time.Minute)
	a.until(time.Minute, "the third says why it stands by", func() error {
		if out := third.log.String(); !strings.Contains(out, "another control plane of this namespace runs the same fleets") || !strings.Contains(out, "lease=first") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if code, err := third.api("GET", "agents", "/v1/fleet", nil, nil); code != http.StatusServiceUnavailable {
		t.Errorf("the third answers %d: %v", code, err)
	}
	if err := third.answers("/readyz"); err != nil {
		t.Errorf("standing by is no failure: %v", err)
	}
	first.stop()
	third.ready("agents")
	if strings.Contains(second.log.String(), "not leading any more") {
		t.Error("the second was disturbed")
	}
}

// answers is nil when a path is answered with 200.
func (p *plane) answers(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, http.NoBody)
	if err != nil {
		return err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, r.Status)
	}
	_ = r.Body.Close()
	return err
}
