package kube

import (
	"cmp"
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"muster.dev/muster/internal/kube"
)

// placeholders asks for a node with a pod that finds no room on those there
// are, the seat.
type placeholders struct {
	o *Options
	w *Watch
}

// parallel is how many requests are under way at once.
const parallel = 8

// load implements source.
func (s *placeholders) load(ctx context.Context, _ int) ([]boot, error) {
	l, err := s.o.Client.CoreV1().Pods(s.o.Namespace).List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(s.o.labels()).String()})
	if err != nil {
		return nil, fault("list", "pods", err)
	}
	var out []boot
	for i := range l.Items {
		if p := podOf(&l.Items[i]); p.hold == nil && !p.over {
			out = append(out, boot{id: l.Items[i].Name, at: p.created})
		}
	}
	slices.SortFunc(out, func(a, b boot) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.id, b.id)) })
	return out, nil
}

// ask implements source.
func (s *placeholders) ask(ctx context.Context, more int, boots []boot) ([]boot, error) {
	made := make([]boot, more)
	g := errgroup.Group{} // not bound to each other: those that are made are kept
	g.SetLimit(parallel)
	for i := range made {
		g.Go(func() error {
			p, err := s.o.Client.CoreV1().Pods(s.o.Namespace).Create(ctx, s.o.seatPod(), metav1.CreateOptions{FieldManager: kube.Owner})
			if err != nil {
				return fault("create", "pods", err)
			}
			s.w.pods.wrote(podOf(p))
			made[i] = boot{id: p.Name, at: p.CreationTimestamp.Time}
			return nil
		})
	}
	err := g.Wait()
	return append(boots, slices.DeleteFunc(made, func(b boot) bool { return b.id == "" })...), err
}

// came implements source: the seats make way for sandboxes.
func (s *placeholders) came(ctx context.Context, done, _ []boot) error { return s.remove(ctx, done) }

// withdraw implements source.
func (s *placeholders) withdraw(ctx context.Context, gone, _ []boot) error {
	return s.remove(ctx, gone)
}

func (s *placeholders) remove(ctx context.Context, boots []boot) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, b := range boots {
		g.Go(func() error { return s.o.deletePod(ctx, s.w, b.id) })
	}
	return g.Wait()
}

func (s *placeholders) release(context.Context, string) error { return nil }
func (s *placeholders) reusable() bool                        { return true }

func (s *placeholders) places() bool { return true }
func (s *placeholders) placed(id string) string {
	if p, ok := s.w.pods.get(s.o.Namespace + "/" + id); ok {
		return p.node
	}
	return ""
}

// shown is after how long a pod that we made is surely in the watch.
const shown = 30 * time.Second

// refused implements source. A seat that somebody deleted is not made again
// unless the plan asks.
func (s *placeholders) refused(ctx context.Context, waiting []boot) (map[string]string, error) {
	why := map[string]string{}
	var left []string
	now := s.o.Clock()
	for _, b := range waiting {
		p, ok := s.w.pods.get(s.o.Namespace + "/" + b.id)
		switch {
		case !ok && now.Sub(b.at) > shown, ok && p.over:
			why[b.id] = "placeholder pod " + b.id + " was removed by somebody else while it waited for a node"
		case ok && p.node == "" && now.Sub(b.at) >= grace:
			left = append(left, b.id)
		}
	}
	said, err := verdicts(ctx, s.o, "Pod", left)
	for id, text := range said {
		why[id] = "placeholder pod " + id + " gets no node: " + text
	}
	return why, err
}
