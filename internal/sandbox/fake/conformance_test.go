package fake_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
	"muster.dev/muster/internal/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	sandboxtest.Run(t, func(*testing.T) sandboxtest.Harness {
		s := fake.New(fake.Options{Script: play, CreateErr: prepare})
		opened := false
		return sandboxtest.Harness{
			Open: func(*testing.T) fleet.Sandboxes {
				if opened {
					s = s.Reopen()
				}
				opened = true
				return s
			},
			Kill: func(_ *testing.T, _ fleet.Sandboxes, id fleet.SandboxID) { s.Kill(id, fleet.ReasonNodeLost) },
		}
	})
}

// prepare fails as the shell would.
func prepare(spec fleet.SandboxSpec) error {
	if len(spec.Prepare) == 0 {
		return nil
	}
	return &fleet.ReasonError{Reason: fleet.ReasonPrepare, Err: errors.New("exit status 9"), Output: "broken\n"}
}

// play acts as the suite's scripts do in a shell.
func play(ctx context.Context, r *fake.Run) fleet.RunReport {
	if r.Assignment.Command[0] == sandboxtest.CommandMissing {
		return fleet.RunReport{ExitCode: -1, Reason: fleet.ReasonCommand, Message: sandboxtest.CommandMissing + ": not found"}
	}
	r.Running()
	script := r.Assignment.Command[len(r.Assignment.Command)-1]
	for part := range strings.SplitSeq(script, "; "+sandboxtest.ScriptFiles) {
		if p, ok := parts[part]; ok {
			if report := p(ctx, r); report != (outcome{}) {
				return fleet.RunReport{ExitCode: report.code, Signal: report.signal}
			}
		}
	}
	r.Collecting()
	if strings.HasSuffix(script, sandboxtest.ScriptFiles) && len(r.Assignment.Artifacts) > 0 {
		r.Artifact("out/report.txt", []byte("result"))
	}
	return fleet.RunReport{}
}

type outcome struct {
	code   int
	signal string
}

var parts = map[string]func(context.Context, *fake.Run) outcome{
	sandboxtest.ScriptHello: func(_ context.Context, r *fake.Run) outcome {
		r.Print(fleet.StreamStdout, "hello "+r.Assignment.Env["NAME"]+"\n")
		r.Print(fleet.StreamStderr, "oops\n")
		return outcome{}
	},
	sandboxtest.ScriptFail: func(_ context.Context, r *fake.Run) outcome {
		r.Print(fleet.StreamStdout, "failing\n")
		return outcome{code: 7}
	},
	sandboxtest.ScriptPolite: func(ctx context.Context, r *fake.Run) outcome {
		r.Print(fleet.StreamStdout, "started\n")
		<-ctx.Done()
		r.Print(fleet.StreamStdout, "leaving\n")
		return outcome{code: 3}
	},
	sandboxtest.ScriptStubborn: func(_ context.Context, r *fake.Run) outcome {
		r.Print(fleet.StreamStdout, "started\n")
		time.Sleep(time.Second) // until long after it was taken for killed
		return outcome{code: 1}
	},
	sandboxtest.ScriptTalk: func(ctx context.Context, r *fake.Run) outcome { return count(ctx, r, 180000) },
	sandboxtest.ScriptSilent: func(ctx context.Context, r *fake.Run) outcome {
		r.Print(fleet.StreamStdout, "started\n")
		<-ctx.Done()
		return outcome{code: -1, signal: "SIGTERM"}
	},
	sandboxtest.ScriptLoud: func(_ context.Context, r *fake.Run) outcome {
		for range 2000 {
			r.Print(fleet.StreamStdout, strings.Repeat("x", 99)+"\n")
		}
		return outcome{}
	},
	sandboxtest.ScriptCount: func(ctx context.Context, r *fake.Run) outcome { return count(ctx, r, 100) },
}

func count(ctx context.Context, r *fake.Run, n int) outcome {
	for i := range n {
		r.Print(fleet.StreamStdout, fmt.Sprintf("line %d\n", i))
		if r.Sleep(ctx, 20*time.Millisecond) != nil {
			return outcome{code: -1, signal: "SIGTERM"}
		}
	}
	return outcome{}
}
