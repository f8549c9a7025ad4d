package payload

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// Decoder makes tasks of messages for one fleet. It is safe for concurrent use.
type Decoder struct {
	fleet  *v1alpha1.Fleet
	how    v1alpha1.Payload
	format string
	expr   *vm.Program
}

// seen is what an expression sees of a message.
type seen struct {
	Text     string            `expr:"text"`     // the body as text; empty where it is none
	JSON     any               `expr:"json"`     // the body as JSON; nil where it is none
	Headers  map[string]string `expr:"headers"`  // or attributes
	ID       string            `expr:"id"`       // empty where the backend gives none
	Attempt  int               `expr:"attempt"`  // deliveries, this one included
	Enqueued time.Time         `expr:"enqueued"` // zero where it is not known
}

// New returns the decoder of a fleet that has passed validation. An expression
// that does not compile is a *fleet.FieldError.
func New(f *v1alpha1.Fleet) (*Decoder, error) {
	d := &Decoder{fleet: f, format: "task"}
	if p := f.Spec.Queue.Payload; p != nil {
		d.how = *p
		if p.Format != "" {
			d.format = p.Format
		}
	}
	switch d.format {
	case "bytes":
		if _, err := f.ResolveTaskAt("spec.queue.payload.task", *d.how.Task, time.Unix(0, 0)); err != nil {
			return nil, err
		}
	case "expr":
		var err error
		if d.expr, err = expr.Compile(d.how.Expr, expr.Env(seen{})); err != nil {
			return nil, &fleet.FieldError{Field: "spec.queue.payload.expr", Wrong: err.Error(), Right: "an expression that makes a task; see docs/queues"}
		}
	}
	return d, nil
}

// Pool is the pool that every message is for, where that is certain before
// one is read; else the first template's.
func (d *Decoder) Pool() fleet.PoolKey {
	if d.format == "bytes" {
		if s, err := d.fleet.ResolveTask(*d.how.Task, time.Unix(0, 0)); err == nil {
			return s.Pool
		}
	}
	return fleet.PoolKey(d.fleet.Spec.Templates[0].Name)
}

// Decode makes the task of a message that is read at now.
func (d *Decoder) Decode(m fleet.Message, now time.Time) (fleet.Task, error) {
	spec, err := d.spec(m)
	if err != nil {
		return fleet.Task{}, err
	}
	resolved, err := d.fleet.ResolveTask(spec, now)
	if err != nil {
		return fleet.Task{}, fmt.Errorf("the task is not right: %w", err)
	}
	if spec.Timeouts == nil || spec.Timeouts.Queue == "" {
		// How long a message may wait is its queue's business: a template's
		// default would end an old backlog unseen.
		resolved.Timeouts.Queue = 0
	}
	return fleet.Task{Spec: resolved, State: fleet.TaskQueued, SubmittedAt: now}, nil
}

func (d *Decoder) spec(m fleet.Message) (v1alpha1.TaskSpec, error) {
	switch d.format {
	case "bytes":
		spec := *d.how.Task
		spec.Input = input(m.Body)
		spec.Input.To, spec.Input.Name = d.how.To, d.how.Name
		return spec, nil
	case "expr":
		return d.evaluate(m)
	}
	return parse(m.Body)
}

// input is the body as an input: as text where it is text.
func input(b []byte) *v1alpha1.TaskInput {
	if utf8.Valid(b) {
		return &v1alpha1.TaskInput{Text: string(b)}
	}
	return &v1alpha1.TaskInput{Base64: base64.StdEncoding.EncodeToString(b)}
}

// evaluate runs the expression.
func (d *Decoder) evaluate(m fleet.Message) (v1alpha1.TaskSpec, error) {
	in := seen{Headers: m.Headers, ID: m.ID, Attempt: m.Attempt, Enqueued: m.At}
	if utf8.Valid(m.Body) {
		in.Text = string(m.Body)
		_ = json.Unmarshal(m.Body, &in.JSON) // nil says that it is none
	}
	v, err := expr.Run(d.expr, in)
	if err != nil {
		return v1alpha1.TaskSpec{}, fmt.Errorf("spec.queue.payload.expr cannot be evaluated for this message: %w: %w", fleet.ErrInvalid, err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return v1alpha1.TaskSpec{}, fmt.Errorf("spec.queue.payload.expr makes what cannot be a task: %w: %w", fleet.ErrInvalid, err)
	}
	spec, err := parse(b)
	if err != nil {
		err = fmt.Errorf("spec.queue.payload.expr makes no task: %w", err)
	}
	return spec, err
}

// parse reads a task: its spec alone, or a document of kind Task.
func parse(b []byte) (v1alpha1.TaskSpec, error) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return v1alpha1.TaskSpec{}, &fleet.FieldError{Field: "message", Wrong: "is empty", Right: `a task such as {"command": ["sh", "-c", "echo hi"]}`}
	}
	if !utf8.Valid(b) {
		return v1alpha1.TaskSpec{}, &fleet.FieldError{Field: "message", Wrong: "is not text", Right: "a task as JSON or YAML, or spec.queue.payload.format: bytes"}
	}
	var head struct {
		Kind *string `json:"kind"`
	}
	if json.Unmarshal(b, &head) == nil && b[0] == '{' && head.Kind == nil {
		var spec v1alpha1.TaskSpec
		return spec, v1alpha1.DecodeJSON(b, &spec)
	}
	docs, err := v1alpha1.ParseDocuments(b)
	if err != nil {
		return v1alpha1.TaskSpec{}, notATask(err)
	}
	t, ok := docs[0].(*v1alpha1.Task)
	if !ok || len(docs) != 1 {
		return v1alpha1.TaskSpec{}, &fleet.FieldError{Field: "message", Wrong: "is not one task", Right: "one task"}
	}
	return t.Spec, nil
}

// notATask says what would be right where the message was never meant to be a
// task.
func notATask(err error) error {
	var fe *fleet.FieldError
	if errors.As(err, &fe) && (fe.Field == "kind" || fe.Field == "document") || !errors.Is(err, fleet.ErrInvalid) {
		return fmt.Errorf("the message is not a task as JSON or YAML (for other payloads see spec.queue.payload): %w: %w", fleet.ErrInvalid, err)
	}
	return err
}
