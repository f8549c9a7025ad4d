package gateway

import (
	"sync"
	"time"
)

// usage remembers which pods have got their session, for one to two days: no
// identity of a sandbox is valid for so long.
type usage struct {
	now func() time.Time

	mu        sync.Mutex
	turned    time.Time
	cur, prev map[string]struct{}
}

const usageKept = 24 * time.Hour

func newUsage(now func() time.Time) *usage {
	return &usage{now: now, turned: now(), cur: map[string]struct{}{}}
}

func (u *usage) turn() {
	if now := u.now(); now.Sub(u.turned) >= usageKept {
		u.prev, u.cur, u.turned = u.cur, map[string]struct{}{}, now
	}
}

func (u *usage) mark(uid string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.turn()
	u.cur[uid] = struct{}{}
}

func (u *usage) has(uid string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.turn()
	_, cur := u.cur[uid]
	_, prev := u.prev[uid]
	return cur || prev
}

func (u *usage) forget(uid string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.cur, uid)
	delete(u.prev, uid)
}
