package oci

import (
	"fmt"
	"hash/fnv"
	"sync"

	"muster.dev/muster/internal/fleet"
)

// Each sandbox has 65,536 user and group ids of its own on the host, so that
// not even a process that got out of one could touch another. They lie between
// a billion and 2^31, where no distribution hands out any.
const (
	rangeSize  = 65536
	rangeBase  = 1_000_000_000
	rangeCount = (1<<31 - rangeBase) / rangeSize // 17,508
	agentUID   = 1000
)

// ranges hands out id ranges, each to one sandbox at a time.
type ranges struct {
	mu   sync.Mutex
	used map[int]bool
	next int
}

// newRanges begins at a place that depends on the seed, as several fleets on
// one machine do not know of each other.
func newRanges(seed string) *ranges {
	h := fnv.New32a()
	_, _ = h.Write([]byte(seed))
	return &ranges{used: map[int]bool{}, next: int(h.Sum32() % rangeCount)}
}

// take returns the first id of a free range.
func (r *ranges) take() (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range rangeCount {
		base := rangeBase + r.next*rangeSize
		r.next = (r.next + 1) % rangeCount
		if !r.used[base] && base != sharedBase {
			r.used[base] = true
			return base, nil
		}
	}
	return 0, fmt.Errorf("all %d user id ranges are taken: %w", rangeCount, fleet.ErrFull)
}

// hold marks a range as taken by a sandbox found on disk.
func (r *ranges) hold(base int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used[base] = true
}

func (r *ranges) give(base int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.used, base)
}
