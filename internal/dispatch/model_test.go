package dispatch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
)

// What an agent reports of its models is on the task, over all its attempts,
// and also where it failed or was ended.
func TestModelUseIsKept(t *testing.T) {
	const report = `{"type":"result","total_cost_usd":0.25,"usage":{"input_tokens":10,"output_tokens":20}}`
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fake.Options{Script: func(ctx context.Context, run *fake.Run) fleet.RunReport {
			run.Running()
			run.Print(fleet.StreamStdout, "working\n"+report+"\n")
			if run.Assignment.Timeouts.Run == time.Minute {
				if err := run.Sleep(ctx, time.Hour); err != nil {
					return fleet.RunReport{Reason: fleet.ReasonTimeoutRun, ExitCode: -1, Signal: "SIGTERM"}
				}
			}
			return fleet.RunReport{Reason: fleet.ReasonExit, ExitCode: 1}
		}}, 3)
		r.start()
		defer r.end()
		for name, attempts := range map[string]int64{"once": 1, "retried": 3, "hangs": 1} {
			id := r.submit(func(s *fleet.TaskSpec) {
				if s.Name = name; name == "hangs" {
					s.Timeouts.Run = time.Minute
				}
				s.Retries = fleet.RetryPolicy{Max: int(attempts) - 1, OnExit: true, Backoff: time.Second}
			})
			want := &fleet.ModelUse{Reports: attempts, Priced: attempts, MicroUSD: 250_000 * attempts, InputTokens: 10 * attempts, OutputTokens: 20 * attempts}
			if diff := cmp.Diff(want, r.final(id).Result.Model); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	})
}
