package temporal

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// Signal implements fleet.Signal.
type Signal struct {
	conf   Config
	kinds  []enums.TaskQueueType
	conn   *grpc.ClientConn
	client workflowservice.WorkflowServiceClient
	secret connect.Kept
	ctx    context.Context // ends with Close
	end    context.CancelFunc

	mu    sync.Mutex
	over  bool
	calls sync.WaitGroup
	added counter
}

// New checks the configuration and returns a Signal. It connects with the first
// reading.
func New(_ context.Context, c Config) (*Signal, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.Namespace == "" {
		c.Namespace = "default"
	}
	if len(c.Kinds) == 0 {
		c.Kinds = []string{"workflow", "activity"}
	}
	if c.Timeout == 0 {
		c.Timeout = 4 * time.Second
	}
	conn, err := dial(c)
	if err != nil {
		return nil, fmt.Errorf("temporal: %w: %w", fleet.ErrInvalid, err)
	}
	s := &Signal{conf: c, conn: conn, client: workflowservice.NewWorkflowServiceClient(conn)}
	s.secret.From = c.APIKey
	s.ctx, s.end = context.WithCancel(context.Background())
	for _, k := range c.Kinds {
		s.kinds = append(s.kinds, kinds[k])
	}
	return s, nil
}

// Traits implements fleet.Signal.
func (s *Signal) Traits() fleet.SignalTraits { return fleet.SignalTraits{Oldest: true, Arrived: true} }

// Wake implements fleet.Signal: Temporal pushes to its workers only.
func (s *Signal) Wake() <-chan struct{} { return nil }

// Close implements fleet.Signal.
func (s *Signal) Close() error {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.end()
	s.calls.Wait()
	if err := s.conn.Close(); err != nil && !closing(err) {
		return fmt.Errorf("temporal: close: %w", err)
	}
	return nil
}

// Stats implements fleet.Signal.
func (s *Signal) Stats(ctx context.Context) (fleet.SignalStats, error) {
	s.mu.Lock()
	over := s.over
	if !over {
		s.calls.Add(1)
	}
	s.mu.Unlock()
	if over {
		return fleet.SignalStats{}, fmt.Errorf("temporal: the connection is closed: %w", fleet.ErrUnavailable)
	}
	defer s.calls.Done()
	st, err := s.read(ctx)
	if err != nil {
		return fleet.SignalStats{}, fmt.Errorf("temporal: %w", err)
	}
	return st, nil
}

func (s *Signal) read(ctx context.Context) (fleet.SignalStats, error) {
	within, cancel := context.WithTimeout(ctx, s.conf.Timeout)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	asked := time.Now()
	within, err := s.sign(within)
	if err != nil {
		return fleet.SignalStats{}, s.said(ctx, err)
	}
	parts, errs := make([]*taskqueue.TaskQueueStats, len(s.kinds)), make([]error, len(s.kinds))
	var wg sync.WaitGroup
	for i, kind := range s.kinds {
		wg.Go(func() { parts[i], errs[i] = s.describe(within, kind) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return fleet.SignalStats{}, fmt.Errorf("%s tasks of %s: %w", s.conf.Kinds[i], s.conf.TaskQueue, s.said(ctx, err))
		}
	}
	st, rate, err := sum(parts, asked)
	if err != nil {
		return fleet.SignalStats{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Arrived = s.added.count(asked, rate)
	return st, nil
}

// sign adds what tells the server who asks. The namespace in the headers is what
// Temporal Cloud finds the key's account by.
func (s *Signal) sign(ctx context.Context) (context.Context, error) {
	key, err := s.secret.Value(ctx)
	if err != nil || key == "" {
		return ctx, err
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key, "temporal-namespace", s.conf.Namespace), nil
}

func (s *Signal) describe(ctx context.Context, kind enums.TaskQueueType) (*taskqueue.TaskQueueStats, error) {
	a, err := s.client.DescribeTaskQueue(ctx, &workflowservice.DescribeTaskQueueRequest{
		Namespace: s.conf.Namespace, TaskQueue: &taskqueue.TaskQueue{Name: s.conf.TaskQueue, Kind: enums.TASK_QUEUE_KIND_NORMAL},
		TaskQueueType: kind, ReportStats: true,
	})
	if err != nil {
		return nil, err
	}
	if a.GetStats() == nil {
		return nil, errNoStats
	}
	return a.GetStats(), nil
}

// sum adds up the kinds; rate is in tasks per second.
func sum(parts []*taskqueue.TaskQueueStats, asked time.Time) (st fleet.SignalStats, rate float64, err error) {
	st.AsOf = asked
	for _, p := range parts {
		n, age, added := p.GetApproximateBacklogCount(), p.GetApproximateBacklogAge().AsDuration(), float64(p.GetTasksAddRate())
		if n < 0 || n > 1<<53 || age < 0 || !(added >= 0 && added < 1e9) { // NaN is neither
			return st, 0, fmt.Errorf("the answer has a backlog of %d, an age of %s, a rate of %g: %w", n, age, added, fleet.ErrUnavailable)
		}
		st.Backlog += n
		rate += added
		if at := asked.Add(-age); n > 0 && age > 0 && (st.Oldest.IsZero() || at.Before(st.Oldest)) {
			st.Oldest = at
		}
	}
	return st, rate, nil
}

// counter makes a count of a rate.
type counter struct {
	last  time.Time
	total float64
}

// gap bounds what one reading accounts for: the rate is that of the last 30 s.
const gap = time.Minute

func (c *counter) count(now time.Time, rate float64) int64 {
	if d := now.Sub(c.last); c.last.IsZero() {
		c.last = now
	} else if d > 0 {
		c.total += rate * min(d, gap).Seconds()
		c.last = now
	}
	return int64(c.total)
}
