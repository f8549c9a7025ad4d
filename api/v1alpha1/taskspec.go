package v1alpha1

import (
	"maps"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// NewTaskSpec writes a resolved task as a user would, with every default
// filled in. Resolving it again in the same fleet gives the same task.
func NewTaskSpec(s fleet.TaskSpec) TaskSpec {
	retries := s.Retries.Max
	out := TaskSpec{
		Name: s.Name, Labels: maps.Clone(s.Labels), Template: s.Template,
		Prompt: s.Prompt, Command: nonNil(slices.Clone(s.Command)), Setup: slices.Clone(s.Setup),
		Env: maps.Clone(s.Env), Secrets: slices.Clone(s.Secrets), Image: s.Image,
		Resources: &Resources{
			CPUs: MilliQuantity(s.Resources.MilliCPU), Memory: BytesQuantity(s.Resources.MemoryBytes),
			Pids: int(s.Resources.Pids), Disk: BytesQuantity(s.Resources.DiskBytes),
			Files: int(s.Resources.Files), Log: BytesQuantity(s.Resources.LogBytes),
		},
		Network: &Network{
			Mode: string(s.Network.Mode), Allow: slices.Clone(s.Network.Allow), AllowPrivate: slices.Clone(s.Network.AllowPrivate),
		},
		Timeouts: &Timeouts{
			Queue: text(s.Timeouts.Queue), Startup: text(s.Timeouts.Startup),
			Run: text(s.Timeouts.Run), Idle: text(s.Timeouts.Idle),
		},
		Retries:  &Retries{Max: &retries, OnExit: s.Retries.OnExit, Backoff: text(s.Retries.Backoff)},
		Priority: s.Priority, Artifacts: slices.Clone(s.Artifacts), Webhook: s.Webhook,
		IdempotencyKey: s.IdempotencyKey,
	}
	out.Input = newTaskInput(s.Input)
	if s.Repo != nil {
		out.Repo = &Repo{URL: s.Repo.URL, Ref: s.Repo.Ref, Depth: s.Repo.Depth}
		or(&out.Repo.Depth, -1)
	}
	if s.MaxMicroUSD > 0 {
		out.Budget = &TaskBudget{MaxUSD: float64(s.MaxMicroUSD) / 1e6}
	}
	if !s.NotBefore.IsZero() {
		out.NotBefore = s.NotBefore.Format(time.RFC3339Nano)
	}
	return out
}
