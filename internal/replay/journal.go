package replay

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"muster.dev/muster/internal/fleet"
)

const (
	// format is the version of exported journals.
	format = 1
	// maxLine bounds a line; a decision of the largest fleet is a few megabytes.
	maxLine = 64 << 20
)

// line is one line of an exported journal: one member is set.
type line struct {
	Journal  *header        `json:"journal,omitempty"`
	Policy   *policyEntry   `json:"policy,omitempty"`
	Decision *decisionEntry `json:"decision,omitempty"`
	End      *ending        `json:"end,omitempty"`
}

type header struct {
	Format int `json:"format"`
}

type policyEntry struct {
	Digest string          `json:"digest"`
	Policy json.RawMessage `json:"policy"`
}

type decisionEntry struct {
	Seq         int64           `json:"seq"`
	At          time.Time       `json:"at"`
	Changed     bool            `json:"changed"`
	Version     int             `json:"version,omitempty"`
	Policy      string          `json:"policy,omitempty"`
	Observation json.RawMessage `json:"observation"`
	State       json.RawMessage `json:"state"`
	Plan        json.RawMessage `json:"plan"`
}

type ending struct {
	Decisions int `json:"decisions"`
}

// Writer exports a journal.
type Writer struct {
	to      *json.Encoder
	written map[string]bool // policies
	count   int
}

// NewWriter writes the header.
func NewWriter(w io.Writer) (*Writer, error) {
	x := &Writer{to: json.NewEncoder(w), written: map[string]bool{}}
	x.to.SetEscapeHTML(false) // every byte as it was journaled
	return x, x.put(line{Journal: &header{format}})
}

func (x *Writer) put(l line) error {
	if err := x.to.Encode(l); err != nil {
		return fmt.Errorf("export the journal: %w", err)
	}
	return nil
}

// Write writes a decision, and the policy it was made under when it is the
// first.
func (x *Writer) Write(ctx context.Context, d *fleet.DecisionRecord, src Source) error {
	if d.Policy != "" && !x.written[d.Policy] {
		p, err := src.Policy(ctx, d.Policy)
		if err != nil {
			return fmt.Errorf("export the policy of decision %d: %w", d.Seq, err)
		}
		if err := x.put(line{Policy: &policyEntry{d.Policy, p}}); err != nil {
			return err
		}
		x.written[d.Policy] = true
	}
	x.count++
	return x.put(line{Decision: &decisionEntry{
		Seq: d.Seq, At: d.At, Changed: d.Changed, Version: d.Version, Policy: d.Policy,
		Observation: d.Observation, State: d.State, Plan: d.Plan,
	}})
}

// Close writes the last line; it does not close what is written to.
func (x *Writer) Close() error { return x.put(line{End: &ending{x.count}}) }

// Reader is a Source that reads an exported journal. Its errors are
// *fleet.FieldError with the line.
type Reader struct {
	in       *bufio.Reader
	at       int   // the line
	last     int64 // Seq
	count    int
	policies map[string][]byte
}

// NewReader reads the header.
func NewReader(r io.Reader) (*Reader, error) {
	x := &Reader{in: bufio.NewReaderSize(r, 1<<16), policies: map[string][]byte{}}
	b, err := x.line()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	// Leniently, since a later format may say more.
	var first struct{ Journal *struct{ Format int } }
	if json.Unmarshal(b, &first) != nil || first.Journal == nil || first.Journal.Format < 1 {
		return nil, x.wrong("this is not an exported journal", `the first line {"journal":{"format":1}}, as muster replay --export writes it`)
	}
	if f := first.Journal.Format; f > format {
		return nil, x.wrong(fmt.Sprintf("format %d of the journal is newer than this muster, which knows format %d", f, format), "a muster as new as the one that exported it")
	}
	return x, nil
}

func (x *Reader) wrong(wrong, right string) error {
	return &fleet.FieldError{Line: max(1, x.at), Wrong: wrong, Right: right}
}

// line reads a line without its end; io.EOF when there is none.
func (x *Reader) line() ([]byte, error) {
	var out []byte
	for {
		part, err := x.in.ReadSlice('\n')
		out = append(out, part...)
		switch {
		case len(out) > maxLine:
			x.at++
			return nil, x.wrong("the line is longer than 64 MiB", "one decision a line")
		case err == nil:
			x.at++
			return out[:len(out)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(out) > 0:
			x.at++
			return out, nil
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		default:
			return nil, fmt.Errorf("read the journal: %w", err)
		}
	}
}

// Next implements Source.
func (x *Reader) Next(context.Context) (fleet.DecisionRecord, error) {
	for {
		b, err := x.line()
		if errors.Is(err, io.EOF) {
			x.at++
			return fleet.DecisionRecord{}, x.wrong("the journal is cut off: its last line is missing", "the whole file; export it again")
		}
		if err != nil {
			return fleet.DecisionRecord{}, err
		}
		l, err := x.parse(b)
		switch {
		case err != nil:
			return fleet.DecisionRecord{}, err
		case l.Decision != nil:
			return x.decision(l.Decision)
		case l.Policy != nil:
			if err := x.policy(l.Policy); err != nil {
				return fleet.DecisionRecord{}, err
			}
		case l.End != nil:
			return fleet.DecisionRecord{}, x.end(l.End)
		}
	}
}

func (x *Reader) parse(b []byte) (l line, err error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return l, x.wrong(fmt.Sprintf("this is no line of a journal: %v", err), "an object with policy, decision or end")
	}
	set := 0
	for _, is := range []bool{l.Policy != nil, l.Decision != nil, l.End != nil} {
		if is {
			set++
		}
	}
	if _, err := dec.Token(); set != 1 || l.Journal != nil || !errors.Is(err, io.EOF) {
		return l, x.wrong("this is no line of a journal", "one object with one of policy, decision or end")
	}
	return l, nil
}

func (x *Reader) policy(p *policyEntry) error {
	if digest := fleet.PolicyDigest(p.Policy); digest != p.Digest {
		return x.wrong(fmt.Sprintf("the policy is not the one that was exported: its digest is %s", digest), p.Digest+"; export the journal again")
	}
	x.policies[p.Digest] = p.Policy
	return nil
}

func (x *Reader) decision(d *decisionEntry) (fleet.DecisionRecord, error) {
	r := fleet.DecisionRecord{
		Seq: d.Seq, At: d.At, Changed: d.Changed, Version: d.Version, Policy: d.Policy,
		Observation: d.Observation, State: d.State, Plan: d.Plan,
	}
	switch {
	case d.Seq <= x.last:
		return r, x.wrong(fmt.Sprintf("decision %d comes after decision %d", d.Seq, x.last), "a seq that rises from line to line")
	case d.At.IsZero():
		return r, x.wrong(fmt.Sprintf("decision %d has no time", d.Seq), "at")
	case len(d.Observation) == 0 || len(d.State) == 0 || len(d.Plan) == 0:
		return r, x.wrong(fmt.Sprintf("decision %d is not whole", d.Seq), "observation, state and plan")
	case d.Version < 0:
		return r, x.wrong(fmt.Sprintf("decision %d has version %d", d.Seq, d.Version), "the version of the planner that decided")
	case d.Policy != "" && x.policies[d.Policy] == nil:
		return r, x.wrong(fmt.Sprintf("decision %d was made under policy %s, which the journal does not have", d.Seq, d.Policy), "a line with that policy before the first decision under it; export the journal again")
	}
	x.last = d.Seq
	x.count++
	return r, nil
}

// end returns io.EOF when the journal ends as it should.
func (x *Reader) end(e *ending) error {
	if e.Decisions != x.count {
		return x.wrong(fmt.Sprintf("%d decisions were exported and %d are here", e.Decisions, x.count), "the whole file; export it again")
	}
	if _, err := x.line(); !errors.Is(err, io.EOF) {
		return x.wrong("something follows the end of the journal", "one journal in a file")
	}
	return io.EOF
}

// Policy implements Source.
func (x *Reader) Policy(_ context.Context, digest string) ([]byte, error) {
	p, ok := x.policies[digest]
	if !ok {
		return nil, fmt.Errorf("policy %s: %w", digest, fleet.ErrNotFound)
	}
	return p, nil
}
