// Package fake is a stateful stand-in for fleet.Sandboxes: no process is ever
// started, but everything the port promises holds, and the conformance suite
// (sandboxtest) proves it. Lead times, failures, exits and the tasks
// themselves are scripted in Go, time is time.Now and timers only, so that
// everything runs under testing/synctest.
//
//	s := fake.New(fake.Options{
//		Lead:   func(fleet.SandboxSpec) time.Duration { return 800 * time.Millisecond },
//		Script: func(ctx context.Context, r *fake.Run) fleet.RunReport {
//			r.Running()
//			r.Print(fleet.StreamStdout, "hello\n")
//			if err := r.Sleep(ctx, time.Minute); err != nil {
//				return fleet.RunReport{ExitCode: -1, Signal: "SIGTERM"}
//			}
//			return fleet.RunReport{}
//		},
//	})
//	s.Inject(fake.OpCreate, errors.New("no disk"), 3) // the next three fail
//
// A World is the machine behind the adapter: Close leaves it running, Reopen
// returns another adapter on it, as a restarted control plane would see it.
//
// It may import fleet and the standard library.
package fake
