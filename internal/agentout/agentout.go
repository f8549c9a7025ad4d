package agentout

import (
	"bytes"
	"encoding/json"
	"math"

	"muster.dev/muster/internal/fleet"
)

// MaxLine bounds a line, in bytes; a longer one is passed over.
const MaxLine = 4 << 20

const (
	maxTokens = int64(1e12) // of a task, at most; more is nonsense
	maxUSD    = 1e6         // likewise
	maxThings = 10_000      // reports, and threads, that are told apart
)

// Reader takes the output of an agent in pieces. The zero value is ready.
type Reader struct {
	line []byte
	skip bool // the line is too long
	sum  fleet.ModelUse

	seen    map[string]bool  // reports of claude, by their uuid
	threads map[string]codex // what each has used so far
	thread  string
}

// Write takes a piece; it never fails.
func (r *Reader) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		piece := p
		if end >= 0 {
			piece = p[:end]
		}
		if len(r.line)+len(piece) > MaxLine {
			r.skip = true
		} else if !r.skip && (len(r.line) > 0 || opens(piece)) {
			r.line = append(r.line, piece...)
		} else if len(bytes.TrimSpace(piece)) > 0 {
			r.skip = true // it begins as no object does
		}
		if end < 0 {
			break
		}
		r.endLine()
		p = p[end+1:]
	}
	return n, nil
}

// opens tells what an object or a list may begin with.
func opens(piece []byte) bool {
	t := bytes.TrimLeft(piece, " \t\r")
	return len(t) > 0 && (t[0] == '{' || t[0] == '[')
}

func (r *Reader) endLine() {
	if !r.skip && len(r.line) > 0 && telling(r.line) {
		r.take(bytes.TrimSpace(r.line))
	}
	r.line, r.skip = r.line[:0], false
}

// telling tells the few lines that matter from the many that do not, without
// decoding them.
func telling(line []byte) bool {
	return bytes.Contains(line, []byte(`"type"`)) &&
		(bytes.Contains(line, []byte(`"result"`)) || bytes.Contains(line, []byte(`"turn.completed"`)) || bytes.Contains(line, []byte(`"thread.started"`)))
}

// Use is what was reported by the end of the output; nil where nothing was.
func (r *Reader) Use() *fleet.ModelUse {
	r.endLine() // the last one may have no end
	for _, t := range r.threads {
		r.sum.InputTokens += t.input - t.cached
		r.sum.CacheReadTokens += t.cached
		r.sum.OutputTokens += t.output
	}
	r.threads = nil
	if r.sum.Reports == 0 {
		return nil
	}
	out := r.sum
	for _, n := range []*int64{&out.InputTokens, &out.OutputTokens, &out.CacheReadTokens, &out.CacheWriteTokens} {
		*n = min(*n, maxTokens)
	}
	out.MicroUSD = min(out.MicroUSD, maxUSD*1e6)
	return &out
}

// event is what is looked at of a line.
type event struct {
	Type       string              `json:"type"`
	UUID       string              `json:"uuid"`
	ThreadID   string              `json:"thread_id"`
	TotalCost  *float64            `json:"total_cost_usd"`
	Usage      *usage              `json:"usage"`
	ModelUsage map[string]modelUse `json:"modelUsage"`
}

type usage struct {
	Input      number `json:"input_tokens"`
	Output     number `json:"output_tokens"`
	CacheRead  number `json:"cache_read_input_tokens"`
	CacheWrite number `json:"cache_creation_input_tokens"`
	Cached     number `json:"cached_input_tokens"` // codex: a part of the input
}

type modelUse struct {
	Input      number `json:"inputTokens"`
	Output     number `json:"outputTokens"`
	CacheRead  number `json:"cacheReadInputTokens"`
	CacheWrite number `json:"cacheCreationInputTokens"`
}

// number is a count; what is no sensible one is 0.
type number int64

// UnmarshalJSON implements json.Unmarshaler; it never fails.
func (n *number) UnmarshalJSON(b []byte) error {
	var f float64
	if json.Unmarshal(b, &f) == nil && f >= 0 && f <= float64(maxTokens) {
		*n = number(f)
	}
	return nil
}

func (r *Reader) take(line []byte) {
	if line[0] == '[' {
		var list []json.RawMessage
		if json.Unmarshal(line, &list) != nil {
			return
		}
		for _, one := range list {
			if telling(one) {
				r.event(one)
			}
		}
		return
	}
	r.event(line)
}

func (r *Reader) event(raw []byte) {
	var e event
	if json.Unmarshal(raw, &e) != nil || r.sum.Reports >= maxThings {
		return
	}
	switch e.Type {
	case "result":
		r.result(&e)
	case "thread.started":
		r.thread = e.ThreadID
	case "turn.completed":
		if e.Usage != nil {
			r.turn(e.Usage)
		}
	}
}

// result takes a report of claude. Each is of one call, also of those in one
// session.
func (r *Reader) result(e *event) {
	if e.Usage == nil && e.TotalCost == nil {
		return // somebody else's
	}
	if e.UUID != "" {
		if r.seen[e.UUID] {
			return // the output has it twice
		}
		if r.seen == nil {
			r.seen = map[string]bool{}
		}
		r.seen[e.UUID] = true
	}
	s := &r.sum
	s.Reports++
	if c := e.TotalCost; c != nil && *c >= 0 && *c <= maxUSD {
		s.Priced++
		s.MicroUSD += int64(math.Round(*c * 1e6))
	}
	// modelUsage has the smaller models that help, too.
	if len(e.ModelUsage) > 0 {
		for _, m := range e.ModelUsage {
			count(s, m.Input, m.Output, m.CacheRead, m.CacheWrite)
		}
		return
	}
	if u := e.Usage; u != nil {
		count(s, u.Input, u.Output, u.CacheRead, u.CacheWrite)
	}
}

func count(s *fleet.ModelUse, input, output, read, write number) {
	s.InputTokens += int64(input)
	s.OutputTokens += int64(output)
	s.CacheReadTokens += int64(read)
	s.CacheWriteTokens += int64(write)
}

// codex is what a thread has used.
type codex struct{ input, cached, output int64 }

// turn takes a report of codex, which is of its thread so far. One that is less
// than the last of the same thread is of another process that went on with it
// and counts from there.
func (r *Reader) turn(u *usage) {
	r.sum.Reports++
	now := codex{int64(u.Input), min(int64(u.Cached), int64(u.Input)), int64(u.Output)}
	if r.threads == nil {
		r.threads = map[string]codex{}
	}
	was, known := r.threads[r.thread]
	if known && (now.input < was.input || now.output < was.output) {
		now = codex{was.input + now.input, was.cached + now.cached, was.output + now.output}
	}
	r.threads[r.thread] = now
}
