// Package tracing exports a trace of every task by OTLP over HTTP (an adapter
// of OpenTelemetry's SDK):
//
//	task
//	└── attempt 1, 2, …
//	    └── queue ─▶ claim ─▶ start ─▶ setup ─▶ run ─▶ collect
//
// Spans are made from a task's record when it is final, and not while it runs:
// the store knows when each phase began, so that a restart of the control plane
// loses none, nothing is held in memory for a running task, and tasks run as
// fast as without. Earlier attempts are read from the journal. Ids follow from
// the task's, see fleet.Task.TraceID.
//
// It is configured by the variables that OpenTelemetry specifies
// (OTEL_EXPORTER_OTLP_ENDPOINT and others) and off without them. It may import
// package fleet.
package tracing
