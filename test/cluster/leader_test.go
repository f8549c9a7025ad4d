package cluster

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"muster.dev/muster/internal/queue/queuetest/servers"
	kubetest "muster.dev/muster/test/kube"
)

// Two replicas on one PostgreSQL: the leader is killed in the middle of a
// burst; the other one leads, on a quiet machine within 15 s, and nothing is done twice.
func TestLeaderIsKilled(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{group: kubetest.GroupOptions{Min: 2}})
	store := newDatabase(t)
	w.apply("agents", w.fleetSpec("capacity: {sandboxes: {min: 3, max: 16}}"))
	a := w.plane("first", "", "--store", store).start()
	a.ready("agents")
	b := w.plane("second", "", "--store", store).start()
	a.submit("agents", "before", 12, "sleep 3")
	w.until(time.Minute, "some run", func() error {
		for _, v := range a.mustTasks("agents") {
			if v.State == "running" {
				return nil
			}
		}
		return fmt.Errorf("none runs")
	})
	a.kill()
	died := time.Now()
	w.until(30*time.Second, "the other one leads", func() error {
		_, err := b.api("GET", "agents", "/v1/fleet", nil, nil)
		return err
	})
	t.Logf("handed over in %s", time.Since(died).Round(10*time.Millisecond))
	b.submit("agents", "after", 6, "true")
	for _, v := range b.succeed("agents", 18, 3*time.Minute) {
		if v.Attempt > 2 {
			t.Errorf("task %s took %d attempts: %s", v.Name, v.Attempt, v.Message)
		}
	}
	if twice := w.pods.twice(); len(twice) > 0 {
		t.Errorf("sandboxes created twice: %v", twice)
	}
	// A rolling restart hands over at once: the lease is given back.
	a.start()
	w.until(30*time.Second, "the first answers again", func() error { return a.alive() })
	b.stop()
	stopped := time.Now()
	w.until(30*time.Second, "the first one leads again", func() error {
		_, err := a.api("GET", "agents", "/v1/fleet", nil, nil)
		return err
	})
	t.Logf("handed over cleanly in %s", time.Since(stopped).Round(10*time.Millisecond))
	a.submit("agents", "last", 2, "true")
	a.succeed("agents", 20, time.Minute)
}

func (p *plane) alive() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return get(ctx, p.base+"/healthz")
}

// newDatabase is a PostgreSQL of this test's own.
func newDatabase(t *testing.T) string {
	t.Helper()
	return servers.StartPostgres(t, servers.PostgresSetup{}).URL()
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	return r.Body.Close()
}
