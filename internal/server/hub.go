package server

import (
	"context"
	"sync"

	"muster.dev/muster/internal/fleet"
)

// hub tells those who wait for a task that something happened to it. One
// reader of the journal serves them all, so that a thousand waiters do not
// read the store a thousand times for each event.
type hub struct {
	store fleet.Journal
	done  chan struct{}

	mu       sync.Mutex
	watchers map[fleet.TaskID]map[chan struct{}]struct{}
}

func newHub(ctx context.Context, store fleet.Journal) *hub {
	h := &hub{store: store, done: make(chan struct{}), watchers: map[fleet.TaskID]map[chan struct{}]struct{}{}}
	wake, release := store.WakeEvents()
	go func() {
		defer close(h.done)
		defer release()
		h.run(ctx, wake)
	}()
	return h
}

// wait returns when the hub has ended, which it does with its context.
func (h *hub) wait() { <-h.done }

func (h *hub) run(ctx context.Context, wake <-chan struct{}) {
	var last int64 = -1 // unknown
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		if h.idle() {
			last = -1 // nobody waits: what happens meanwhile is skipped
			continue
		}
		last = h.read(ctx, last)
	}
}

// read tells the watchers of the tasks in the events after last.
func (h *hub) read(ctx context.Context, last int64) int64 {
	f := fleet.EventFilter{After: last, Limit: 1000}
	if last < 0 {
		f.After, f.Last = 0, true
	}
	for {
		events, err := h.store.Events(ctx, f)
		if err != nil {
			h.tellAll() // they look for themselves
			return -1
		}
		h.tell(events)
		if len(events) > 0 {
			last = events[len(events)-1].Seq
		}
		if len(events) < f.Limit || f.Last {
			return last
		}
		f.After = last
	}
}

func (h *hub) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.watchers) == 0
}

// tell wakes the watchers of the events' tasks.
func (h *hub) tell(events []fleet.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range events {
		wakeAll(h.watchers[e.Task])
	}
}

func (h *hub) tellAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, set := range h.watchers {
		wakeAll(set)
	}
}

func wakeAll(set map[chan struct{}]struct{}) {
	for c := range set {
		select {
		case c <- struct{}{}:
		default: // it has a wake-up waiting
		}
	}
}

// watch delivers a value soon after an event of the task; values are merged.
func (h *hub) watch(id fleet.TaskID) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers[id] == nil {
		h.watchers[id] = map[chan struct{}]struct{}{}
	}
	h.watchers[id][c] = struct{}{}
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if delete(h.watchers[id], c); len(h.watchers[id]) == 0 {
			delete(h.watchers, id)
		}
	}
}
