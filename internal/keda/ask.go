package keda

import (
	"fmt"
	"math"
	"strconv"

	"muster.dev/muster/internal/fleet"
)

// The values of the trigger's metadata.
const (
	keyMetric = "metric"
	keyPool   = "pool"
	keyTarget = "target"
	keyShape  = "shape"

	metricSandboxes = "sandboxes"
	metricNodes     = "nodes"
	shapeAverage    = "average"
	shapeValue      = "value"
)

// ask is what one trigger wants to know.
type ask struct {
	metric string
	pool   fleet.PoolKey // empty: all
	target float64       // sandboxes (or nodes) that one replica stands for
	value  bool          // metricType: Value
}

// parse reads the metadata of a trigger. Keys that KEDA itself reads are passed
// over; others are mistakes.
func parse(meta map[string]string) (ask, error) {
	a := ask{metric: metricSandboxes, target: 1}
	for k, v := range meta {
		switch k {
		case keyMetric:
			if v != metricSandboxes && v != metricNodes {
				return a, wrong(k, v, "sandboxes or nodes")
			}
			a.metric = v
		case keyPool:
			a.pool = fleet.PoolKey(v)
		case keyTarget:
			t, err := strconv.ParseFloat(v, 64)
			if err != nil || !(t > 0) || math.IsInf(t, 0) {
				return a, wrong(k, v, "how many sandboxes one replica stands for, such as 1 or 4")
			}
			a.target = t
		case keyShape:
			if v != shapeAverage && v != shapeValue {
				return a, wrong(k, v, "average (metricType: AverageValue) or value (metricType: Value)")
			}
			a.value = v == shapeValue
		case "scalerAddress", "tlsCertFile", "caCert", "tlsClientCert", "tlsClientKey", "unsafeSsl", "enableTLS":
		default:
			return a, wrong(k, v, "metric, pool, target or shape")
		}
	}
	if a.metric == metricNodes && a.pool != "" {
		return a, wrong(keyPool, string(a.pool), "no pool: nodes carry sandboxes of all pools")
	}
	return a, nil
}

func wrong(key, value, right string) error {
	return &fleet.FieldError{Field: "metadata." + key, Wrong: fmt.Sprintf("%q is not known", value), Right: right}
}

// name is the metric's name: lower-case letters, digits and "-" only, as names
// of metrics in Kubernetes are.
func (a ask) name() string {
	n := "muster-" + a.metric
	if a.pool == "" {
		return n
	}
	out := []byte(n + "-")
	for i := range len(a.pool) {
		switch c := a.pool[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-':
			out = append(out, c)
		default:
			out = append(out, '-')
		}
	}
	return string(out)
}

// wanted is how many there should be of what is asked for.
func (a ask) wanted(t *fleet.Targets) (int, error) {
	if a.metric == metricNodes {
		return t.Nodes, nil
	}
	n, found := 0, a.pool == ""
	for _, p := range t.Pools {
		if a.pool == "" || p.Pool == a.pool {
			n, found = n+p.Desired, true
		}
	}
	if !found {
		return 0, fmt.Errorf("metadata.pool: there is no pool %q: %w", a.pool, fleet.ErrNotFound)
	}
	return n, nil
}

// reading is the metric's value.
func (a ask) reading(t *fleet.Targets) (float64, error) {
	n, err := a.wanted(t)
	if err != nil || !a.value {
		return float64(n), err
	}
	if t.Workers < 0 {
		return 0, fmt.Errorf("metricType Value multiplies the replicas that are ready, and how many there are is not known; set spec.workers.actual, or use metricType AverageValue: %w", fleet.ErrUnavailable)
	}
	// With no replica ready the autoscaler takes metric/target itself as count.
	return float64(n) / float64(max(1, t.Workers)), nil
}

// active tells whether there should be any at all.
func (a ask) active(t *fleet.Targets) (bool, error) {
	n, err := a.wanted(t)
	return n > 0, err
}
