package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// What others are to be told.
const (
	toldQueue = 1 << iota
	toldEvents
	toldBoxes
)

// between is the least time between two notifications: the server commits
// transactions that notify one after another.
const between = 5 * time.Millisecond

func (db *DB) channel() string { return db.server.Schema() }

// changed says that a transaction of this process was committed.
func (db *DB) changed(x exchange) {
	if !x.next.IsZero() {
		db.clock.expect(x.next)
	}
	if !x.seen() {
		return
	}
	var what uint32
	if x.woken {
		what |= toldQueue
	}
	if x.told {
		what |= toldEvents
	}
	if x.boxed {
		what |= toldBoxes
	}
	db.wakeUp(x)
	db.toTell.Or(what)
	poke(db.push)
}

// wakeUp wakes who waits in this process.
func (db *DB) wakeUp(x exchange) {
	if x.woken {
		poke(db.wake)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if x.told {
		for w := range db.watchers {
			poke(w)
		}
	}
	if x.boxed {
		for w := range db.boxWatchers {
			poke(w)
		}
	}
}

// heard is told of a notification.
func (db *DB) heard(payload string) {
	from, what, _ := strings.Cut(payload, " ")
	if from == db.label() {
		return
	}
	if what == "" {
		what = from
	}
	db.wakeUp(exchange{woken: strings.Contains(what, "q"), told: strings.Contains(what, "e"), boxed: strings.Contains(what, "s")})
}

// label tells this store's notifications from others'.
func (db *DB) label() string { return fmt.Sprintf("%016x", uint64(db.id)) } //nolint:gosec // the same bits

// keepPushing is the goroutine that tells the others. One that fails is made
// up for by their clocks.
func (db *DB) keepPushing() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-db.stopped:
			return
		case <-db.push:
		}
		select {
		case <-db.stopped:
			return
		case <-pause.C:
		}
		what := db.label() + " "
		told := db.toTell.Swap(0)
		if told&toldQueue != 0 {
			what += "q"
		}
		if told&toldEvents != 0 {
			what += "e"
		}
		if told&toldBoxes != 0 {
			what += "s"
		}
		_ = db.server.Notify(context.Background(), db.channel(), what)
		pause.Reset(between)
	}
}

// WakeEvents implements fleet.Journal.
func (db *DB) WakeEvents() (<-chan struct{}, func()) { return db.watch(db.watchers) }

// watch adds a channel to those that wakeUp wakes.
func (db *DB) watch(all map[chan struct{}]struct{}) (<-chan struct{}, func()) {
	w := make(chan struct{}, 1)
	db.mu.Lock()
	defer db.mu.Unlock()
	all[w] = struct{}{}
	return w, func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		delete(all, w)
	}
}
