package nats

import (
	"errors"
	"strings"
	"testing"
	"time"

	sdk "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest"
)

func sent(body string) queuetest.Sent { return queuetest.Sent{Body: []byte(body)} }

func queueOf(t *testing.T) (*rig, Config) {
	t.Helper()
	t.Parallel()
	r := newRig(t, "")
	c := r.config(r.stream(t, jetstream.StreamConfig{Retention: jetstream.WorkQueuePolicy}))
	c.AckWait = time.Second
	return r, c
}

func (r *rig) send(t *testing.T, c Config, bodies ...string) {
	t.Helper()
	for _, b := range bodies {
		if err := r.publish(t.Context(), c.Stream, sent(b)); err != nil {
			t.Fatal(err)
		}
	}
}

func none(t *testing.T, s *Source, span time.Duration) {
	t.Helper()
	for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if m, err := s.Receive(t.Context(), 1, time.Minute); err != nil || len(m) > 0 {
			t.Fatalf("received %v, %v; want nothing", m, err)
		}
	}
}

// A lease lasts longer than the server would wait.
func TestLeaseBeyondAckWait(t *testing.T) {
	r, c := queueOf(t)
	s, other := r.open(t, c), r.open(t, c)
	defer s.Close()
	defer other.Close()
	r.send(t, c, "long")
	m := receive(t, s, 4*time.Second)
	none(t, other, 3*time.Second)
	if again := receive(t, other, time.Minute); again.Attempt < 2 || again.ID != m.ID {
		t.Errorf("after the lease: %+v", again)
	}
	wants(t, "ack", s.Ack(t.Context(), m), fleet.ErrFenced)
}

// The server is away for longer than it waits; the lease goes on.
func TestLeaseAcrossAnOutage(t *testing.T) {
	r, c := queueOf(t)
	s := r.open(t, c)
	defer s.Close()
	r.send(t, c, "long")
	m := receive(t, s, time.Minute)
	r.Kill()
	time.Sleep(2 * c.AckWait)
	r.Start()
	eventually(t, "the lease is extended", func() error {
		_, err := s.Extend(t.Context(), m, time.Minute)
		if errors.Is(err, fleet.ErrFenced) {
			t.Fatal(err)
		}
		return err
	})
	none(t, s, 2*c.AckWait)
	if err := s.Ack(t.Context(), m); err != nil {
		t.Errorf("ack: %v", err)
	}
	none(t, s, 2*c.AckWait)
}

// The process that comes next goes on holding, though the server gave the
// message to its probe before.
func TestTakeOver(t *testing.T) {
	r, c := queueOf(t)
	s := r.open(t, c)
	r.send(t, c, "long")
	m := receive(t, s, time.Minute)
	s.kill()
	next := r.open(t, c)
	defer next.Close()
	eventually(t, "the message is delivered again", func() error {
		if next.probe.find(strings.Replace(m.Receipt, " ", "x ", 1)) == nil {
			return errors.New("not yet")
		}
		return nil
	})
	if _, err := next.Extend(t.Context(), fleet.Message{ID: m.ID, Receipt: m.Receipt}, time.Minute); err != nil {
		t.Fatalf("extend: %v", err)
	}
	none(t, next, 2*c.AckWait)
	if err := next.Ack(t.Context(), fleet.Message{Receipt: m.Receipt}); err != nil {
		t.Errorf("ack: %v", err)
	}
	wants(t, "second ack", next.Ack(t.Context(), fleet.Message{Receipt: m.Receipt}), fleet.ErrFenced)
	none(t, next, 2*c.AckWait)
}

// Nobody receives: the message that told of the arrival goes back, and counts
// as waiting all the time.
func TestProbeGivesBack(t *testing.T) {
	r, c := queueOf(t)
	c.AckWait = 10 * time.Second
	s, other := r.open(t, c), r.open(t, c)
	defer s.Close()
	defer other.Close()
	none(t, other, time.Millisecond)
	r.send(t, c, "one")
	<-s.Wake() // of the connection
	for end := time.Now().Add(2 * probeHold); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		st, err := s.Stats(t.Context())
		if err != nil || st.Backlog+st.InFlight != 1 {
			t.Fatalf("while nobody receives: %+v, %v", st, err)
		}
	}
	m := receive(t, other, time.Minute)
	if m.Attempt > 3 {
		t.Errorf("attempt %d", m.Attempt)
	}
	st, err := s.Stats(t.Context())
	if err != nil || st.Backlog != 0 || st.InFlight != 1 {
		t.Errorf("once it is leased: %+v, %v", st, err)
	}
}

func TestAttemptsAreNotProbes(t *testing.T) {
	r, c := queueOf(t)
	s := r.open(t, c)
	defer s.Close()
	none(t, s, time.Millisecond)
	r.send(t, c, "one")
	time.Sleep(probeHold + 300*time.Millisecond)
	st, err := s.Stats(t.Context())
	if err != nil || st.Backlog != 1 || st.InFlight != 0 || st.Oldest.IsZero() {
		t.Errorf("given back: %+v, %v", st, err)
	}
	if m := receive(t, s, time.Minute); m.Attempt != 1 {
		t.Errorf("attempt %d, want 1", m.Attempt)
	}
}

func TestConsumerDeleted(t *testing.T) {
	r, c := queueOf(t)
	s := r.open(t, c)
	defer s.Close()
	r.send(t, c, "held", "waiting")
	m := receive(t, s, time.Minute)
	if err := r.js.DeleteConsumer(t.Context(), c.Stream, "muster"); err != nil {
		t.Fatal(err)
	}
	// A consumer is made anew, and what is held here is not handed out again.
	if again := receive(t, s, time.Minute); string(again.Body) != "waiting" && string(m.Body) != "waiting" {
		t.Errorf("received %q", again.Body)
	}
	none(t, s, time.Second)
	eventually(t, "what is held can be settled", func() error { return s.Ack(t.Context(), m) })
}

func TestStreamDeleted(t *testing.T) {
	r, c := queueOf(t)
	s := r.open(t, c)
	defer s.Close()
	r.send(t, c, "old")
	old := receive(t, s, time.Minute)
	if err := r.js.DeleteStream(t.Context(), c.Stream); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is told", func() error {
		if _, err := s.Stats(t.Context()); !errors.Is(err, fleet.ErrNotFound) {
			return errors.Join(errors.New("want ErrNotFound"), err)
		}
		return nil
	})
	if _, err := r.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: c.Stream, Subjects: []string{strings.ToLower(c.Stream) + ".>"}, Retention: jetstream.WorkQueuePolicy}); err != nil {
		t.Fatal(err)
	}
	r.send(t, c, "new")
	m := receive(t, s, time.Minute)
	if string(m.Body) != "new" || m.ID != old.ID {
		t.Errorf("received %+v", m)
	}
	wants(t, "ack of a message of the stream before", s.Ack(t.Context(), old), fleet.ErrFenced)
	if err := s.Ack(t.Context(), m); err != nil {
		t.Errorf("ack: %v", err)
	}
}

// A consumer of a stream that keeps its messages is made anew where it was.
func TestConsumerDeletedOfLimits(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	c := r.config(r.stream(t, jetstream.StreamConfig{}))
	s := r.open(t, c)
	defer s.Close()
	r.send(t, c, "one", "two")
	for range 2 {
		if err := s.Ack(t.Context(), receive(t, s, time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Stats(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.js.DeleteConsumer(t.Context(), c.Stream, "muster"); err != nil {
		t.Fatal(err)
	}
	r.send(t, c, "three")
	if m := receive(t, s, time.Minute); string(m.Body) != "three" {
		t.Errorf("received %q: what was done is done again", m.Body)
	}
}

func TestServerHangs(t *testing.T) {
	r, c := queueOf(t)
	s := r.open(t, c)
	defer s.Close()
	r.send(t, c, "one")
	m := receive(t, s, time.Minute)
	thaw := r.Freeze()
	defer thaw()
	time.Sleep(50 * time.Millisecond) // the signal takes its time
	for _, call := range []func() error{
		func() error { _, err := s.Stats(t.Context()); return err },
		func() error { return s.Ack(t.Context(), m) },
	} {
		start := time.Now()
		wants(t, "of a server that hangs", call(), fleet.ErrUnavailable)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
	}
	thaw()
	eventually(t, "it answers again", func() error { return s.Ack(t.Context(), m) })
}

func TestSubjects(t *testing.T) {
	r, c := queueOf(t)
	c.Subject = strings.ToLower(c.Stream) + ".run"
	s := r.open(t, c)
	defer s.Close()
	if _, err := r.js.Publish(t.Context(), strings.ToLower(c.Stream)+".other", []byte("no")); err != nil {
		t.Fatal(err)
	}
	r.send(t, c, "one", "two")
	eventually(t, "the reading counts what is for us", func() error {
		st, err := s.Stats(t.Context())
		if err == nil && (st.Backlog != 2 || st.Arrived != 2 || st.Oldest.IsZero()) {
			t.Logf("%+v", st)
			return errors.New("other numbers")
		}
		return err
	})
	for range 2 {
		if err := s.Ack(t.Context(), receive(t, s, time.Minute)); err != nil {
			t.Error(err)
		}
	}
	none(t, s, 100*time.Millisecond)
	if st, err := s.Stats(t.Context()); err != nil || st.Backlog != 0 || st.Arrived != 2 {
		t.Errorf("at the end: %+v, %v", st, err)
	}
}

func TestUnfitConsumers(t *testing.T) {
	r, c := queueOf(t)
	for name, cc := range map[string]jetstream.ConsumerConfig{
		"ackall":  {Durable: "ackall", AckPolicy: jetstream.AckAllPolicy},
		"hasty":   {Durable: "hasty", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 100 * time.Millisecond},
		"headers": {Durable: "headers", AckPolicy: jetstream.AckExplicitPolicy, HeadersOnly: true},
	} {
		cc.FilterSubject = strings.ToLower(c.Stream) + "." + name // a work queue's consumers do not overlap
		if _, err := r.js.CreateConsumer(t.Context(), c.Stream, cc); err != nil {
			t.Logf("%s: the server does not make one: %v", name, err)
			continue
		}
		c.Consumer = name
		wants(t, name, r.reach(t, c), fleet.ErrInvalid)
	}
}

func TestDeadLetterHeaders(t *testing.T) {
	c := Config{Stream: "TASKS"}.withDefaults()
	m := deadLetter(c, fleet.Message{Body: []byte("x"), Headers: map[string]string{"Nats-Expected-Stream": "TASKS", "team": "a\r\nb: c"}}, receipt{seq: 7, at: 9}, strings.Repeat("ż", 2000)+"\n")
	if m.Header.Get("Nats-Expected-Stream") != "" || m.Header["Muster-Nats-Expected-Stream"][0] != "TASKS" || m.Header["team"][0] != "a  b: c" {
		t.Errorf("headers %v", m.Header)
	}
	if why := m.Header.Get(HeaderReason); len(why) > maxReason || !strings.HasPrefix(why, "ż") || strings.Contains(why, "\n") {
		t.Errorf("reason of %d bytes", len(why))
	}
	if id := m.Header.Get(jetstream.MsgIDHeader); id != "muster-TASKS-7-9" {
		t.Errorf("id %q", id)
	}
}

func TestConfig(t *testing.T) {
	good := Config{Servers: []string{"nats://127.0.0.1:4222"}, Stream: "TASKS"}
	if err := good.withDefaults().check(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*Config){
		"servers":       func(c *Config) { c.Servers = nil },
		"servers[0]":    func(c *Config) { c.Servers = []string{"nats://u:hidden@h:1"} },
		"servers[1]":    func(c *Config) { c.Servers = append(c.Servers[:1:1], "http://hidden") },
		"stream":        func(c *Config) { c.Stream = "a.b" },
		"consumer":      func(c *Config) { c.Consumer = "a b" },
		"deadStream":    func(c *Config) { c.DeadStream = "TASKS" },
		"deadSubject":   func(c *Config) { c.DeadSubject = "dead.*" },
		"subject":       func(c *Config) { c.Subject = "a..b" },
		"ackWait":       func(c *Config) { c.AckWait = time.Millisecond },
		"maxAckPending": func(c *Config) { c.MaxAckPending = -1 },
		"domain":        func(c *Config) { c.Domain = "a.b" },
		"apiPrefix":     func(c *Config) { c.APIPrefix, c.Domain = "JS.x.API", "hub" },
		"inboxPrefix":   func(c *Config) { c.InboxPrefix = ">" },
		"user":          func(c *Config) { c.User = "u" },
	} {
		c := good
		change(&c)
		_, err := New(t.Context(), c)
		var wrong *fleet.FieldError
		if !errors.As(err, &wrong) || wrong.Field != field || !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v", field, err)
		} else if strings.Contains(err.Error(), "hidden") {
			t.Errorf("the error shows an address: %v", err)
		}
	}
	c := good
	c.Token, c.User, c.Password = connect.Fixed("t"), "u", connect.Fixed("p")
	if _, err := New(t.Context(), c); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("two ways to authenticate: %v", err)
	}
}

func FuzzReceipt(f *testing.F) {
	f.Add("ab $JS.ACK.TASKS.muster.1.2.3.1700000000000000000.4")
	f.Add("ab $JS.ACK.hub.h4sh.TASKS.muster.1.2.3.1700000000000000000.4.r")
	f.Add("ab $JS.ACK.>")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseReceipt(s)
		if err != nil {
			if !errors.Is(err, fleet.ErrInvalid) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if r.String() != s || r.seq == 0 || r.delivered == 0 || !strings.HasPrefix(r.reply, "$JS.ACK.") || strings.ContainsAny(r.reply, " \r\n") {
			t.Errorf("%q is read as %+v", s, r)
		}
		_, _, _ = parseConfirm(s)
	})
}

func FuzzStatus(f *testing.F) {
	f.Add("409", "Consumer Deleted")
	s := &Source{}
	f.Fuzz(func(t *testing.T, code, text string) {
		end, err := s.status(&sdk.Msg{Header: sdk.Header{"Status": {code}, "Description": {text}}})
		if err != nil && !end {
			t.Errorf("%q %q: goes on with %v", code, text, err)
		}
	})
}

func BenchmarkPush(b *testing.B) {
	r := newRig(b, "")
	c := r.config(r.stream(b, jetstream.StreamConfig{Retention: jetstream.WorkQueuePolicy}))
	s := r.open(b, c)
	defer s.Close()
	ctx := b.Context()
	var total time.Duration
	for b.Loop() {
		for m := []fleet.Message{{}}; len(m) > 0; {
			m, _ = s.Receive(ctx, 1, time.Minute)
		}
		time.Sleep(5 * time.Millisecond)
		for len(s.Wake()) > 0 {
			<-s.Wake()
		}
		start := time.Now()
		if err := r.publish(ctx, c.Stream, sent("x")); err != nil {
			b.Fatal(err)
		}
		<-s.Wake()
		total += time.Since(start)
		for _, m := range func() []fleet.Message { m, _ := s.Receive(ctx, 1, time.Minute); return m }() {
			_ = s.Ack(ctx, m)
		}
	}
	b.ReportMetric(float64(total.Microseconds())/float64(b.N), "µs/wake")
}
