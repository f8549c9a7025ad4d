package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Options adjust a Service; Tasks is needed.
type Options struct {
	Tasks     fleet.Tasks
	Secret    []byte // signs deliveries; empty: unsigned
	UserAgent string
	Transport http.RoundTripper // default: http.DefaultTransport without a proxy override
	Logger    *slog.Logger
	Clock     func() time.Time
	Poll      time.Duration // how often the store is asked; default 2 s
	Timeout   time.Duration // of one attempt; default 10 s
	Attempts  int           // before giving up; default 10
	Parallel  int           // deliveries at once; default 8
}

// Service delivers webhooks.
type Service struct {
	o      Options
	client *http.Client
	wake   chan struct{}

	mu     sync.Mutex
	active map[fleet.TaskID]bool
	wg     sync.WaitGroup
}

// New returns a Service; Run starts it.
func New(o Options) *Service {
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	orDefault(&o.Poll, 2*time.Second)
	orDefault(&o.Timeout, 10*time.Second)
	orDefault(&o.Attempts, 10)
	orDefault(&o.Parallel, 8)
	return &Service{o: o, wake: make(chan struct{}, 1), active: map[fleet.TaskID]bool{}, client: &http.Client{
		Transport: o.Transport, Timeout: o.Timeout,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) >= 3 || r.URL.Host != via[0].URL.Host {
				return errors.New("redirected to another host")
			}
			return nil
		},
	}}
}

func orDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Wake makes Run look at the store at once.
func (s *Service) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends; what was not delivered stays in the store.
func (s *Service) Run(ctx context.Context) error {
	defer s.wg.Wait()
	tick := time.NewTicker(s.o.Poll)
	defer tick.Stop()
	for {
		s.round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.wake:
		}
	}
}

// round starts a delivery for every pending task that has none under way.
func (s *Service) round(ctx context.Context) {
	pending, err := s.o.Tasks.PendingWebhooks(ctx, 4*s.o.Parallel)
	if err != nil {
		if ctx.Err() == nil {
			s.o.Logger.Warn("cannot read pending webhooks", "error", err)
		}
		return
	}
	for _, t := range pending {
		s.mu.Lock()
		busy := s.active[t.ID] || len(s.active) >= 4*s.o.Parallel
		if !busy {
			s.active[t.ID] = true
		}
		s.mu.Unlock()
		if busy {
			continue
		}
		s.wg.Go(func() {
			s.deliver(ctx, t)
			s.mu.Lock()
			delete(s.active, t.ID)
			s.mu.Unlock()
		})
	}
}

// deliver tries until it succeeds, gives up, or ctx ends.
func (s *Service) deliver(ctx context.Context, t fleet.Task) {
	body, err := Event(t)
	problem := ""
	if err != nil {
		problem = err.Error()
	} else {
		for attempt := 1; ; attempt++ {
			wait, err := s.post(ctx, t, body)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				break
			}
			s.o.Logger.Warn("webhook was not delivered", "task", t.ID, "attempt", attempt, "of", s.o.Attempts, "error", err)
			if wait < 0 || attempt >= s.o.Attempts {
				problem = err.Error()
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(max(wait, backoff(attempt))):
			}
		}
	}
	if err := s.o.Tasks.WebhookDone(ctx, t.ID, problem); err != nil && ctx.Err() == nil {
		s.o.Logger.Warn("cannot record a webhook as done; it will be sent again", "task", t.ID, "error", err)
	}
}

// backoff is 1 s doubling to at most 5 min, less up to a quarter of it.
func backoff(attempt int) time.Duration {
	d := min(time.Second<<min(attempt-1, 10), 5*time.Minute)
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}

// post tries once. A negative wait says that another attempt is useless.
func (s *Service) post(ctx context.Context, t fleet.Task, body []byte) (wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.Spec.Webhook, bytes.NewReader(body))
	if err != nil {
		return -1, fmt.Errorf("webhook address: %w", err)
	}
	req.Header.Set("Content-Type", "application/cloudevents+json")
	req.Header.Set("User-Agent", s.o.UserAgent)
	if len(s.o.Secret) > 0 {
		req.Header.Set("Muster-Signature", Sign(s.o.Secret, s.o.Clock(), body))
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	switch {
	case resp.StatusCode < 300:
		return 0, nil
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode >= 500:
		return retryAfter(resp.Header.Get("Retry-After"), s.o.Clock()), fmt.Errorf("answered %s", resp.Status)
	}
	return -1, fmt.Errorf("answered %s", resp.Status)
}

// retryAfter reads seconds or a date, at most 15 minutes.
func retryAfter(h string, now time.Time) time.Duration {
	const most = 15 * time.Minute
	if n, err := strconv.Atoi(h); err == nil && n >= 0 {
		return min(time.Duration(min(n, 3600))*time.Second, most)
	}
	if at, err := http.ParseTime(h); err == nil {
		return min(max(0, at.Sub(now)), most)
	}
	return 0
}

// Sign makes the value of the Muster-Signature header: t=UNIX,v1=HEX with the
// HMAC-SHA256 of "UNIX.BODY".
func Sign(secret []byte, at time.Time, body []byte) string {
	ts := strconv.FormatInt(at.Unix(), 10)
	m := hmac.New(sha256.New, secret)
	_, _ = m.Write([]byte(ts + "."))
	_, _ = m.Write(body)
	return "t=" + ts + ",v1=" + hex.EncodeToString(m.Sum(nil))
}

// Event is the CloudEvents form of a settled task. Environment and prompt are
// not part of it.
func Event(t fleet.Task) ([]byte, error) {
	type outcome struct {
		ID         fleet.TaskID      `json:"id"`
		Name       string            `json:"name,omitempty"`
		Labels     map[string]string `json:"labels,omitempty"`
		State      fleet.TaskState   `json:"state"`
		Reason     fleet.TaskReason  `json:"reason,omitempty"`
		Message    string            `json:"message,omitempty"`
		ExitCode   int               `json:"exitCode"`
		Attempt    int               `json:"attempt"`
		Submitted  time.Time         `json:"submittedAt"`
		Ended      time.Time         `json:"endedAt"`
		PatchBytes int64             `json:"patchBytes"`
	}
	b, err := json.Marshal(struct {
		SpecVersion string    `json:"specversion"`
		ID          string    `json:"id"`
		Source      string    `json:"source"`
		Type        string    `json:"type"`
		Subject     string    `json:"subject"`
		Time        time.Time `json:"time"`
		ContentType string    `json:"datacontenttype"`
		Data        outcome   `json:"data"`
	}{
		"1.0", string(t.ID) + "/settled", "/muster", "dev.muster.task.settled", string(t.ID), t.EndedAt, "application/json",
		outcome{t.ID, t.Spec.Name, t.Spec.Labels, t.State, t.Result.Reason, t.Result.Message, t.Result.ExitCode, t.Attempt, t.SubmittedAt, t.EndedAt, t.Result.PatchBytes},
	})
	if err != nil {
		return nil, fmt.Errorf("encode the event: %w", err)
	}
	return b, nil
}
