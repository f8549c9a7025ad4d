package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// progress is a bar on standard error while something takes long; nothing
// where that is no terminal.
type progress struct {
	mu     sync.Mutex
	file   *os.File // nil: silent
	now    func() time.Time
	began  time.Time
	shown  time.Time
	drawn  bool
	label  string
	of     float64
	shares map[string]float64
}

// patientFor is how long a command may take before it shows a bar, redrawEvery
// how often the bar moves.
const (
	patientFor  = 500 * time.Millisecond
	redrawEvery = 100 * time.Millisecond
)

func newProgress(s *shell) *progress {
	p := &progress{now: s.now, began: s.now()}
	p.file, _ = s.terminal(s.errs)
	return p
}

// stage begins a part of the work that n parts add up to.
func (p *progress) stage(label string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.label, p.of, p.shares = label, float64(n), map[string]float64{}
}

// tell says how far one part is.
func (p *progress) tell(part string, share float64) {
	if p.file == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shares[part] = share
	now := p.now()
	if now.Sub(p.began) < patientFor || now.Sub(p.shown) < redrawEvery {
		return
	}
	p.shown, p.drawn = now, true
	sum := 0.0
	for _, v := range p.shares {
		sum += v
	}
	share = min(1, sum/max(1, p.of))
	const width = 30
	full := int(share * width)
	_, _ = fmt.Fprintf(p.file, "\r\x1b[K%s %s%s %3.0f%%", p.label, strings.Repeat("█", full), strings.Repeat("░", width-full), 100*share)
}

// done takes the bar away.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn {
		_, _ = fmt.Fprint(p.file, "\r\x1b[K")
		p.drawn = false
	}
}
