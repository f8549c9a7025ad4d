package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Endpoint is an address that is told of events of a fleet.
type Endpoint struct {
	URL   string
	Kinds []string // of events
}

// Journal is where a Feed reads events, and keeps how far it got.
type Journal interface {
	Events(ctx context.Context, f fleet.EventFilter) ([]fleet.Event, error)
	WakeEvents() (wake <-chan struct{}, release func())
	Setting(ctx context.Context, key string) ([]byte, error)
	PutSetting(ctx context.Context, key string, value []byte) error
}

// FeedOptions adjust a Feed; Fleet, Journal and Endpoints are needed.
type FeedOptions struct {
	Fleet     string
	Journal   Journal
	Endpoints func() []Endpoint // asked for each round
	Logger    *slog.Logger
}

// Feed turns the events of a fleet into notices for its endpoints, each at
// least once, also over restarts. An endpoint that is new is told of what
// happens from then on.
type Feed struct {
	o     FeedOptions
	moved chan struct{}

	// begun: read is known. idle: nobody is told, and the journal says so. Both
	// are of Run alone.
	begun, idle bool

	mu      sync.Mutex
	read    int64 // events up to it are done or in waiting
	kept    int64 // as in the journal
	waiting []waits
}

// waits is a notice that is not delivered yet.
type waits struct {
	seq    int64
	notice fleet.Notice
}

const (
	// settingFeed is the key of the Seq of the last event all endpoints were
	// told of.
	settingFeed = "webhooks.events"
	// mostTold bounds what waits to be delivered: beyond it the events stay in
	// the journal until there is room.
	mostTold = 512
	// feedAgain is how long a read that failed is waited for.
	feedAgain = 5 * time.Second
)

// NewFeed returns a Feed; Run starts it.
func NewFeed(o FeedOptions) *Feed {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Feed{o: o, moved: make(chan struct{}, 1)}
}

// Run follows the events until ctx ends.
func (f *Feed) Run(ctx context.Context) error {
	wake, release := f.o.Journal.WakeEvents()
	defer release()
	for {
		err := f.turn(ctx)
		var again <-chan time.Time
		if err != nil && ctx.Err() == nil {
			f.o.Logger.Warn("cannot follow the events for webhooks; it is tried again", "error", err)
			again = time.After(feedAgain)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-f.moved:
		case <-again:
		}
	}
}

// turn takes in what is new and keeps how far everybody is.
func (f *Feed) turn(ctx context.Context) error {
	to := f.o.Endpoints()
	if len(to) == 0 {
		return f.rest(ctx)
	}
	if !f.begun {
		if err := f.begin(ctx); err != nil {
			return err
		}
		f.begun, f.idle = true, false
	}
	for {
		more, err := f.take(ctx, to)
		if err != nil {
			return err
		}
		if !more {
			return f.keep(ctx)
		}
	}
}

// rest forgets how far it was while nobody is told: whoever is named later does
// not hear of what has been.
func (f *Feed) rest(ctx context.Context) error {
	f.begun = false
	f.mu.Lock()
	f.read, f.kept, f.waiting = 0, 0, nil
	f.mu.Unlock()
	if f.idle {
		return nil
	}
	b, err := f.o.Journal.Setting(ctx, settingFeed)
	if err == nil && len(b) > 0 {
		err = f.o.Journal.PutSetting(ctx, settingFeed, nil)
	}
	if err != nil && !errors.Is(err, fleet.ErrNotFound) {
		return fmt.Errorf("forget how far webhooks of events are: %w", err)
	}
	f.idle = true
	return nil
}

// begin finds where the last process was; a fleet that never told anybody
// begins with what comes next.
func (f *Feed) begin(ctx context.Context) error {
	b, err := f.o.Journal.Setting(ctx, settingFeed)
	switch {
	case err == nil && len(b) > 0:
		var at int64
		if err := json.Unmarshal(b, &at); err != nil {
			return fmt.Errorf("read how far webhooks of events are: %w", err)
		}
		f.at(at, at)
		return nil
	case err != nil && !errors.Is(err, fleet.ErrNotFound):
		return fmt.Errorf("read how far webhooks of events are: %w", err)
	}
	last, err := f.o.Journal.Events(ctx, fleet.EventFilter{Limit: 1, Last: true})
	if err != nil {
		return fmt.Errorf("read the last event: %w", err)
	}
	var at int64
	if len(last) > 0 {
		at = last[0].Seq
	}
	f.at(at, 0)
	return nil
}

func (f *Feed) at(read, kept int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read, f.kept = read, kept
}

// take reads a page of events; more tells whether to go on at once.
func (f *Feed) take(ctx context.Context, to []Endpoint) (more bool, err error) {
	f.mu.Lock()
	after, full := f.read, len(f.waiting) >= mostTold
	f.mu.Unlock()
	if full {
		return false, nil
	}
	var kinds []string
	for _, e := range to {
		kinds = append(kinds, e.Kinds...)
	}
	slices.Sort(kinds)
	const page = 100
	found, err := f.o.Journal.Events(ctx, fleet.EventFilter{After: after, Kinds: slices.Compact(kinds), Limit: page})
	if err != nil {
		return false, fmt.Errorf("read events: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ev := range found {
		f.read = max(f.read, ev.Seq)
		for _, e := range to {
			if slices.Contains(e.Kinds, ev.Kind) {
				f.waiting = append(f.waiting, waits{ev.Seq, f.notice(ev, e.URL)})
			}
		}
	}
	return len(found) == page, nil
}

func (f *Feed) notice(ev fleet.Event, url string) fleet.Notice {
	h := fnv.New32a()
	_, _ = h.Write([]byte(url)) // two endpoints of one event are two notices
	subject := ev.Layer
	for _, s := range []string{string(ev.Pool), string(ev.Node)} {
		if s != "" {
			subject += "/" + s
		}
	}
	return fleet.Notice{
		ID: fmt.Sprintf("%s/event/%d/%08x", f.o.Fleet, ev.Seq, h.Sum32()), Type: "dev.muster.fleet." + ev.Kind,
		Subject: subject, At: ev.At, URL: url, Data: ev,
	}
}

// keep writes down up to where everybody was told.
func (f *Feed) keep(ctx context.Context) error {
	f.mu.Lock()
	at := f.read
	for i := range f.waiting {
		at = min(at, f.waiting[i].seq-1)
	}
	same := at == f.kept
	f.mu.Unlock()
	if same {
		return nil
	}
	b, err := json.Marshal(at)
	if err != nil {
		return fmt.Errorf("write how far webhooks of events are: %w", err)
	}
	if err := f.o.Journal.PutSetting(ctx, settingFeed, b); err != nil {
		return fmt.Errorf("keep how far webhooks of events are: %w", err)
	}
	f.mu.Lock()
	f.kept = at
	f.mu.Unlock()
	return nil
}

// Notices implements [Notices].
func (f *Feed) Notices() []fleet.Notice {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]fleet.Notice, len(f.waiting))
	for i := range f.waiting {
		out[i] = f.waiting[i].notice
	}
	return out
}

// NoticeDone implements [Notices].
func (f *Feed) NoticeDone(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = slices.DeleteFunc(f.waiting, func(w waits) bool { return w.notice.ID == id })
	select {
	case f.moved <- struct{}{}:
	default:
	}
}

// Several are the notices of several, told of the end of all of them.
type Several []Notices

// Notices implements [Notices].
func (s Several) Notices() (out []fleet.Notice) {
	for _, n := range s {
		out = append(out, n.Notices()...)
	}
	return out
}

// NoticeDone implements [Notices].
func (s Several) NoticeDone(id string) {
	for _, n := range s {
		n.NoticeDone(id)
	}
}
