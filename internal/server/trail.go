package server

import (
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// trailKept bounds the readings that are kept of a sandbox: 40 of them, 1.6 KB,
// are the last 80 seconds of one that is looked at.
const trailKept = 40

// point is one reading of a sandbox.
type point struct {
	at       int64 // milliseconds since 1970
	milliCPU int64
	memory   int64
	pids     int64
	io       int64 // bytes a second, read and written
}

// trail is what a sandbox used of late, and the newest reading in full.
type trail struct {
	last   fleet.Usage
	read   time.Time // when last was; zero: never
	points []point   // oldest first
}

// add takes a reading. One that another process made for the last reading, too,
// gives a point all the same: the line goes on.
func (t *trail) add(u fleet.Usage, now time.Time) {
	p := point{at: now.UnixMilli(), milliCPU: u.MilliCPUNow, memory: u.MemoryBytes, pids: u.Pids}
	if took := now.Sub(t.read); !t.read.IsZero() && took > 0 {
		moved := u.IOReadBytes + u.IOWriteBytes - t.last.IOReadBytes - t.last.IOWriteBytes
		p.io = max(0, int64(float64(moved)/took.Seconds()))
	}
	if len(t.points) == trailKept {
		copy(t.points, t.points[1:])
		t.points = t.points[:trailKept-1]
	}
	t.points = append(t.points, p)
	t.last, t.read = u, now
}

// io is the rate of the newest reading, in bytes a second.
func (t *trail) io() int64 {
	if len(t.points) == 0 {
		return 0
	}
	return t.points[len(t.points)-1].io
}

func (t *trail) view() *v1alpha1.SandboxTrail {
	n := len(t.points)
	v := &v1alpha1.SandboxTrail{At: make([]int64, n), CPU: make([]float64, n), Memory: make([]int64, n), Pids: make([]int64, n), IOBytes: make([]int64, n)}
	for i, p := range t.points {
		v.At[i], v.CPU[i], v.Memory[i], v.Pids[i], v.IOBytes[i] = p.at, float64(p.milliCPU)/1000, p.memory, p.pids, p.io
	}
	return v
}
