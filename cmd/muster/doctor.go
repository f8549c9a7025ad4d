package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"muster.dev/muster/internal/doctor"
	"muster.dev/muster/internal/terminal"
)

// doctorWithin bounds the whole examination.
const doctorWithin = 2 * time.Minute

func newDoctorCommand(s *shell) *cobra.Command {
	var (
		o         doctor.Options
		in        clusterFlags
		inCluster bool
		out       *outputFlag
	)
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what works on this machine or cluster, and how to mend what does not",
		Long: `Look at the kernel, cgroups, user namespaces, runtimes, disk, clock and the rest
that sandboxes rest on, and say for each whether it works, what that means, and
the command that mends it. Runtimes are tried with a real sandbox. Nothing is
changed.

With --kubernetes it looks at a cluster in place of the machine: its version,
what is installed, the rights of the control plane, runtime classes, node
autoscaler, dedicated nodes, quotas. With --fleet it judges what that fleet asks
for.

It exits with 1 when something failed; warnings are no failure.`,
		Example: `  muster doctor
  muster doctor --kubernetes --fleet fleet.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), doctorWithin)
			defer cancel()
			var (
				r   doctor.Report
				err error
			)
			switch {
			case inCluster:
				r, err = examineCluster(ctx, in)
			case in != clusterFlags{}:
				return usageError("--kubeconfig, --context, --namespace, --account and --fleet are about a cluster; want --kubernetes, too")
			default:
				r = examineMachine(ctx, s, o)
			}
			if err != nil {
				return err
			}
			done, err := out.structured(s, r)
			if err != nil {
				return err
			}
			if !done {
				printReport(s, r)
			}
			if r.Level == doctor.Fail {
				return exitStatus(exitFailed)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&o.Listen, "listen", "127.0.0.1:7433", "`address` muster up would listen on")
	f.StringVar(&o.Runner, "runner", "", "the muster-runner `program`; default: beside muster, else on PATH")
	f.BoolVar(&inCluster, "kubernetes", false, "look at a Kubernetes cluster")
	f.StringVar(&in.access.Kubeconfig, "kubeconfig", "", "with --kubernetes: `file`; default $KUBECONFIG, else ~/.kube/config")
	f.StringVar(&in.access.Context, "context", "", "with --kubernetes: `name` in the kubeconfig; default its current one")
	f.StringVarP(&in.namespace, "namespace", "n", "", "with --kubernetes: `namespace` of the fleets; default that of --fleet, else of the context")
	f.StringVar(&in.account, "account", "", "with --kubernetes: `namespace/name` of the control plane's service account, whose rights are looked at; default that of the installed one, else you")
	f.StringVar(&in.fleetFile, "fleet", "", "with --kubernetes: the fleet's YAML `file`, whose needs are looked at")
	out = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}

func examineMachine(ctx context.Context, s *shell, o doctor.Options) doctor.Report {
	p, _ := s.place() // a bad address is not what is examined here
	o.DataDir = p.DataDir
	if runner, err := findRunner(o.Runner); err == nil {
		o.Runner, o.Probe = runner, runtimeProbe(runner, p.DataDir)
	}
	return doctor.Examine(ctx, doctor.Machine{}, o)
}

func printReport(s *shell, r doctor.Report) {
	counts := map[doctor.Level]int{}
	for _, f := range r.Findings {
		counts[f.Level]++
		s.printf("%s  %-16s %s\n", s.styled(levelText(f.Level), levelStyle(f.Level)), f.Check, terminal.Escape(f.Found))
		if f.Level != doctor.OK {
			printAdvice(s, f)
		}
	}
	s.printf("\n%d ok, %d to know, %d broken\n", counts[doctor.OK], counts[doctor.Warn], counts[doctor.Fail])
	if r.Rootless {
		s.printf("\nYou are not root. Sandboxes work where the kernel allows it, with this lost:\n")
	} else if len(r.Lost) > 0 {
		s.printf("\nWhat this machine cannot give:\n")
	}
	for _, l := range r.Lost {
		s.printf("  - %s\n", terminal.Escape(l))
	}
}

func printAdvice(s *shell, f doctor.Finding) {
	const behind = "                        "
	if f.Means != "" {
		s.printf("%s%s\n", behind, terminal.Escape(f.Means))
	}
	if f.Mend != "" {
		s.printf("%smend: %s\n", behind, terminal.Escape(f.Mend))
	}
}

func levelText(l doctor.Level) string {
	switch l {
	case doctor.OK:
		return "ok  "
	case doctor.Warn:
		return "warn"
	}
	return "FAIL"
}

func levelStyle(l doctor.Level) string {
	switch l {
	case doctor.OK:
		return "32"
	case doctor.Warn:
		return "33"
	}
	return "31"
}
