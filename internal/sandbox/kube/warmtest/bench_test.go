package warmtest

import (
	"context"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/runner"
	"muster.dev/muster/internal/runner/dialout"
	"muster.dev/muster/internal/sandbox/sandboxtest"
	kubetest "muster.dev/muster/test/kube"
)

// light is a runner in this process: what is measured is the way to it.
func light(ctx context.Context, env map[string]string) int {
	token, err := os.ReadFile(env["MUSTER_IDENTITY"])
	if err != nil {
		return 1
	}
	d, err := dialout.New(dialout.Options{Gateway: env["MUSTER_GATEWAY"], CA: []byte(env["MUSTER_CA"]), Bearer: string(token)})
	if err != nil {
		return 1
	}
	err = runner.Run(ctx, runner.Config{
		Token: d.Session, UID: -1, GID: -1, Home: env["MUSTER_HOME"], Workspace: env["MUSTER_WORKSPACE"], Temp: env["MUSTER_WORKSPACE"],
		Dial: func(ctx context.Context) (io.ReadWriteCloser, error) { return d.Link(ctx) }, LongestPause: 5 * time.Second,
	})
	if err != nil {
		return 1
	}
	return 0
}

// BenchmarkClaim is a warm claim until its runner has accepted the task, one
// after the other, in both modes; with agent-sandbox also until its controller
// has given the sandbox to the claim.
func BenchmarkClaim(b *testing.B) {
	for name, warm := range map[string]bool{"pods": false, "agent-sandbox": true} {
		b.Run(name, func(b *testing.B) { benchmarkClaim(b, warm) })
	}
}

const batch = 20

func benchmarkClaim(b *testing.B, warm bool) {
	s := newSite(b, 1, kubetest.KubeletOptions{InProcess: light})
	a := s.opened(b, "coders", warm)
	var claims, owned []time.Duration
	for b.Loop() {
		b.StopTimer()
		specs := createAll(b, a, batch)
		b.StartTimer()
		begin := time.Now()
		for n, spec := range specs {
			at := time.Now()
			task := fleet.Assignment{Task: fleet.NewTaskID(at), Fence: int64(n + 1), Command: []string{"sleep", "60"}, LogBytes: 1 << 20}
			if err := a.Claim(b.Context(), spec.ID, task, sandboxtest.NewRecorder()); err != nil {
				b.Fatal(err)
			}
			claims = append(claims, time.Since(at))
		}
		b.StopTimer()
		if warm {
			eventually(b, "all are owned by their claims", func() bool {
				n := 0
				for sandbox, owner := range s.owners(b) {
					if owner == "SandboxClaim/"+sandbox {
						n++
					}
				}
				return n == batch
			})
			owned = append(owned, time.Since(begin))
		}
		destroyAll(b, a, specs)
		b.StartTimer()
	}
	slices.Sort(claims)
	b.ReportMetric(ms(claims[len(claims)/2]), "p50-ms")
	b.ReportMetric(ms(claims[len(claims)*99/100]), "p99-ms")
	if warm {
		slices.Sort(owned)
		b.ReportMetric(ms(owned[len(owned)/2])/batch, "owned-ms/claim")
	}
	b.ReportMetric(0, "ns/op")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
