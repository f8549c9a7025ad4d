package main

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/archive"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
	"muster.dev/muster/internal/store/memory"
)

// oneEach submits a task of each tenant.
func oneEach(t *testing.T, store *memory.Store, tenants ...fleet.TenantID) {
	t.Helper()
	now := time.Now()
	for _, tenant := range tenants {
		task := fleet.Task{ID: fleet.NewTaskID(now), SubmittedAt: now, Spec: fleet.TaskSpec{Tenant: tenant, Template: "default", Command: []string{"true"}}}
		if _, err := store.Submit(t.Context(), []fleet.Task{task}); err != nil {
			t.Fatal(err)
		}
	}
}

// heldIn is how many tasks wait for their tenant.
func heldIn(t *testing.T, store *memory.Store) (n int) {
	t.Helper()
	s, err := store.Queue().Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Pools {
		n += p.Held
	}
	return n
}

// TestTenantsAreHeld: what the ledger holds reaches the queue of a fleet as it is
// put together for life, with all that stands around its store.
func TestTenantsAreHeld(t *testing.T) {
	spec, err := v1alpha1.ParseFleet([]byte(`
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: agents}
spec:
  templates: [{name: default}]
  cost: {nodeHourUSD: 1}
  tenants: [{name: pay, budget: {perHour: 2}}, {name: web}]
`))
	if err != nil {
		t.Fatal(err)
	}
	files, err := archive.Open(t.TempDir(), archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store := memory.New(memory.Options{})
	defer store.Close()
	u, err := openUnit(t.Context(), unitConfig{
		fleet: spec, store: store, embedded: store.Queue(), archive: files, sandboxes: fake.New(fake.Options{}), nodes: oneNode{},
		secrets: localSecrets(spec), token: testToken, log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := u.close(); err != nil {
			t.Error(err)
		}
	}()
	oneEach(t, store, "pay", "web")
	for _, c := range []struct {
		tenants []fleet.TenantID
		want    int
	}{{nil, 0}, {[]fleet.TenantID{"pay"}, 1}, {[]fleet.TenantID{"pay", "web"}, 2}, {nil, 0}} {
		if err := u.hold(t.Context(), c.tenants); err != nil {
			t.Fatal(err)
		}
		if n := heldIn(t, store); n != c.want {
			t.Errorf("with %v held %d tasks wait for their tenant, want %d", c.tenants, n, c.want)
		}
	}
}

// TestConsumersHoldTenants: a process of its own that carries tasks holds the
// tenants that the control plane names, also where it came after, and lets go of
// them again; an unreadable setting changes nothing.
func TestConsumersHoldTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec, err := v1alpha1.ParseFleet([]byte(`
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: agents}
spec:
  templates: [{name: default}]
  tenants: [{name: pay, budget: {perHour: 2}}, {name: web}]
  cost: {nodeHourUSD: 1}
`))
		if err != nil {
			t.Fatal(err)
		}
		store := memory.New(memory.Options{})
		defer store.Close()
		say := func(held string) {
			t.Helper()
			if err := store.PutSetting(t.Context(), settingHeld, []byte(held)); err != nil {
				t.Fatal(err)
			}
		}
		oneEach(t, store, "pay", "web")
		say(`["pay"]`) // before it starts
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			followHeld(ctx, store, spec)
		}()
		for _, c := range []struct {
			say  string
			want int
		}{{"", 1}, {`["pay","web"]`, 2}, {"{", 2}, {`[]`, 0}, {`["web"]`, 1}, {"null", 0}} {
			if c.say != "" {
				say(c.say)
			}
			time.Sleep(heldEvery)
			synctest.Wait()
			if n := heldIn(t, store); n != c.want {
				t.Errorf("after %s %d tasks wait for their tenant, want %d", c.say, n, c.want)
			}
		}
		stop()
		<-ended
	})
}
