package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func newTaskCommand(s *shell) *cobra.Command {
	var out *outputFlag
	c := &cobra.Command{
		Use:               "task ID",
		Short:             "Show one task",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeTask(s, nil),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, id, err := s.task(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer cl.Close()
			t, err := cl.Task(cmd.Context(), id)
			if err != nil {
				return err
			}
			if t.State == fleet.TaskRunning && t.Usage == nil {
				// Live figures are an extra: without them the rest still stands.
				if u, err := cl.Usage(cmd.Context(), id); err == nil {
					t.Usage = &u
				}
			}
			if done, err := out.structured(s, t); done {
				return err
			}
			waits := ""
			if t.State == fleet.TaskQueued {
				if v, err := cl.Explain(cmd.Context(), id); err == nil { // an extra, too
					waits = v.Summary
				}
			}
			printTask(s, t, waits)
			return nil
		},
	}
	out = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}

// printTask shows a task; waits says why it is still queued.
func printTask(s *shell, t v1alpha1.TaskView, waits string) {
	s.printf("%s  %s\n", terminal.Escape(label(t)), s.styled(string(t.State), stateStyle(t.State)))
	if w := why(t); w != "" {
		s.printf("%s\n", terminal.EscapeLines(w))
	}
	if waits != "" {
		s.printf("%s\n", terminal.EscapeLines(waits))
	}
	s.printf("\n")
	s.fields(
		[2]string{"labels", labels(t.Labels)},
		[2]string{"tenant", string(t.Tenant)},
		[2]string{"pool", string(t.Pool)},
		[2]string{"command", quoted(t.Spec.Command)},
		[2]string{"repo", repoText(t.Spec.Repo)},
		[2]string{"from", originText(t.Origin)},
		[2]string{"submitted", clock(t.SubmittedAt)},
		[2]string{"due", dueText(t)},
		[2]string{"started", startedText(t)},
		[2]string{"ended", clock(t.EndedAt)},
		[2]string{"took", phasesText(t.Phases)},
		[2]string{"exit", taskCode(t)},
		[2]string{"attempts", attemptsText(t)},
		[2]string{"sandbox", placeText(t)},
		[2]string{"cancelled by", t.CancelledBy},
		[2]string{"used", usageText(t.Usage)},
		[2]string{"cost", costText(t.Cost)},
		[2]string{"models", modelText(t.Model)},
		[2]string{"log", sizeText(t.LogBytes, t.LogDropped)},
		[2]string{"patch", patchText(t)},
		[2]string{"artifacts", artifactsText(t)},
	)
}

// quoted prints a command so that it could be pasted into a shell.
func quoted(command []string) string {
	parts := make([]string, len(command))
	for i, a := range command {
		if a != "" && strings.Trim(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%") == "" {
			parts[i] = a
			continue
		}
		parts[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(parts, " ")
}

func repoText(r *v1alpha1.Repo) string {
	if r == nil {
		return ""
	}
	if r.Ref == "" {
		return r.URL
	}
	return r.URL + " at " + r.Ref
}

// originText names the message a task was made from.
func originText(o *fleet.Origin) string {
	if o == nil {
		return ""
	}
	return fmt.Sprintf("queue %s, message %s", o.Queue, o.Message)
}

func dueText(t v1alpha1.TaskView) string {
	if t.DueAt.Sub(t.SubmittedAt) < time.Millisecond {
		return ""
	}
	return clock(t.DueAt)
}

func startedText(t v1alpha1.TaskView) string {
	if t.StartedAt.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s, %s after it was due (%s)", clock(t.StartedAt), terminal.Age(t.StartedAt.Sub(t.DueAt)), t.Launch)
}

func phasesText(p v1alpha1.PhasesView) string {
	var parts []string
	for _, ph := range []struct {
		name string
		took float64
	}{{"queue", p.QueueSeconds}, {"claim", p.ClaimSeconds}, {"start", p.StartSeconds}, {"setup", p.SetupSeconds}, {"run", p.RunSeconds}, {"collect", p.CollectSeconds}} {
		if ph.took > 0 {
			parts = append(parts, ph.name+" "+seconds(ph.took))
		}
	}
	return strings.Join(parts, ", ")
}

func attemptsText(t v1alpha1.TaskView) string {
	if t.Attempt <= 1 {
		return ""
	}
	return strconv.Itoa(t.Attempt)
}

func placeText(t v1alpha1.TaskView) string {
	if t.Sandbox == "" || t.Node == "" {
		return string(t.Sandbox)
	}
	return string(t.Sandbox) + " on " + string(t.Node)
}

func usageText(u *v1alpha1.UsageView) string {
	if u == nil {
		return ""
	}
	parts := []string{
		fmt.Sprintf("cpu %.2fs", u.CPUSeconds),
		"memory peak " + terminal.Bytes(u.MemoryPeakBytes),
	}
	if u.PidsPeak > 0 {
		parts = append(parts, fmt.Sprintf("processes at most %d", u.PidsPeak))
	}
	if u.DiskBytes > 0 {
		parts = append(parts, "disk "+terminal.Bytes(u.DiskBytes))
	}
	if n := u.NetSentBytes + u.NetReceivedBytes; n > 0 {
		parts = append(parts, "network "+terminal.Bytes(n))
	}
	if u.CPUThrottledSeconds > 0.01 {
		parts = append(parts, fmt.Sprintf("throttled %.2fs", u.CPUThrottledSeconds))
	}
	return strings.Join(parts, ", ")
}

func sizeText(n, dropped int64) string {
	if n == 0 && dropped == 0 {
		return ""
	}
	if dropped > 0 {
		return fmt.Sprintf("%s; %s beyond the limit were dropped", terminal.Bytes(n), terminal.Bytes(dropped))
	}
	return terminal.Bytes(n)
}

// patchNote says why there is no patch, without saying that there is none.
func patchNote(t v1alpha1.TaskView) string { return strings.TrimPrefix(t.PatchNote, "no patch: ") }

func patchText(t v1alpha1.TaskView) string {
	if t.PatchBytes == 0 {
		if t.PatchNote == "" {
			return ""
		}
		return "none: " + patchNote(t)
	}
	text := fmt.Sprintf("%s; muster patch %s", terminal.Bytes(t.PatchBytes), t.ID)
	if t.PatchNote != "" {
		text += " (" + t.PatchNote + ")"
	}
	return text
}

func artifactsText(t v1alpha1.TaskView) string {
	if len(t.Artifacts) == 0 {
		return t.ArtifactNote
	}
	names := make([]string, 0, len(t.Artifacts))
	for _, a := range t.Artifacts {
		names = append(names, a.Path)
	}
	if len(names) > 5 {
		names = append(names[:5], fmt.Sprintf("and %d more", len(t.Artifacts)-5))
	}
	text := strings.Join(names, ", ")
	if t.ArtifactNote != "" {
		text += " (" + t.ArtifactNote + ")"
	}
	return text
}
