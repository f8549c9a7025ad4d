package tracing

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"muster.dev/muster/internal/fleet"
)

// mostWaiting bounds tasks whose spans are still to be made.
const mostWaiting = 4096

// Options are what a Tracer works with; every field is needed.
type Options struct {
	Journal fleet.Journal // earlier attempts are read from it
	Fleet   string        // its name
	Version string        // of the program
	Logger  *slog.Logger
}

// Tracer makes the spans of tasks that are final.
type Tracer struct {
	o        Options
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	tasks    chan fleet.Task
}

// Enabled reports whether the environment asks for traces. An environment that
// asks for what there is not is a *fleet.FieldError.
func Enabled(getenv func(string) string) (bool, error) {
	one := func(name string) string {
		if v := getenv("OTEL_EXPORTER_OTLP_TRACES_" + name); v != "" {
			return v
		}
		return getenv("OTEL_EXPORTER_OTLP_" + name)
	}
	exporter := getenv("OTEL_TRACES_EXPORTER")
	if one("ENDPOINT") == "" || strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || exporter == "none" {
		return false, nil
	}
	if exporter != "" && exporter != "otlp" {
		return false, &fleet.FieldError{Field: "OTEL_TRACES_EXPORTER", Wrong: fmt.Sprintf("%q is not supported", exporter), Right: "otlp or none"}
	}
	if p := one("PROTOCOL"); p != "" && p != "http/protobuf" {
		return false, &fleet.FieldError{Field: "OTEL_EXPORTER_OTLP_PROTOCOL", Wrong: fmt.Sprintf("%q is not supported", p), Right: "http/protobuf, for which collectors listen on port 4318"}
	}
	return true, nil
}

// Open returns a Tracer that is configured by the environment; Run exports.
// It does not connect: an endpoint that is down is tried again, and costs spans
// and nothing else.
func Open(ctx context.Context, o Options) (*Tracer, error) {
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the exporter of traces: %w", err)
	}
	r, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "muster"), attribute.String("service.version", o.Version), attribute.String("muster.fleet", o.Fleet),
	), resource.WithTelemetrySDK(), resource.WithFromEnv()) // what users set counts
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("describe the source of traces: %w", err)
	}
	return open(o, r, sdk.WithBatcher(told{exporter, o.Logger})), nil
}

func open(o Options, r *resource.Resource, to sdk.TracerProviderOption) *Tracer {
	p := sdk.NewTracerProvider(to, sdk.WithResource(r), sdk.WithIDGenerator(given{}))
	return &Tracer{o: o, provider: p, tracer: p.Tracer("muster.dev/muster"), tasks: make(chan fleet.Task, mostWaiting)}
}

// told logs exports that fail; the SDK would tell a global handler.
type told struct {
	sdk.SpanExporter
	log *slog.Logger
}

// ExportSpans implements sdk.SpanExporter.
func (t told) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if err := t.SpanExporter.ExportSpans(ctx, spans); err != nil {
		t.log.Warn("traces were not exported", "spans", len(spans), "error", err)
	}
	return nil
}

// Settled takes a task that is final. It does not block: beyond 4096 tasks that
// wait, the trace is dropped.
func (t *Tracer) Settled(task fleet.Task) {
	select {
	case t.tasks <- task:
	default:
		t.o.Logger.Warn("too many tasks ended at once: the trace of one is dropped", "task", task.ID)
	}
}

// Run makes spans until ctx ends; then it exports what is left, for at most 5 s.
func (t *Tracer) Run(ctx context.Context) error {
	for {
		select {
		case task := <-t.tasks:
			t.trace(context.WithoutCancel(ctx), &task)
			continue
		case <-ctx.Done():
		}
		break
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for len(t.tasks) > 0 && end.Err() == nil {
		task := <-t.tasks
		t.trace(end, &task)
	}
	if err := t.provider.Shutdown(end); err != nil {
		t.o.Logger.Warn("the last traces were not exported", "error", err)
	}
	return nil
}

// given makes the ids that a context says.
type given struct{}

type givenKey struct{}

type ids struct {
	trace trace.TraceID
	span  trace.SpanID
}

// with lets the next span have these ids.
func with(ctx context.Context, task *fleet.Task, name string, attempt int) context.Context {
	var x ids
	_, _ = hex.Decode(x.trace[:], []byte(task.TraceID()))
	_, _ = hex.Decode(x.span[:], []byte(task.SpanID(name, attempt)))
	return context.WithValue(ctx, givenKey{}, x)
}

// NewIDs implements sdk.IDGenerator.
func (given) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	x, _ := ctx.Value(givenKey{}).(ids)
	return x.trace, x.span
}

// NewSpanID implements sdk.IDGenerator.
func (given) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	x, _ := ctx.Value(givenKey{}).(ids)
	return x.span
}

// submitter is a context in which spans belong to the task's submitter, if it
// has sent where.
func submitter(ctx context.Context, task *fleet.Task) context.Context {
	id, span, sampled := task.Spec.Trace.IDs()
	if id == "" {
		return ctx
	}
	var c trace.SpanContextConfig
	c.TraceID, _ = trace.TraceIDFromHex(id)
	c.SpanID, _ = trace.SpanIDFromHex(span)
	c.TraceState, _ = trace.ParseTraceState(task.Spec.Trace.State)
	c.TraceFlags = c.TraceFlags.WithSampled(sampled)
	c.Remote = true
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(c))
}
