package main

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rogpeppe/go-internal/testscript"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/archive"
	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/ledger"
	"muster.dev/muster/internal/sandbox/fake"
	"muster.dev/muster/internal/server"
	"muster.dev/muster/internal/store/memory"
)

const (
	testToken = "0123456789abcdef0123456789abcdef"
	testFleet = `
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: cli}
spec:
  templates: [{name: default, runtime: runc}]
  capacity: {sandboxes: {min: 2, max: 8}}
`
)

// setUpServer points a script at a control plane of its own.
func setUpServer(env *testscript.Env) error {
	address, stop, err := startServer()
	if err != nil {
		return err
	}
	env.Setenv("MUSTER_SERVER", address)
	env.Setenv("MUSTER_TOKEN", testToken)
	env.Defer(func() {
		if err := stop(); err != nil {
			env.T().Log(err)
		}
	})
	return nil
}

// serverForTest is a control plane for a test; it returns the environment of
// programs that should use it.
func serverForTest(t *testing.T) []string {
	t.Helper()
	address, stop, err := startServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return []string{"MUSTER_SERVER=" + address, "MUSTER_TOKEN=" + testToken, "MUSTER_HOME=" + t.TempDir()}
}

// startServer starts a control plane whose sandboxes are fake (see act) and
// whose store is in memory.
func startServer() (address string, stop func() error, err error) {
	spec, err := v1alpha1.ParseFleet([]byte(testFleet))
	if err != nil {
		return "", nil, err
	}
	wanted, err := controlSpec(spec)
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "muster-cli-")
	if err != nil {
		return "", nil, err
	}
	files, err := archive.Open(filepath.Join(dir, "tasks"), archive.Options{})
	if err != nil {
		return "", nil, err
	}
	store := memory.New(memory.Options{})
	boxes := fake.New(fake.Options{Script: act, Exec: actExec})
	engine, err := control.New(control.Config{
		Store: store, Queue: store.Queue(), Archive: files, Sandboxes: boxes, Nodes: oneNode{},
		Spec: wanted, Variant: v1alpha1.Variant, Grace: time.Second,
	})
	if err != nil {
		return "", nil, err
	}
	books := ledger.New(ledger.Options{
		Store: store, Nodes: oneNode{}.List, Fleet: "cli", Tariff: cost.Tariff{{PerHour: 3_600_000_000}},
		Look: 20 * time.Millisecond, Every: 20 * time.Millisecond, Lag: 20 * time.Millisecond,
	})
	u := &unit{unitConfig: unitConfig{store: store}, control: engine, ledger: books}
	u.now.Store(spec)
	api, err := server.New(server.Config{
		Adviser: openAdviser(u), Evidence: openEvidence(u).Evidence,
		Store: store, Archive: files, Engine: engine, Ledger: books, Fleet: func() *v1alpha1.Fleet { return spec },
		Token: testToken, Version: "test", Ready: engine.Ready, Registry: prometheus.NewRegistry(),
	})
	if err != nil {
		return "", nil, err
	}
	front := httptest.NewServer(api)
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		charging := make(chan error, 1)
		go func() { charging <- books.Run(ctx) }()
		ended <- errors.Join(engine.Run(ctx), <-charging)
	}()
	return front.URL, func() error {
		bounded, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err := api.Shutdown(bounded)
		front.CloseClientConnections()
		front.Close()
		end()
		return errors.Join(err, <-ended, boxes.Close(), files.Close(), store.Close(), os.RemoveAll(dir))
	}, nil
}
