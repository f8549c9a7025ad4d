package tracing

import (
	"context"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"muster.dev/muster/internal/fleet"
)

// attempt is what is known of one attempt.
type attempt struct {
	number     int
	from, to   time.Time
	sandbox    fleet.SandboxID
	node       fleet.NodeID
	phases     []phase
	why        string // it failed; empty: it did not
	superseded bool   // another one followed
}

// phase is a part of an attempt.
type phase struct {
	name     string
	from, to time.Time
}

// trace makes the spans of a task.
func (t *Tracer) trace(ctx context.Context, task *fleet.Task) {
	attempts := append(t.earlier(ctx, task), last(task))
	attrs := []attribute.KeyValue{
		attribute.String("muster.task.id", string(task.ID)), attribute.String("muster.task.state", string(task.State)),
		attribute.String("muster.tenant", string(task.Spec.Tenant)), attribute.String("muster.template", task.Spec.Template),
		attribute.Int("muster.task.attempts", task.Attempt),
	}
	attrs = optional(attrs, "muster.task.name", task.Spec.Name)
	attrs = optional(attrs, "muster.task.reason", string(task.Result.Reason))
	if o := task.Spec.Origin; o != nil {
		attrs = append(attrs, attribute.String("messaging.system", o.Queue), attribute.String("messaging.message.id", o.Message))
	}
	ctx, root := t.span(submitter(ctx, task), task, "task", 0, task.SubmittedAt, attrs...)
	for i := range attempts {
		t.attempt(ctx, task, &attempts[i])
	}
	if task.State != fleet.TaskSucceeded {
		root.SetStatus(codes.Error, task.Result.Message)
	}
	root.End(trace.WithTimestamp(later(task.EndedAt, task.SubmittedAt)))
}

func (t *Tracer) attempt(ctx context.Context, task *fleet.Task, a *attempt) {
	attrs := []attribute.KeyValue{attribute.Int("muster.attempt", a.number)}
	attrs = optional(attrs, "muster.sandbox.id", string(a.sandbox))
	attrs = optional(attrs, "muster.node.id", string(a.node))
	if !a.superseded && a.sandbox != "" {
		attrs = optional(attrs, "muster.launch", string(task.Launch))
		attrs = append(attrs, attribute.Int("process.exit.code", task.Result.ExitCode))
	}
	ctx, span := t.span(ctx, task, "attempt", a.number, a.from, attrs...)
	for _, p := range a.phases {
		_, s := t.span(ctx, task, p.name, a.number, p.from)
		s.End(trace.WithTimestamp(later(p.to, p.from)))
	}
	if a.why != "" {
		span.SetStatus(codes.Error, a.why)
	}
	span.End(trace.WithTimestamp(later(a.to, a.from)))
}

// span begins one; its ids follow from the task, its name and the attempt.
func (t *Tracer) span(ctx context.Context, task *fleet.Task, name string, number int, from time.Time, attrs ...attribute.KeyValue) (context.Context, trace.Span) {
	shown := name
	if name == "attempt" {
		shown += " " + strconv.Itoa(number)
	}
	return t.tracer.Start(with(ctx, task, name, number), shown, trace.WithTimestamp(from), trace.WithAttributes(attrs...))
}

// last is the attempt that settled the task, from its record.
func last(task *fleet.Task) attempt {
	due := later(task.DueAt, task.SubmittedAt)
	end := later(task.EndedAt, due)
	a := attempt{number: max(1, task.Attempt), from: due, to: end, sandbox: task.Sandbox, node: task.Node}
	if task.State != fleet.TaskSucceeded {
		a.why = task.Result.Message
	}
	if task.ClaimedAt.Before(due) { // it never had a sandbox, or had one before a retry
		a.sandbox, a.node = "", ""
		a.phases = []phase{{"queue", due, end}}
		return a
	}
	p, at := &task.Phases, due
	add := func(name string, took time.Duration, from time.Time) {
		if !from.IsZero() {
			at = later(from, at)
		}
		if took <= 0 {
			return
		}
		to := at.Add(took)
		if to.After(end) {
			to = end
		}
		a.phases = append(a.phases, phase{name, at, to})
		at = to
	}
	add("queue", p.Queue, time.Time{})
	add("claim", p.Claim, time.Time{})
	add("start", p.Start, time.Time{})
	add("setup", p.Setup, task.StartedAt)
	add(fleet.SpanRun, p.Run, task.RunningAt)
	add("collect", p.Collect, time.Time{})
	return a
}

// earlier reads the attempts that were followed by another one.
func (t *Tracer) earlier(ctx context.Context, task *fleet.Task) []attempt {
	if task.Attempt < 2 {
		return nil
	}
	events, err := t.o.Journal.Events(ctx, fleet.EventFilter{Task: task.ID, Kinds: []string{"task_claimed", "task_retried"}, Limit: 1000})
	if err != nil {
		t.o.Logger.Warn("the earlier attempts of a task cannot be read and are missing in its trace", "task", task.ID, "error", err)
		return nil
	}
	var out []attempt
	for i := range events {
		e := &events[i]
		n := len(out)
		switch {
		case e.Kind == "task_claimed" && int(e.Numbers["attempt"]) < task.Attempt:
			due := e.At.Add(-time.Duration(e.Numbers["queueSeconds"] * float64(time.Second)))
			out = append(out, attempt{number: int(e.Numbers["attempt"]), from: due, to: e.At, sandbox: e.Sandbox, node: e.Node,
				phases: []phase{{"queue", due, e.At}}, why: "it did not end by itself", superseded: true})
		case e.Kind == "task_retried" && n > 0 && e.Sandbox == out[n-1].sandbox:
			a := &out[n-1]
			a.to, a.why = e.At, e.Reason
			a.phases = append(a.phases, phase{fleet.SpanRun, a.phases[0].to, e.At})
		}
	}
	return out
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func optional(attrs []attribute.KeyValue, key, value string) []attribute.KeyValue {
	if value == "" {
		return attrs
	}
	return append(attrs, attribute.String(key, value))
}
