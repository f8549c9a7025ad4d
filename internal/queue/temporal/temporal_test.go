package temporal

import (
	"context"
	"encoding/pem"
	"errors"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "0penSesame"

// frontend is a fake of Temporal's frontend service.
type frontend struct {
	workflowservice.UnimplementedWorkflowServiceServer
	address, ca string

	mu    sync.Mutex
	stats map[enums.TaskQueueType]*taskqueue.TaskQueueStats
	err   error
}

func start(t *testing.T, tls bool) *frontend {
	t.Helper()
	f := &frontend{stats: map[enums.TaskQueueType]*taskqueue.TaskQueueStats{}}
	var options []grpc.ServerOption
	if tls {
		web := httptest.NewTLSServer(nil) // for its certificate
		t.Cleanup(web.Close)
		f.ca = filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(f.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		options = append(options, grpc.Creds(credentials.NewServerTLSFromCert(&web.TLS.Certificates[0])))
	}
	s := grpc.NewServer(options...)
	workflowservice.RegisterWorkflowServiceServer(s, f)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = l.Addr().String()
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *frontend) DescribeTaskQueue(ctx context.Context, r *workflowservice.DescribeTaskQueueRequest) (*workflowservice.DescribeTaskQueueResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	md, _ := metadata.FromIncomingContext(ctx)
	if f.ca != "" && (strings.Join(md["authorization"], "") != "Bearer "+secret || strings.Join(md["temporal-namespace"], "") != r.GetNamespace()) {
		return nil, status.Errorf(codes.Unauthenticated, "no such key: %v", md["authorization"]) // as careless services do
	}
	if f.err != nil {
		return nil, f.err
	}
	if r.GetNamespace() != "default" || r.GetTaskQueue().GetName() != "work" || !r.GetReportStats() {
		return nil, status.Error(codes.NotFound, "Namespace "+r.GetNamespace()+" is not found.")
	}
	out := &workflowservice.DescribeTaskQueueResponse{}
	if s, ok := f.stats[r.GetTaskQueueType()]; ok {
		out.Stats = proto.Clone(s).(*taskqueue.TaskQueueStats)
	}
	return out, nil
}

func (f *frontend) set(kind enums.TaskQueueType, n int64, age time.Duration, rate float32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats[kind] = &taskqueue.TaskQueueStats{ApproximateBacklogCount: n, ApproximateBacklogAge: durationpb.New(age), TasksAddRate: rate}
}

func (f *frontend) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func open(t *testing.T, c Config) *Signal {
	t.Helper()
	s, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	queuetest.RunSignal(t, func(t *testing.T) queuetest.Measured {
		f := start(t, true)
		gate := queuetest.NewGate(t, f.address)
		set := func(n int64) {
			f.set(enums.TASK_QUEUE_TYPE_WORKFLOW, n, time.Duration(n)*time.Second, 0)
			f.set(enums.TASK_QUEUE_TYPE_ACTIVITY, 0, 0, 0)
		}
		set(0)
		return queuetest.Measured{
			Gate: gate, Secret: secret, Set: set,
			Open: func(t *testing.T, credential func(context.Context) (string, error)) fleet.Signal {
				s, err := New(t.Context(), Config{
					Address: gate.Address, TaskQueue: "work", APIKey: credential, TLS: connect.TLS{Enabled: true, CAFile: f.ca},
				})
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
		}
	})
}

func TestKinds(t *testing.T) {
	f := start(t, false)
	f.set(enums.TASK_QUEUE_TYPE_WORKFLOW, 3, 20*time.Second, 1)
	f.set(enums.TASK_QUEUE_TYPE_ACTIVITY, 4, 90*time.Second, 1)
	f.set(enums.TASK_QUEUE_TYPE_NEXUS, 5, 0, 0)
	for _, tt := range []struct {
		kinds   []string
		backlog int64
		age     time.Duration
	}{
		{nil, 7, 90 * time.Second},
		{[]string{"workflow"}, 3, 20 * time.Second},
		{[]string{"nexus"}, 5, 0},
		{[]string{"activity", "nexus", "workflow"}, 12, 90 * time.Second},
	} {
		st, err := open(t, Config{Address: f.address, TaskQueue: "work", Kinds: tt.kinds}).Stats(t.Context())
		var age time.Duration
		if !st.Oldest.IsZero() {
			age = st.AsOf.Sub(st.Oldest)
		}
		if err != nil || st.Backlog != tt.backlog || age != tt.age {
			t.Errorf("%v: %+v (%s), %v", tt.kinds, st, age, err)
		}
	}
}

func TestErrors(t *testing.T) {
	f := start(t, false)
	f.set(enums.TASK_QUEUE_TYPE_WORKFLOW, 1, 0, 0)
	c := Config{Address: f.address, TaskQueue: "work", Kinds: []string{"workflow"}}
	s := open(t, c)
	for _, tt := range []struct {
		err  error
		want error
		text string
	}{
		{status.Error(codes.PermissionDenied, "Request unauthorized."), fleet.ErrDenied, "Request unauthorized."},
		{status.Error(codes.NotFound, "gone"), fleet.ErrNotFound, "gone"},
		{status.Error(codes.InvalidArgument, "bad name"), fleet.ErrInvalid, "bad name"},
		{status.Error(codes.ResourceExhausted, "rate limit"), fleet.ErrUnavailable, "rate limit"},
		{status.Error(codes.Unimplemented, "old"), fleet.ErrUnavailable, "old"},
		{nil, nil, ""},
	} {
		f.fail(tt.err)
		if _, err := s.Stats(t.Context()); !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%v: %v, want %v", tt.err, err, tt.want)
		}
	}
	f.set(enums.TASK_QUEUE_TYPE_WORKFLOW, -1, 0, 0)
	if _, err := s.Stats(t.Context()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("a negative backlog: %v", err)
	}
	c.Kinds = []string{"nexus"}
	if _, err := open(t, c).Stats(t.Context()); !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "no statistics") {
		t.Errorf("an answer without statistics: %v", err)
	}
	c.Namespace = "elsewhere"
	if _, err := open(t, c).Stats(t.Context()); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("another namespace: %v", err)
	}
	c.TLS = connect.TLS{Enabled: true}
	if _, err := open(t, c).Stats(t.Context()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("TLS to a server without: %v", err)
	}
	c.APIKey = connect.Env("MUSTER_TEST_NONE")
	if _, err := open(t, c).Stats(t.Context()); !errors.Is(err, fleet.ErrNotFound) || !strings.Contains(err.Error(), "MUSTER_TEST_NONE") {
		t.Errorf("a key that is not there: %v", err)
	}
}

func TestCounter(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var c counter
	for i, tt := range []struct {
		after time.Duration
		rate  float64
		want  int64
	}{
		{0, 5, 0}, {time.Second, 5, 5}, {500 * time.Millisecond, 1, 5}, {500 * time.Millisecond, 1, 6},
		{-time.Second, 100, 6}, {time.Second, 0, 6}, {time.Hour, 1, 66},
	} {
		now = now.Add(tt.after)
		if got := c.count(now, tt.rate); got != tt.want {
			t.Errorf("%d: %d, want %d", i, got, tt.want)
		}
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]Config{
		"address":   {Address: "https://u:hunter2@h:1", TaskQueue: "q"},
		"taskQueue": {Address: "h:1"},
		"tls":       {Address: "h:1", TaskQueue: "q", APIKey: connect.Fixed("x")},
		"timeout":   {Address: "h:1", TaskQueue: "q", Timeout: time.Minute},
		"kinds[0]":  {Address: "h:1", TaskQueue: "q", Kinds: []string{"tasks"}},
		"kinds[1]":  {Address: "h:1", TaskQueue: "q", Kinds: []string{"nexus", "nexus"}},
	} {
		_, err := New(t.Context(), c)
		if !errors.Is(err, fleet.ErrInvalid) || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func FuzzSum(f *testing.F) {
	f.Add(int64(3), int64(20), int32(5), float32(1))
	f.Fuzz(func(t *testing.T, n, seconds int64, nanos int32, rate float32) {
		p := &taskqueue.TaskQueueStats{ApproximateBacklogCount: n, ApproximateBacklogAge: &durationpb.Duration{Seconds: seconds, Nanos: nanos}, TasksAddRate: rate}
		now := time.Unix(1_800_000_000, 0)
		st, r, err := sum([]*taskqueue.TaskQueueStats{p, p, nil}, now)
		if err == nil && (st.Backlog < 0 || st.Oldest.After(now) || r < 0) {
			t.Errorf("%+v, %g", st, r)
		}
	})
}
