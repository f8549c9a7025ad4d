package sqs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"muster.dev/muster/internal/fleet"
)

const (
	// answerWithin bounds a call of ours, with all it asks of AWS; the contract
	// says 5 s.
	answerWithin = 4500 * time.Millisecond
	// longest is how long SQS holds a message for one receive, with all
	// extensions: ChangeMessageVisibility in the API Reference.
	longest = 12 * time.Hour
	// batchMost is how many entries a batch, and messages a receive, may have.
	batchMost = 10
)

// Source implements fleet.Source.
type Source struct {
	conf        Config
	queue       where
	credentials aws.CredentialsProvider
	transport   *http.Transport
	api         *sqs.Client
	metrics     *cloudwatch.Client // nil: not asked
	wake        chan struct{}
	nudge       chan struct{} // tells the watch that it is armed
	changes     lanes         // ChangeMessageVisibility
	deletes     lanes         // DeleteMessage

	life context.Context //nolint:containedctx // ends with Close, and every call with it
	end  context.CancelFunc
	jobs sync.WaitGroup

	mu         sync.Mutex
	closed     bool
	urls       map[where]string // as resolved
	leases     map[string]*lease
	newest     map[string]string // receipt by message ID, of those in leases
	settled    recent
	swept      time.Time
	waits      map[string]*wait // messages we returned with a delay, by receipt
	probe      probe
	visibility time.Duration // as last asked for; 0: never
	reading    reading
}

var _ fleet.Source = (*Source)(nil)

// New checks the configuration (errors match fleet.ErrInvalid) and returns a
// source that connects when it is first used.
func New(ctx context.Context, c Config) (*Source, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	cfg, transport, err := session(ctx, c)
	if err != nil {
		return nil, err
	}
	queue, err := parseQueue(c.Queue)
	if err != nil {
		return nil, err
	}
	queue.account = c.Account
	s := &Source{
		conf: c, queue: queue, credentials: cfg.Credentials, transport: transport,
		api:  sqs.NewFromConfig(cfg, func(o *sqs.Options) { o.BaseEndpoint, o.HTTPSignerV4 = optional(c.Endpoint), &signer{} }),
		wake: make(chan struct{}, 1), nudge: make(chan struct{}, 1), urls: map[where]string{},
		leases: map[string]*lease{}, newest: map[string]string{}, waits: map[string]*wait{}, swept: time.Now(),
		probe: probe{returned: map[string]int{}},
	}
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.changes = lanes{s: s, send: s.sendChanges}
	s.deletes = lanes{s: s, send: s.sendDeletes}
	if c.CloudWatch {
		s.metrics = cloudwatch.NewFromConfig(cfg, func(o *cloudwatch.Options) {
			o.BaseEndpoint, o.HTTPSignerV4 = optional(c.CloudWatchEndpoint), &signer{}
		})
	}
	if !c.NoPush {
		s.jobs.Go(s.watch)
	}
	return s, nil
}

// Traits implements fleet.Signal.
func (s *Source) Traits() fleet.SignalTraits {
	return fleet.SignalTraits{Oldest: s.conf.CloudWatch, InFlight: true, Delayed: true, Dead: true, Push: !s.conf.NoPush, Names: true, Durable: true, Fees: true}
}

// Wake implements fleet.Signal.
func (s *Source) Wake() <-chan struct{} {
	if s.conf.NoPush {
		return nil
	}
	return s.wake
}

func (s *Source) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close implements fleet.Signal. Leases stay: a restarted process goes on with
// them.
func (s *Source) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	for _, w := range s.waits {
		w.timer.Stop()
	}
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.end()
	s.jobs.Wait()
	s.mu.Lock()
	held := s.probe.held
	s.mu.Unlock()
	if held != nil {
		// What was only looked at goes back at once; should that fail it comes
		// back by itself.
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = s.changeOne(ctx, held.m.Receipt, 0)
	}
	s.transport.CloseIdleConnections()
	return nil
}

// operation is one call of the contract: all it asks of AWS ends with the
// caller's context, with Close, and in time.
type operation struct {
	name        string
	caller, ctx context.Context //nolint:containedctx // lives as long as the call
}

// begin starts a call; on success end must be called.
func (s *Source) begin(caller context.Context, name string) (o operation, end func(), err error) {
	if err := caller.Err(); err != nil {
		return o, nil, fmt.Errorf("sqs: %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return o, nil, fmt.Errorf("sqs: %s: closed: %w", name, fleet.ErrUnavailable)
	}
	s.jobs.Add(1)
	ctx, cancel := context.WithTimeout(caller, answerWithin)
	stop := context.AfterFunc(s.life, cancel)
	return operation{name: name, caller: caller, ctx: ctx}, func() {
		stop()
		cancel()
		s.jobs.Done()
	}, nil
}

// fail is an error as the caller gets it.
func (o operation) fail(err error) error {
	if ended := o.caller.Err(); ended != nil {
		return fmt.Errorf("sqs: %s: %w", o.name, ended)
	}
	return fmt.Errorf("sqs: %s: %w", o.name, told(err))
}

// keys makes sure that there are credentials, so that their lack is told apart
// from other failures.
func (s *Source) keys(ctx context.Context) error {
	if _, err := s.credentials.Retrieve(ctx); err != nil {
		if ctx.Err() != nil || errors.Is(err, fleet.ErrUnavailable) {
			return fmt.Errorf("credentials: %s: %w", cause(err), fleet.ErrUnavailable)
		}
		if of := told(err); errors.Is(of, fleet.ErrDenied) {
			return fmt.Errorf("credentials: %w", of)
		}
		return fmt.Errorf("no credentials: %s: %w", cause(err), fleet.ErrDenied)
	}
	return nil
}

// ask does one call of a service with the URL of a queue. A refusal makes what
// it was refused for be looked up anew.
func ask[T any](ctx context.Context, s *Source, w where, do func(context.Context, *string) (T, error)) (T, error) {
	var none T
	if err := s.keys(ctx); err != nil {
		return none, err
	}
	address, err := s.url(ctx, w)
	if err != nil {
		return none, err
	}
	out, err := do(ctx, &address)
	if err == nil {
		return out, nil
	}
	err = told(err)
	if staleKeys(err) {
		s.forget()
	}
	if errors.Is(err, fleet.ErrNotFound) {
		s.mu.Lock()
		delete(s.urls, w)
		s.mu.Unlock()
	}
	return none, err
}

// forget drops cached credentials: they may have been renewed.
func (s *Source) forget() {
	if cache, ok := s.credentials.(*aws.CredentialsCache); ok {
		cache.Invalidate()
	}
}

// url finds the URL of a queue, once.
func (s *Source) url(ctx context.Context, w where) (string, error) {
	if w.url != "" {
		return w.url, nil
	}
	s.mu.Lock()
	known := s.urls[w]
	s.mu.Unlock()
	if known != "" {
		return known, nil
	}
	out, err := s.api.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &w.name, QueueOwnerAWSAccountId: optional(w.account)})
	if err != nil {
		err = told(err)
		if staleKeys(err) {
			s.forget()
		}
		return "", fmt.Errorf("queue %s: %w", w.name, err)
	}
	address := aws.ToString(out.QueueUrl)
	if _, err := parseQueue(address); err != nil {
		return "", fmt.Errorf("queue %s: the answer is no URL of a queue: %w", w.name, fleet.ErrUnavailable)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.urls[w] = address
	return address, nil
}
