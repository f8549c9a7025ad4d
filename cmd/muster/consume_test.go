package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/operator"
	"muster.dev/muster/internal/store/memory"
)

func TestConsumeFlags(t *testing.T) {
	const store, gate = "--store=postgres://u@h/d", "--gateway-address=g.muster.svc:7443"
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{store, gate}, `--fleet "": want NAMESPACE/NAME`},
		{[]string{"--fleet=agents", store, gate}, `--fleet "agents": want NAMESPACE/NAME`},
		{[]string{"--fleet=a/b/c", store, gate}, `--fleet "a/b/c": want NAMESPACE/NAME`},
		{[]string{"--fleet=a/b", gate}, "--store: consumers share the control plane's PostgreSQL database"},
		{[]string{"--fleet=a/b", "--store=sqlite:/x.db", gate}, "--store: consumers share the control plane's PostgreSQL database"},
		{[]string{"--fleet=a/b", store}, "--gateway-address is missing"},
		{[]string{"--fleet=a/b", store, gate, "--gateway-cert=/x"}, "--gateway-cert and --gateway-key belong together"},
		{[]string{"--fleet=a/b", store, gate, "--gateway-listen=:7443"}, "names no address that others could reach, and $POD_IP is empty"},
		// What the Deployment's pods are started with, made after the control plane's.
		{[]string{"--fleet=a/b", "--kubernetes", "--namespace=a", "--drain-timeout=5m", store, gate, "--gateway-listen=127.0.0.1:7443", "--data=" + t.TempDir()}, "the API's token is missing"},
	} {
		t.Setenv("POD_IP", "")
		t.Setenv("MUSTER_TOKEN", "")
		cmd := newConsumeCommand()
		cmd.SetArgs(c.args)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
}

func TestConsumerAddress(t *testing.T) {
	for _, c := range []struct{ listen, ip, want string }{
		{":7443", "10.0.0.7", "10.0.0.7:7443"},
		{"0.0.0.0:7443", "fd00::7", "[fd00::7]:7443"},
		{"127.0.0.1:9000", "10.0.0.7", "127.0.0.1:9000"},
		{":7443", "", ""},
		{"nonsense", "10.0.0.7", ""},
	} {
		var o consumeOptions
		o.gateway.listen = c.listen
		if got, err := o.address(c.ip); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s with %q: %q, %v", c.listen, c.ip, got, err)
		}
	}
}

func TestConsumerNamesDiffer(t *testing.T) {
	t.Setenv("POD_NAME", "agents-consumers-0")
	a, b := consumerName(), consumerName()
	if a == b || !strings.HasPrefix(a, "agents-consumers-0-") {
		t.Errorf("%s, %s", a, b)
	}
}

// TestOwners: a runner is sent to the live owner of its sandbox, and nowhere
// where that is this process, or nobody.
func TestOwners(t *testing.T) {
	ctx := t.Context()
	now := time.Now()
	store, other := memory.New(memory.Options{}), memory.New(memory.Options{})
	var o owners
	if _, ok := o.elsewhere(ctx, fleet.NewSandboxID(now)); ok {
		t.Error("somebody owns what is in no store")
	}
	key := operator.Key{Namespace: "team", Name: "agents"}
	o.set(operator.Key{Namespace: "team", Name: "other"}, other)
	o.set(key, store)
	box := func(owner string, state fleet.SandboxState) fleet.SandboxID {
		id := fleet.NewSandboxID(now)
		if err := store.PutSandbox(ctx, fleet.Sandbox{Spec: fleet.SandboxSpec{ID: id}, State: state, Owner: owner}); err != nil {
			t.Fatal(err)
		}
		return id
	}
	for name, address := range map[string]string{"c1": "10.0.0.1:7443", "here": "10.0.0.2:7443"} {
		if err := store.PutConsumer(ctx, fleet.Consumer{Name: name, Address: address}); err != nil {
			t.Fatal(err)
		}
	}
	o.is("here", true)
	carried := box("c1", fleet.SandboxReady)
	for _, c := range []struct {
		id   fleet.SandboxID
		want string
	}{
		{carried, "10.0.0.1:7443"},
		{box("c1", fleet.SandboxStarting), "10.0.0.1:7443"},
		{box("c1", fleet.SandboxGone), ""},
		{box("dead", fleet.SandboxReady), ""},
		{box("here", fleet.SandboxReady), ""},
		{box("", fleet.SandboxReady), ""},
		{fleet.NewSandboxID(now), ""},
	} {
		if got, ok := o.elsewhere(ctx, c.id); got != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q %v, want %q", c.id, got, ok, c.want)
		}
	}
	o.unset(key, other) // another's
	if _, ok := o.elsewhere(ctx, carried); !ok {
		t.Error("the end of another store ended this one")
	}
	o.unset(key, store)
	if _, ok := o.elsewhere(ctx, carried); ok {
		t.Error("a fleet that is not here any more is asked")
	}
}

func TestKeysAreTheControlPlanes(t *testing.T) {
	store := memory.New(memory.Options{})
	if _, err := readKeys(t.Context(), store); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("before there is a control plane: %v", err)
	}
	made, err := loadKeys(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	read, err := readKeys(t.Context(), store)
	if err != nil || string(read.Session) != string(made.Session) || string(read.Authority) != string(made.Authority) {
		t.Errorf("%v", err)
	}
}

func TestConsumersNeedASharedStore(t *testing.T) {
	f := operator.Fleet{Spec: &v1alpha1.Fleet{Spec: v1alpha1.FleetSpec{Consumers: &v1alpha1.Consumers{Replicas: 2}}}}
	k := &cluster{}
	k.c.store = storeChoice{file: "/x.db"}
	if err := k.canCarry(f); err == nil || !strings.Contains(err.Error(), "spec.consumers: need a store that several processes share") || !strings.Contains(err.Error(), "--store postgres://") {
		t.Errorf("%v", err)
	}
	k.c.store = storeChoice{dsn: "postgres://h/d"}
	if err := k.canCarry(f); err != nil {
		t.Error(err)
	}
}

func TestWhatTakesANewStartOfAConsumer(t *testing.T) {
	of := func(change func(*v1alpha1.FleetSpec)) *v1alpha1.FleetSpec {
		s := &v1alpha1.FleetSpec{Nodes: v1alpha1.Nodes{Kubernetes: &v1alpha1.KubernetesNodes{}}, Consumers: &v1alpha1.Consumers{Replicas: 2}}
		change(s)
		return s
	}
	plain := of(func(*v1alpha1.FleetSpec) {})
	for name, c := range map[string]struct {
		spec *v1alpha1.FleetSpec
		want bool
	}{
		"nothing":   {of(func(*v1alpha1.FleetSpec) {}), false},
		"templates": {of(func(s *v1alpha1.FleetSpec) { s.Templates = []v1alpha1.Template{{Name: "a"}} }), false},
		"number":    {of(func(s *v1alpha1.FleetSpec) { s.Consumers.Replicas = 5 }), false},
		"nodes":     {of(func(s *v1alpha1.FleetSpec) { s.Nodes.Max = 5 }), false},
		"pods":      {of(func(s *v1alpha1.FleetSpec) { s.Nodes.Kubernetes.PriorityClass = "x" }), true},
		"secrets":   {of(func(s *v1alpha1.FleetSpec) { s.Secrets.Kubernetes = "x" }), true},
		"tenants":   {of(func(s *v1alpha1.FleetSpec) { s.Tenants = []v1alpha1.Tenant{{Name: "a"}} }), true},
	} {
		if got := carriesOtherwise(plain, c.spec); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestCarrierSaysWhomToAsk(t *testing.T) {
	if _, err := (carrier{}).View(context.Background()); !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "ask the control plane") {
		t.Error(err)
	}
}
