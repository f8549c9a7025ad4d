package webhook

import (
	"context"

	"muster.dev/muster/internal/fleet"
)

// job is one thing that somebody is to be told.
type job struct {
	name     string // unique among all jobs
	kind, id string // for the log
	url      string
	body     func() ([]byte, error)
	// done records the end of it; a problem is why it was given up.
	done func(ctx context.Context, problem string) error
}

func (s *Service) settled(t fleet.Task) job {
	return job{
		name: string(t.ID), kind: "task", id: string(t.ID), url: t.Spec.Webhook,
		body: func() ([]byte, error) { return Event(t) },
		done: func(ctx context.Context, problem string) error { return s.o.Tasks.WebhookDone(ctx, t.ID, problem) },
	}
}

func (s *Service) notices() (out []job) {
	if s.o.Notices == nil {
		return nil
	}
	from := s.o.Notices()
	if from == nil {
		return nil
	}
	for _, n := range from.Notices() {
		out = append(out, job{
			name: "notice " + n.ID, kind: "notice", id: n.ID, url: n.URL,
			body: func() ([]byte, error) { return NoticeEvent(n) },
			done: func(context.Context, string) error {
				from.NoticeDone(n.ID)
				return nil
			},
		})
	}
	return out
}
