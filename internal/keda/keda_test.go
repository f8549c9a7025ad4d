package keda

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"muster.dev/muster/internal/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plan is what the service is asked about.
type plan struct {
	mu sync.Mutex
	t  fleet.Targets
}

func (p *plan) set(t fleet.Targets) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.At = time.Now()
	p.t = t
}

func (p *plan) get() fleet.Targets {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.t
}

func pools(n ...int) []fleet.PoolTargets {
	var out []fleet.PoolTargets
	for i, d := range n {
		out = append(out, fleet.PoolTargets{Pool: fleet.PoolKey([]string{"default", "big~1"}[i]), Desired: d})
	}
	return out
}

// serve starts a service and connects KEDA's own client to it.
func serve(t *testing.T, c Config, creds credentials.TransportCredentials) pb.ExternalScalerClient {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.Every = 5 * time.Millisecond
	s := New(c)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return pb.NewExternalScalerClient(conn)
}

func ref(kv ...string) *pb.ScaledObjectRef {
	m := map[string]string{"scalerAddress": "muster:7434"} // KEDA sends its own keys, too
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return &pb.ScaledObjectRef{Name: "workers", Namespace: "agents", ScalerMetadata: m}
}

// hpa is what the autoscaler makes of a metric: see "Algorithm details" of the
// HorizontalPodAutoscaler, and for AverageValue the plain division.
func hpa(shape string, value, target float64, ready int) int {
	if shape == shapeValue {
		return int(math.Ceil(value / target * float64(max(1, ready))))
	}
	return int(math.Ceil(value / target))
}

func TestMetricsDoNotCompound(t *testing.T) {
	p := &plan{}
	c := serve(t, Config{Targets: p.get}, insecure.NewCredentials())
	for _, shape := range []string{shapeAverage, shapeValue} {
		for _, target := range []string{"1", "4", "0.5"} {
			want, per := 10, map[string]float64{"1": 1, "4": 4, "0.5": 0.5}[target]
			replicas := 1
			for range 5 { // the autoscaler asks every 15 s, and nothing has changed but its own doing
				p.set(fleet.Targets{Pools: pools(7, 3), Nodes: 2, Workers: replicas})
				r := ref(keyShape, shape, keyTarget, target)
				spec, err := c.GetMetricSpec(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				m := spec.MetricSpecs[0]
				got, err := c.GetMetrics(t.Context(), &pb.GetMetricsRequest{ScaledObjectRef: r, MetricName: m.MetricName})
				if err != nil {
					t.Fatal(err)
				}
				v := got.MetricValues[0]
				replicas = hpa(shape, v.MetricValueFloat, m.TargetSizeFloat, replicas)
				exact := int(math.Ceil(float64(want) / per))
				if replicas != exact {
					t.Fatalf("%s, target %s: %d replicas, want %d", shape, target, replicas, exact)
				}
			}
		}
	}
}

func TestWhatIsAsked(t *testing.T) {
	p := &plan{}
	c := serve(t, Config{Targets: p.get}, insecure.NewCredentials())
	get := func(kv ...string) (float64, error) {
		r, err := c.GetMetrics(t.Context(), &pb.GetMetricsRequest{ScaledObjectRef: ref(kv...)})
		if err != nil {
			return 0, err
		}
		return r.MetricValues[0].MetricValueFloat, nil
	}
	if _, err := get(); status.Code(err) != codes.Unavailable {
		t.Errorf("before the first decision: %v, want Unavailable", err)
	}
	if _, err := c.IsActive(t.Context(), ref()); status.Code(err) != codes.Unavailable {
		t.Errorf("before the first decision: %v, want Unavailable", err)
	}
	p.set(fleet.Targets{Pools: pools(7, 3), Nodes: 2, Workers: -1, Signals: "redis: connection refused"})
	for want, kv := range map[float64][]string{10: nil, 3: {keyPool, "big~1"}, 7: {keyPool, "default"}, 2: {keyMetric, metricNodes}} {
		if v, err := get(kv...); err != nil || v != want {
			t.Errorf("%v: %v, %v, want %v", kv, v, err, want)
		}
	}
	for _, tt := range []struct {
		code codes.Code
		kv   []string
	}{
		{codes.NotFound, []string{keyPool, "none"}},
		{codes.InvalidArgument, []string{keyTarget, "0"}},
		{codes.InvalidArgument, []string{keyTarget, "NaN"}},
		{codes.InvalidArgument, []string{keyMetric, "pods"}},
		{codes.InvalidArgument, []string{"listLength", "5"}},
		{codes.InvalidArgument, []string{keyMetric, metricNodes, keyPool, "default"}},
		{codes.FailedPrecondition, []string{keyShape, shapeValue}}, // nobody counts the workers
	} {
		if _, err := get(tt.kv...); status.Code(err) != tt.code {
			t.Errorf("%v: %v, want %s", tt.kv, err, tt.code)
		}
	}
	if _, err := c.GetMetrics(t.Context(), &pb.GetMetricsRequest{ScaledObjectRef: ref(), MetricName: "other"}); status.Code(err) != codes.NotFound {
		t.Errorf("another metric: %v", err)
	}
	spec, err := c.GetMetricSpec(t.Context(), ref(keyPool, "big~1"))
	if err != nil || spec.MetricSpecs[0].MetricName != "muster-sandboxes-big-1" {
		t.Errorf("spec %v, %v", spec, err)
	}
}

func TestStreams(t *testing.T) {
	p := &plan{}
	c := serve(t, Config{Targets: p.get}, insecure.NewCredentials())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	active, err := c.StreamIsActive(ctx, ref())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 5, 0, 1} {
		p.set(fleet.Targets{Pools: pools(n)})
		r, err := active.Recv()
		if err != nil || r.Result != (n > 0) {
			t.Fatalf("with %d wanted: %v, %v", n, r, err)
		}
	}
	spec, err := c.StreamMetricSpec(ctx, ref(keyTarget, "4"))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := spec.Recv(); err != nil || r.MetricSpecs[0].TargetSizeFloat != 4 || r.MetricSpecs[0].TargetSize != 4 {
		t.Errorf("streamed %v, %v", r, err)
	}
	bad, err := c.StreamIsActive(ctx, ref(keyTarget, "-1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bad.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("bad metadata: %v", err)
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "muster"}, DNSNames: []string{"muster.agents"},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "muster"}}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	p := &plan{}
	p.set(fleet.Targets{Pools: pools(4)})
	server := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
	client := &tls.Config{RootCAs: pool, ServerName: "muster.agents", Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	c := serve(t, Config{Targets: p.get, TLS: server}, credentials.NewTLS(client))
	if r, err := c.IsActive(t.Context(), ref()); err != nil || !r.Result {
		t.Errorf("with a certificate: %v, %v", r, err)
	}
	anonymous := client.Clone()
	anonymous.Certificates = nil
	c = serve(t, Config{Targets: p.get, TLS: server}, credentials.NewTLS(anonymous))
	if _, err := c.IsActive(t.Context(), ref()); status.Code(err) != codes.Unavailable {
		t.Errorf("without a certificate: %v", err)
	}
}
