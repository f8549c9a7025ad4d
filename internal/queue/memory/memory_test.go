package memory

import (
	"context"
	"fmt"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest"
)

func TestConformance(t *testing.T) {
	for _, unnamed := range []bool{false, true} {
		t.Run(fmt.Sprintf("unnamed=%t", unnamed), func(t *testing.T) {
			queuetest.RunFakeSource(t, func(*testing.T) queuetest.Outside {
				s := NewServer()
				s.Unnamed = unnamed
				return queuetest.Outside{
					Open: func(*testing.T) fleet.Source { return s.Open() },
					Publish: func(_ context.Context, sent ...queuetest.Sent) error {
						for _, m := range sent {
							s.Publish(fleet.Message{Body: m.Body, Headers: m.Headers})
						}
						return nil
					},
					Dead: func(context.Context) (sent []queuetest.Sent, why []string, _ error) {
						for _, d := range s.Dead() {
							sent, why = append(sent, queuetest.Sent{Body: d.Body, Headers: d.Headers}), append(why, d.Why)
						}
						return sent, why, nil
					},
					Restart: func(down time.Duration) {
						s.Fail(fmt.Errorf("connection refused: %w", fleet.ErrUnavailable))
						time.Sleep(down)
						s.Fail(nil)
					},
					Headers: true,
				}
			})
		})
	}
}
