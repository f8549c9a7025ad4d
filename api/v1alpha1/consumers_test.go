package v1alpha1

import (
	"strings"
	"testing"
)

func TestConsumers(t *testing.T) {
	for _, c := range []struct{ name, spec, want string }{
		{"fixed", "consumers: {replicas: 3}", ""},
		{"scaled", "consumers: {minReplicas: 2, maxReplicas: 9, sandboxesPerReplica: 100}", ""},
		{"scaled without a minimum", "consumers: {maxReplicas: 9}", ""},
		{"warm pods", "consumers: {replicas: 2}\nnodes: {kubernetes: {warm: pods}}", ""},
		{"empty", "consumers: {}", "spec.consumers.replicas: is missing; want replicas: 2, or minReplicas: 2 and maxReplicas"},
		{"none", "consumers: {replicas: 0, maxReplicas: -1}", "spec.consumers.maxReplicas: -1 is negative; want a whole number from 1 to 1000"},
		{"both", "consumers: {replicas: 2, maxReplicas: 4}", "spec.consumers.replicas: is given together with minReplicas or maxReplicas"},
		{"no maximum", "consumers: {minReplicas: 2}", "spec.consumers.maxReplicas: is missing"},
		{"swapped", "consumers: {minReplicas: 4, maxReplicas: 2}", "spec.consumers.minReplicas: 4 is more than maxReplicas, 2; want at most maxReplicas"},
		{"many", "consumers: {replicas: 1001}", "spec.consumers.replicas: 1001 is too large"},
		{"per replica", "consumers: {replicas: 2, sandboxesPerReplica: 20000}", "spec.consumers.sandboxesPerReplica: 20000 is too large"},
		{"agent-sandbox", "consumers: {replicas: 2}\nnodes: {kubernetes: {warm: agent-sandbox}}",
			"spec.nodes.kubernetes.warm: is agent-sandbox, whose pools one process sizes, and there are consumers; want pods, or no spec.consumers"},
		{"outside queue", "consumers: {replicas: 2}\nqueue: {type: redis, redis: {addresses: ['r:6379'], list: {name: q}}}",
			"spec.queue.type: is redis, whose messages one process holds, and there are consumers; want embedded, or no spec.consumers"},
		{"mode", "consumers: {replicas: 2}\nmode: scale\nqueue: {type: redis, redis: {addresses: ['r:6379'], list: {name: q}}}",
			"spec.consumers: has no meaning with mode: scale"},
	} {
		f, err := inCluster(t, templateInCluster+c.spec)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		case err == nil:
			if err := f.Validate(); err != nil {
				t.Errorf("%s: valid until it was defaulted: %v", c.name, err)
			}
		}
	}
}

func TestConsumersOnOneMachine(t *testing.T) {
	doc := "apiVersion: muster.dev/v1alpha1\nkind: Fleet\nmetadata: {name: f}\nspec: {templates: [{name: a}], consumers: {replicas: 2}}"
	if _, err := ParseFleet([]byte(doc)); err == nil || !strings.Contains(err.Error(), "spec.consumers: are pods of a cluster, and spec.nodes.provider is host; want no spec.consumers, or spec.nodes.provider: kubernetes") {
		t.Errorf("%v", err)
	}
	f, err := inCluster(t, templateInCluster+"consumers: {replicas: 2}")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.CheckLocal(); err == nil || !strings.Contains(err.Error(), "spec.consumers: are pods of a cluster, and this is one machine") {
		t.Errorf("%v", err)
	}
}

func TestConsumerBounds(t *testing.T) {
	for _, c := range []struct {
		in          Consumers
		least, most int
	}{
		{Consumers{Replicas: 3}, 3, 3}, {Consumers{MaxReplicas: 9}, 2, 9}, {Consumers{MaxReplicas: 1}, 1, 1},
		{Consumers{MinReplicas: 4, MaxReplicas: 9}, 4, 9},
	} {
		if least, most := c.in.Bounds(); least != c.least || most != c.most {
			t.Errorf("%+v: %d to %d, want %d to %d", c.in, least, most, c.least, c.most)
		}
	}
}

// Whether there are consumers takes a new start; how many does not.
func TestConsumersAndRestarts(t *testing.T) {
	of := func(spec string) *Fleet {
		f, err := inCluster(t, templateInCluster+spec)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	none, two, more := of(""), of("consumers: {replicas: 2}"), of("consumers: {maxReplicas: 9}")
	if !none.MustBeRestarted(two) || !two.MustBeRestarted(none) {
		t.Error("consumers come or go without a new start")
	}
	if two.MustBeRestarted(more) {
		t.Error("another number of consumers takes a new start")
	}
}
