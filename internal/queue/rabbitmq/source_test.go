package rabbitmq

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestConformance runs the suite on both kinds of queue, each on a broker of
// its own: most of its time is waiting, so the two run side by side.
func TestConformance(t *testing.T) {
	for name, mode := range map[string]mode{
		"classic queue and management API": {create: "classic", management: true},
		"quorum queue alone":               {create: "quorum"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servers.StartRabbitMQ(t, servers.RabbitMQSetup{})
			n := 0
			queuetest.RunSource(t, func(t *testing.T) queuetest.Outside {
				n++
				return mode.outside(t, s, fmt.Sprintf("suite %d/%s", n, mode.create))
			})
		})
	}
}

// mode is one way to use RabbitMQ.
type mode struct {
	create     string
	management bool
}

func (m mode) config(s *servers.RabbitMQ, queue string) Config {
	c := Config{
		Addresses: []string{s.Address}, Queue: queue, Create: m.create,
		Username: s.User, Password: connect.Fixed(s.Password), Name: "test",
	}
	if m.management {
		c.Management, c.Timestamps = s.Management, true
	}
	return c
}

func (m mode) outside(t *testing.T, s *servers.RabbitMQ, queue string) queuetest.Outside {
	p := producer{t: t, server: s, queue: queue}
	dials := func(t *testing.T) fleet.Source {
		q := open(t, m.config(s, queue))
		if m.management { // the counters of the API follow a moment later
			q.mgmt.age = 0
		}
		return q
	}
	first := dials(t)
	for { // declares the queue, to which the producer sends before anybody reads
		_, err := first.Stats(t.Context())
		if err == nil {
			break
		}
		if t.Context().Err() != nil || !isUnavailable(err) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.remove)
	o := queuetest.Outside{
		Open:    dials,
		Publish: p.publish,
		Dead:    p.dead,
		Crash:   crash,
		Restart: func(down time.Duration) {
			// The broker writes the names of quorum queues to disk within half a
			// second; one that is younger is lost with kill -9.
			time.Sleep(time.Second)
			s.Kill()
			time.Sleep(down)
			s.Start()
		},
		Forbidden: []string{s.Password},
		Headers:   true,
		Slow:      3,
	}
	if os.Getenv("MUSTER_SLOW_TESTS") != "" { // the broker takes a minute or more for a million
		o.Fill = p.fill
	}
	if m.management && (strings.HasSuffix(t.Name(), "lifecycle") || strings.HasSuffix(t.Name(), "oldest")) {
		o.Publish = func(ctx context.Context, sent ...queuetest.Sent) error { return p.counted(ctx, m, sent) }
	}
	return o
}

func open(t *testing.T, c Config) *Source {
	t.Helper()
	q, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// crash breaks the connections of a source before it can give anything back.
func crash(q fleet.Source) {
	s := q.(*Source)
	s.mu.Lock()
	sess := s.sess
	s.mu.Unlock()
	if sess != nil {
		_ = sess.raw.(*net.TCPConn).SetLinger(0)
		_ = sess.raw.Close()
	}
	_ = s.Close()
}

// producer sends to a queue as another program would.
type producer struct {
	t      testing.TB
	server *servers.RabbitMQ
	queue  string
	seq    int
}

func (p *producer) with(do func(*amqp.Channel) error) error {
	c, err := amqp.DialConfig("amqp://"+p.server.Address, amqp.Config{
		SASL: []amqp.Authentication{&amqp.PlainAuth{Username: p.server.User, Password: p.server.Password}}, Vhost: "/",
	})
	if err != nil {
		return err
	}
	defer c.Close()
	ch, err := c.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	return do(ch)
}

func (p *producer) publish(ctx context.Context, sent ...queuetest.Sent) error {
	return p.with(func(ch *amqp.Channel) error {
		for _, m := range sent {
			p.seq++
			h := amqp.Table{}
			for k, v := range m.Headers {
				h[k] = v
			}
			as := amqp.Publishing{Body: m.Body, Headers: h, DeliveryMode: amqp.Persistent, Timestamp: time.Now()}
			if p.seq%2 == 1 { // a name is the producer's to give
				as.MessageId = fmt.Sprint("message ", p.seq)
			}
			confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", p.queue, true, false, as)
			if err != nil {
				return err
			}
			if ok, err := confirm.WaitContext(ctx); err != nil || !ok {
				return errors.Join(err, errors.New("not confirmed"))
			}
		}
		return nil
	})
}

// counted publishes and waits until the management API has counted it.
func (p *producer) counted(ctx context.Context, m mode, sent []queuetest.Sent) error {
	q := open(p.t.(*testing.T), m.config(p.server, p.queue))
	defer q.Close()
	q.mgmt.age = 0
	before, err := q.statistics(ctx)
	if err != nil {
		return err
	}
	if err := p.publish(ctx, sent...); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if now, err := q.statistics(ctx); err == nil && now.arrived-before.arrived == int64(len(sent)) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return ctx.Err()
}

func (p *producer) dead(context.Context) (sent []queuetest.Sent, reasons []string, err error) {
	err = p.with(func(ch *amqp.Channel) error {
		for {
			d, ok, err := ch.Get(p.queue+".dead", true)
			if err != nil || !ok {
				return err
			}
			h := headers(d.Headers)
			sent, reasons = append(sent, queuetest.Sent{Body: d.Body, Headers: h}), append(reasons, h[headerReason])
		}
	})
	return sent, reasons, err
}

func (p *producer) remove() {
	err := p.with(func(ch *amqp.Channel) error {
		for _, q := range []string{p.queue, p.queue + ".dead"} {
			if _, err := ch.QueueDelete(q, false, false, false); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		p.t.Errorf("delete the queues: %v", err)
	}
}

// fill publishes frames that were put together once: the client library makes
// each anew, which takes longer than the broker does.
func (p *producer) fill(ctx context.Context, n int) error {
	const batch = 1000
	frames := bytes.Repeat(publishFrames(p.queue, "x"), batch)
	return p.raw(func(c net.Conn) error {
		for range n / batch {
			if err := ctx.Err(); err != nil {
				return err
			}
			if _, err := c.Write(frames); err != nil {
				return err
			}
		}
		return nil
	})
}

// raw lends the socket of a connection with channel 1 open, and returns once
// the broker has read all of it.
func (p *producer) raw(do func(net.Conn) error) error {
	c, err := net.Dial("tcp", p.server.Address)
	if err != nil {
		return err
	}
	conn, err := amqp.Open(c, amqp.Config{
		SASL:  []amqp.Authentication{&amqp.PlainAuth{Username: p.server.User, Password: p.server.Password}},
		Vhost: "/", Locale: "en_US", Heartbeat: 10 * time.Minute,
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := do(c); err != nil {
		return err
	}
	return ch.Qos(1, 0, false)
}

// publishFrames are the three frames of a basic.publish on channel 1 to the
// default exchange (AMQP 0-9-1 specification, 2.3.5 and 4.2).
func publishFrames(queue, body string) []byte {
	frame := func(kind byte, payload []byte) []byte {
		out := binary.BigEndian.AppendUint32([]byte{kind, 0, 1}, uint32(len(payload))) //nolint:gosec // short
		return append(append(out, payload...), 0xCE)
	}
	method := []byte{0, 60, 0, 40, 0, 0, 0, byte(len(queue))} // basic.publish, no exchange
	method = append(append(method, queue...), 0)
	header := binary.BigEndian.AppendUint64([]byte{0, 60, 0, 0}, uint64(len(body)))
	header = append(header, 0, 0) // no properties
	return append(append(frame(1, method), frame(2, header)...), frame(3, []byte(body))...)
}

func isUnavailable(err error) bool { return errors.Is(err, fleet.ErrUnavailable) }
