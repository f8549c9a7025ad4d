package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	sdk "github.com/nats-io/nats.go"

	"muster.dev/muster/internal/fleet"
)

const (
	maxVisibility = 12 * time.Hour
	// maxBatch bounds one Receive, and so what a lost answer can hold back.
	maxBatch = 500
	// quiet is how long the server may be silent within one request before it is
	// asked whether it is there: a consumer at its MaxAckPending says nothing.
	quiet = 250 * time.Millisecond
)

// request is what a pull consumer is asked; see "Consumer Details" in the NATS
// documentation and NATS ADR-13.
type request struct {
	Batch     int           `json:"batch"`
	NoWait    bool          `json:"no_wait,omitempty"`
	Expires   time.Duration `json:"expires,omitempty"`
	Heartbeat time.Duration `json:"idle_heartbeat,omitempty"`
}

func (s *Source) ask(ses *session, inbox string, r request) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return ses.nc.PublishRequest(s.cfg.api()+"CONSUMER.MSG.NEXT."+s.cfg.Stream+"."+s.cfg.Consumer, inbox, b)
}

// Receive implements fleet.Source.
func (s *Source) Receive(ctx context.Context, n int, visibility time.Duration) ([]fleet.Message, error) {
	if s.cfg.ReadOnly {
		return nil, fmt.Errorf("nats: receive: %w", errReadOnly)
	}
	if visibility < time.Second || visibility > maxVisibility {
		return nil, fmt.Errorf("nats: receive: visibility %s, want 1s to %s: %w", visibility, maxVisibility, fleet.ErrInvalid)
	}
	out := []fleet.Message{}
	if n <= 0 {
		return out, ctx.Err()
	}
	err := s.call(ctx, "receive", func(ctx context.Context, ses *session) error {
		q, err := s.attached(ctx, ses)
		if err != nil {
			return err
		}
		if held := s.probe.take(); held != nil {
			if m, ok := s.lease(q, held.msg, held.at, visibility); ok {
				out = append(out, m)
			}
		}
		for n = min(n, q.batch); len(out) < n; {
			asked := n - len(out)
			raw, err := s.pull(ctx, ses, q, asked)
			for _, m := range raw {
				if m, ok := s.lease(q, m, time.Now(), visibility); ok {
					out = append(out, m)
				}
			}
			if err != nil && len(out) == 0 {
				return err
			}
			if err != nil || len(raw) < asked {
				break // what came is handed on; the error will come again
			}
		}
		s.probe.read(len(out) < n)
		return nil
	})
	if len(out) > 0 {
		err = nil // what is leased must not be lost
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// pull asks for messages that are there now.
func (s *Source) pull(ctx context.Context, ses *session, q *queue, n int) ([]*sdk.Msg, error) {
	inbox, in := ses.nc.NewInbox(), make(chan *sdk.Msg, n+8)
	sub, err := ses.nc.ChanSubscribe(inbox, in)
	if err != nil {
		return nil, err
	}
	// Without a subscriber the server drops what is left of the request.
	defer func() { _ = sub.Unsubscribe() }()
	if err := s.ask(ses, inbox, request{Batch: n, NoWait: true}); err != nil {
		return nil, err
	}
	var out []*sdk.Msg
	silence := time.NewTimer(quiet)
	defer silence.Stop()
	for len(out) < n {
		select {
		case m := <-in:
			if isStatus(m) {
				end, err := s.status(m)
				switch {
				case !end:
					continue
				case errors.Is(err, errPaused):
					return out, nil
				case errors.Is(err, errAbsent):
					if _, why := s.info(ctx, q); why != nil {
						err = why
					}
				}
				return out, err
			}
			out = append(out, m)
			silence.Reset(quiet)
		case <-silence.C:
			_, err := s.info(ctx, q) // hanging, or out of room
			return out, err
		case <-ses.gone:
			return out, fmt.Errorf("%w: the connection broke", fleet.ErrUnavailable)
		case <-ctx.Done():
			return out, ctx.Err()
		}
	}
	return out, nil
}

// isStatus tells what the server says of a request from a message of the
// stream, which always has a subject to be acknowledged on.
func isStatus(m *sdk.Msg) bool { return m.Reply == "" || !strings.HasPrefix(m.Reply, "$JS.ACK.") }

var (
	// errPaused is a request that ended for a passing reason.
	errPaused = errors.New("the consumer ends the request")
	errAbsent = fmt.Errorf("%w: nobody answers for the consumer", fleet.ErrUnavailable)
)

// status reads what the server says of a request: whether it ended, and why
// where that is not for want of messages.
func (s *Source) status(m *sdk.Msg) (end bool, err error) {
	code, text := m.Header.Get("Status"), m.Header.Get("Description")
	what := strings.ToLower(text)
	switch {
	case code == "100": // a sign of life
		return false, nil
	case code == "404", code == "408": // no messages; expired, or others wait for what is there
		return true, nil
	case code == "503": // nobody listens: no such consumer, or it has no leader
		return true, errAbsent
	case code == "409" && strings.Contains(what, "deleted"):
		return true, fmt.Errorf("consumer %s of stream %s was deleted: %w", s.cfg.Consumer, s.cfg.Stream, fleet.ErrNotFound)
	case code == "409" && strings.Contains(what, "push"):
		return true, fmt.Errorf("consumer %s is a push consumer: %w", s.cfg.Consumer, fleet.ErrInvalid)
	case code == "409" && strings.Contains(what, "maxrequest"):
		return true, fmt.Errorf("consumer %s limits requests: %s: %w", s.cfg.Consumer, text, fleet.ErrInvalid)
	case code == "409": // leadership change, MaxAckPending or MaxWaiting reached
		return true, errPaused
	}
	return true, fmt.Errorf("%w: status %.20s %.200s", fleet.ErrUnavailable, code, text)
}

// message makes the port's message of a delivery.
func (s *Source) message(m *sdk.Msg, r receipt, until time.Time) fleet.Message {
	out := fleet.Message{
		ID: strconv.FormatUint(r.seq, 10), Receipt: r.String(), Body: m.Data,
		Attempt: max(1, int(r.delivered)-s.probe.peeks(r)), At: time.Unix(0, r.at), Until: until, //nolint:gosec // below 2^63
	}
	if len(m.Header) > 0 {
		out.Headers = make(map[string]string, len(m.Header))
		for k, v := range m.Header {
			out.Headers[k] = strings.Join(v, ",")
		}
	}
	return out
}
