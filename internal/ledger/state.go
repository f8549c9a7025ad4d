package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
)

// life is one node as the ledger goes on from it.
type life struct {
	Node    cost.Node      `json:"node"`
	Kind    fleet.NodeKind `json:"kind,omitzero"`
	Boot    fleet.NodeID   `json:"boot,omitempty"` // the id it had while it booted
	Charged time.Time      `json:"charged"`        // up to here
}

// state is what a posting goes on from.
type state struct {
	Began  time.Time `json:"began"`  // of the ledger
	Looked time.Time `json:"looked"` // at the nodes, last
	Lives  []*life   `json:"lives"`
	// Warnings were given of budgets, by field; Notices wait for the webhook, and
	// Sent counts all there were.
	Warnings map[string]warned `json:"warnings,omitempty"`
	Notices  []fleet.Notice    `json:"notices,omitempty"`
	Sent     int64             `json:"sent,omitempty"`
}

// mind is what is known beside the state: it can be read again.
type mind struct {
	seq   int64
	state state
	books map[bookAt]*cost.Book           // those that are added to
	tasks map[fleet.TaskID]fleet.TaskCost // likewise
	dims  map[fleet.TaskID]cost.Key       // of tasks that were looked up
	over  map[fleet.SandboxID]bool        // sandboxes whose task was counted
	touch map[bookAt]bool                 // changed since the last posting
	moved map[fleet.TaskID]bool           // likewise
	// waiting says that a task ended of which not all is charged; it is looked for
	// also when the last node is gone.
	waiting bool
	past    map[bookAt]spent // what is in books that are not in books
	empty   int64            // the last hour that was put on record as one without a node
	fresh   fresh            // charged since then
}

type bookAt struct {
	span fleet.BookSpan
	from int64 // seconds since 1970
}

// load reads the state that the last posting left.
func (s *Service) load(ctx context.Context) error {
	seq, b, err := s.o.Store.LedgerState(ctx)
	if err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	m := &mind{
		seq: seq, books: map[bookAt]*cost.Book{}, tasks: map[fleet.TaskID]fleet.TaskCost{}, dims: map[fleet.TaskID]cost.Key{},
		over: map[fleet.SandboxID]bool{}, touch: map[bookAt]bool{}, moved: map[fleet.TaskID]bool{}, past: map[bookAt]spent{}, waiting: true, fresh: newFresh(),
	}
	if seq > 0 {
		if err := json.Unmarshal(b, &m.state); err != nil {
			return fmt.Errorf("read the ledger's state: %w: %w", fleet.ErrCorrupt, err)
		}
	}
	for _, l := range m.state.Lives { // what is not charged yet is charged by the prices in force
		s.price(l, l.Kind)
	}
	s.m = m
	return nil
}

// book returns the book of an hour or a day, reading it when it is met first.
func (s *Service) book(ctx context.Context, span fleet.BookSpan, from time.Time) (*cost.Book, error) {
	at := bookAt{span, from.Unix()}
	s.m.touch[at] = true
	if b := s.m.books[at]; b != nil {
		return b, nil
	}
	found, err := s.o.Store.Books(ctx, span, from, from.Add(time.Second))
	if err != nil {
		return nil, fmt.Errorf("read the book of %s: %w", from.Format(time.RFC3339), err)
	}
	b := cost.NewBook()
	for _, f := range found {
		if err := b.MergeEncoded(f.Content, true); err != nil {
			return nil, fmt.Errorf("book of %s: %w", from.Format(time.RFC3339), err)
		}
	}
	s.m.books[at] = b
	return b, nil
}

// task returns what a task has cost so far, reading it when it is met first.
func (s *Service) task(ctx context.Context, id fleet.TaskID) (fleet.TaskCost, error) {
	if t, ok := s.m.tasks[id]; ok {
		return t, nil
	}
	found, err := s.o.Store.TaskCosts(ctx, []fleet.TaskID{id})
	if err != nil {
		return fleet.TaskCost{}, fmt.Errorf("read the cost of task %s: %w", id, err)
	}
	t := fleet.TaskCost{Task: id}
	if len(found) > 0 {
		t = found[0]
	}
	s.m.tasks[id] = t
	return t, nil
}

func (s *Service) putTask(t fleet.TaskCost) {
	s.m.tasks[t.Task] = t
	s.m.moved[t.Task] = true
}

// keyOf is what a task's charges are added up by. A task that is not there any
// more has only its id.
func (s *Service) keyOf(ctx context.Context, id fleet.TaskID) (cost.Key, error) {
	if k, ok := s.m.dims[id]; ok {
		return k, nil
	}
	t, err := s.o.Store.Task(ctx, id)
	if err != nil && !errors.Is(err, fleet.ErrNotFound) {
		return cost.Key{}, fmt.Errorf("read task %s: %w", id, err)
	}
	k := cost.Key{Cause: cost.CauseTask, Tenant: t.Spec.Tenant, Labels: cost.LabelsOf(t.Spec.Labels, s.labels)}
	s.m.dims[id] = k
	return k, nil
}

// post writes what was added. After an error nobody knows whether it was
// written: what is known is read anew before anything is added again.
func (s *Service) post(ctx context.Context) error {
	if s.m.seq > 0 && len(s.m.touch) == 0 && len(s.m.moved) == 0 && !s.dirty {
		return nil
	}
	b, err := json.Marshal(s.m.state)
	if err != nil {
		return fmt.Errorf("encode the ledger's state: %w", err)
	}
	p := fleet.Posting{Seq: s.m.seq + 1, State: b}
	for at := range s.m.touch {
		content := s.m.books[at].Encode()
		if at.span == fleet.BookHour { // many, and only a few are read for a report
			content = s.m.books[at].Pack()
		}
		p.Books = append(p.Books, fleet.Book{Span: at.span, From: time.Unix(at.from, 0).UTC(), Content: content})
	}
	for id := range s.m.moved {
		p.Tasks = append(p.Tasks, s.m.tasks[id])
	}
	if err := s.o.Store.Post(ctx, p); err != nil {
		return err
	}
	s.m.seq, s.dirty = p.Seq, false
	clear(s.m.touch)
	clear(s.m.moved)
	s.tell()
	return nil
}

// forget drops what will hardly be added to again.
func (s *Service) forget(to time.Time) {
	for at := range s.m.books {
		if time.Unix(at.from, 0).Before(to.Add(-25 * time.Hour)) {
			delete(s.m.books, at)
			delete(s.m.past, at) // as it was before
		}
	}
	for at := range s.m.past {
		if age := to.Sub(time.Unix(at.from, 0)); age > 40*24*time.Hour || at.span == fleet.BookHour && age > 3*time.Hour {
			delete(s.m.past, at)
		}
	}
	for id := range s.m.over {
		if !s.here[id] {
			delete(s.m.over, id)
		}
	}
	for id := range s.m.tasks {
		if !s.busy[id] {
			delete(s.m.tasks, id)
			delete(s.m.dims, id)
		}
	}
	for id := range s.m.dims {
		if !s.busy[id] {
			delete(s.m.dims, id)
		}
	}
}
