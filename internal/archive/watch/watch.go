// Package watch is who waits for more of which log; the archives share it. It
// imports the standard library only.
package watch

import "sync"

// Watchers are the channels of those who watch, by what they watch. Whoever
// holds it guards it by a lock.
type Watchers[K comparable] map[K]map[chan struct{}]struct{}

// Watch adds a watcher of k, whose channel holds one value at most, and returns
// what removes it. Both take mu, which guards w.
func (w Watchers[K]) Watch(mu *sync.Mutex, k K) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	mu.Lock()
	defer mu.Unlock()
	if w[k] == nil {
		w[k] = map[chan struct{}]struct{}{}
	}
	w[k][c] = struct{}{}
	return c, func() {
		mu.Lock()
		defer mu.Unlock()
		delete(w[k], c)
		if len(w[k]) == 0 {
			delete(w, k)
		}
	}
}

// Wake wakes the watchers of k; the lock must be held.
func (w Watchers[K]) Wake(k K) {
	for c := range w[k] {
		Poke(c)
	}
}

// Poke puts a value into a channel of one, where there is none.
func Poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
