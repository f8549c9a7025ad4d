package oci

import (
	"errors"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// meter turns readings of counters into what must be remembered between them:
// memory over time, that a disk was full once, and what a task found when it
// began.
type meter struct {
	mu       sync.Mutex
	last     fleet.Usage
	base     fleet.Usage // when the task began
	bytesSec float64
	watching bool
	rateFrom fleet.Usage // the reading that the rate of cpu is measured from
	rate     int64       // thousandths of a processor
}

// rateOver is the least time over which a rate of cpu is measured.
const rateOver = 200 * time.Millisecond

// add completes a reading by what is remembered, and remembers it.
func (m *meter) add(u fleet.Usage, began time.Time) fleet.Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last.At.IsZero() { // new, or adopted: what it holds now it held all along
		m.bytesSec = float64(u.MemoryBytes) * max(0, u.At.Sub(began).Seconds())
	} else if u.At.After(m.last.At) {
		// The trapezoid over the time since the last reading.
		mean := float64(u.MemoryBytes+m.last.MemoryBytes) / 2
		m.bytesSec += mean * u.At.Sub(m.last.At).Seconds()
	}
	if dt := u.At.Sub(m.rateFrom.At); m.rateFrom.At.IsZero() {
		m.rateFrom = u
	} else if dt >= rateOver {
		m.rate = int64(max(0, 1000*(u.CPU-m.rateFrom.CPU)) / dt)
		m.rateFrom = u
	}
	u.MilliCPUNow = m.rate
	u.MemoryByteSeconds = int64(m.bytesSec)
	u.DiskFull = u.DiskFull || m.last.DiskFull
	u.PidsPeak = max(u.PidsPeak, m.last.PidsPeak)
	u.DiskBytes = max(u.DiskBytes, 0)
	m.last = u
	return u
}

func (m *meter) latest() (fleet.Usage, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last, !m.last.At.IsZero()
}

// claimed marks the beginning of a task: what happened before is not its
// doing.
func (m *meter) claimed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.watching {
		return
	}
	m.base = m.last
}

// beginWatch is true the first time.
func (m *meter) beginWatch() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.watching
	m.watching = true
	return !was
}

// verdict names the limit that a failed task ran into, if it did. Memory
// comes first: a program killed for it may have filled the disk as well, but
// did not die of that.
func (m *meter) verdict(u fleet.Usage) (fleet.TaskReason, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case u.OOMKills > m.base.OOMKills:
		return fleet.ReasonOOM, errors.New("the memory limit was reached and the kernel killed a process (resources.memory)")
	case u.DiskFull && !m.base.DiskFull:
		return fleet.ReasonDisk, errors.New("the writable disk was full (resources.disk)")
	case u.PidsDenied > m.base.PidsDenied:
		return fleet.ReasonPids, errors.New("the limit on processes and threads was reached (resources.pids)")
	}
	return fleet.ReasonNone, nil
}
