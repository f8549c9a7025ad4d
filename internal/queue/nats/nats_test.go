package nats

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a server with a producer's connection.
type rig struct {
	*servers.NATSServer
	nc *sdk.Conn
	js jetstream.JetStream
}

func newRig(t testing.TB, more string, o ...sdk.Option) *rig {
	t.Helper()
	r := &rig{NATSServer: servers.NATS(t, more)}
	r.producer(t, o...)
	return r
}

func (r *rig) producer(t testing.TB, o ...sdk.Option) {
	t.Helper()
	o = append(o, sdk.MaxReconnects(-1), sdk.ReconnectWait(20*time.Millisecond), sdk.ReconnectJitter(0, 0))
	var err error
	if r.nc, err = sdk.Connect(r.URL("nats"), o...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.nc.Close)
	if r.js, err = jetstream.New(r.nc); err != nil {
		t.Fatal(err)
	}
}

var streams struct {
	sync.Mutex
	n int
}

// stream makes a stream of a test's own.
func (r *rig) stream(t testing.TB, c jetstream.StreamConfig) string {
	t.Helper()
	streams.Lock()
	streams.n++
	c.Name = fmt.Sprint("TASKS", streams.n)
	streams.Unlock()
	c.Subjects = []string{strings.ToLower(c.Name) + ".>"}
	if _, err := r.js.CreateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = r.js.DeleteStream(ctx, c.Name)
		_ = r.js.DeleteStream(ctx, c.Name+"_DEAD")
	})
	return c.Name
}

func (r *rig) config(stream string) Config {
	return Config{Servers: []string{r.URL("nats")}, Stream: stream, AckWait: 3 * time.Second}
}

func (r *rig) open(t testing.TB, c Config) *Source {
	t.Helper()
	s, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (r *rig) publish(ctx context.Context, stream string, sent ...queuetest.Sent) error {
	for _, x := range sent {
		m := sdk.NewMsg(strings.ToLower(stream) + ".run")
		m.Data = x.Body
		for k, v := range x.Headers {
			m.Header[k] = []string{v}
		}
		if _, err := r.js.PublishMsg(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) dead(ctx context.Context, stream string) (sent []queuetest.Sent, why []string, _ error) {
	d, err := r.js.Stream(ctx, stream+"_DEAD")
	if err != nil {
		return nil, nil, err
	}
	for seq := d.CachedInfo().State.FirstSeq; seq <= d.CachedInfo().State.LastSeq; seq++ {
		m, err := d.GetMsg(ctx, seq)
		if err != nil {
			return nil, nil, err
		}
		s := queuetest.Sent{Body: m.Data, Headers: map[string]string{}}
		for k := range m.Header {
			s.Headers[k] = m.Header[k][0]
		}
		sent, why = append(sent, s), append(why, s.Headers[HeaderReason])
	}
	return sent, why, nil
}

// fill publishes without being told of each message, then waits for the sum.
func (r *rig) fill(ctx context.Context, stream string, n int) error {
	subject, body := strings.ToLower(stream)+".run", []byte("{}")
	for range n {
		if err := r.nc.Publish(subject, body); err != nil {
			return err
		}
	}
	for {
		s, err := r.js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		if s.CachedInfo().State.Msgs >= uint64(n) {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// kill ends a Source as the end of its process would.
func (s *Source) kill() {
	s.mu.Lock()
	ses := s.ses
	s.mu.Unlock()
	s.end()
	if ses != nil {
		ses.nc.Close()
	}
	s.wg.Wait()
}

func (r *rig) outside(stream string) queuetest.Outside {
	return queuetest.Outside{
		Open: func(t *testing.T) fleet.Source { return r.open(t, r.config(stream)) },
		Publish: func(ctx context.Context, m ...queuetest.Sent) error {
			return r.publish(ctx, stream, m...)
		},
		Dead: func(ctx context.Context) ([]queuetest.Sent, []string, error) {
			return r.dead(ctx, stream)
		},
		Crash: func(s fleet.Source) { s.(*Source).kill() },
		Restart: func(down time.Duration) {
			r.Stop()
			time.Sleep(down)
			r.Start()
		},
		Fill:    func(ctx context.Context, n int) error { return r.fill(ctx, stream, n) },
		Headers: true,
	}
}

func TestWorkQueue(t *testing.T) {
	t.Parallel() // with a server of its own
	r := newRig(t, "")
	queuetest.RunSource(t, func(t *testing.T) queuetest.Outside {
		return r.outside(r.stream(t, jetstream.StreamConfig{Retention: jetstream.WorkQueuePolicy}))
	})
}

func TestLimits(t *testing.T) {
	t.Parallel() // as above
	r := newRig(t, "")
	queuetest.RunSource(t, func(t *testing.T) queuetest.Outside {
		o := r.outside(r.stream(t, jetstream.StreamConfig{}))
		o.Fill = nil
		return o
	})
}
