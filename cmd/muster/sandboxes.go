package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

func newSandboxesCommand(s *shell) *cobra.Command {
	var out *outputFlag
	c := &cobra.Command{
		Use:   "sandboxes",
		Short: "List sandboxes with their isolation and use",
		Long: `List the sandboxes that exist: their pool, state and task, what each uses now
(processors, memory and its peak, processes; read from the host), and how it is
confined. -o wide adds the isolation as it was observed after the start,
and what this host could not give.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := s.connect()
			if err != nil {
				return err
			}
			defer cl.Close()
			list, err := cl.Sandboxes(cmd.Context())
			if err != nil {
				return err
			}
			if done, err := out.structured(s, list); done {
				return err
			}
			return printSandboxes(s, list.Sandboxes, out.value)
		},
	}
	out = addOutput(c, formatTable, formatWide, formatJSON, formatYAML, formatName)
	return c
}

func printSandboxes(s *shell, list []v1alpha1.SandboxView, format string) error {
	if format == formatName {
		for _, v := range list {
			s.printf("%s\n", v.ID)
		}
		return nil
	}
	if len(list) == 0 {
		s.note("no sandboxes")
		return nil
	}
	columns := []terminal.Column{
		{Title: "ID"}, {Title: "POOL", Flex: true, Least: 8}, {Title: "STATE"}, {Title: "AGE", Right: true}, {Title: "TASK"},
		{Title: "RUNTIME"}, {Title: "CPU", Right: true}, {Title: "CPU TIME", Right: true},
		{Title: "MEMORY", Right: true}, {Title: "PEAK", Right: true}, {Title: "PIDS", Right: true},
	}
	if format == formatWide {
		columns = append(columns, terminal.Column{Title: "IMAGE"}, terminal.Column{Title: "ISOLATION"}, terminal.Column{Title: "NETWORK"},
			terminal.Column{Title: "MESSAGE"})
	}
	t := s.table(columns...)
	if format == formatWide {
		t.Width = 0
	}
	for _, v := range list {
		row := terminal.Text(string(v.ID), string(v.Pool), string(v.State), terminal.Age(s.now().Sub(v.CreatedAt).Truncate(time.Second)), string(v.Task),
			string(v.Isolation.Runtime), fmt.Sprintf("%.2f", v.Usage.CPUNow), fmt.Sprintf("%.2fs", v.Usage.CPUSeconds),
			terminal.Bytes(v.Usage.MemoryBytes), terminal.Bytes(v.Usage.MemoryPeakBytes), fmt.Sprint(v.Usage.Pids))
		switch v.State {
		case fleet.SandboxReady:
			row[2].Style = "32"
		case fleet.SandboxFailed:
			row[2].Style = "31"
		case fleet.SandboxClaimed:
			row[2].Style = "36"
		}
		if format == formatWide {
			row = append(row, terminal.Text(v.Image, isolationText(v.Isolation), string(v.Isolation.Network), v.Message)...)
		}
		t.Row(row...)
	}
	if err := s.printTable(t); err != nil || format != formatWide {
		return err
	}
	printLost(s, list)
	return nil
}

// printLost says what the host could not give, and to how many sandboxes.
func printLost(s *shell, list []v1alpha1.SandboxView) {
	count := map[string]int{}
	for _, v := range list {
		for _, l := range v.Isolation.Lost {
			count[l]++
		}
	}
	if len(count) == 0 {
		return
	}
	s.printf("\nWhat this host cannot give:\n")
	for _, l := range sortedKeys(count) {
		s.printf("  - %s (%d of %d)\n", terminal.Escape(l), count[l], len(list))
	}
}

// isolationText names the protections in force, shortly.
func isolationText(i fleet.Isolation) string {
	if i.Runtime == "" {
		return "" // not observed yet
	}
	var text string
	add := func(on bool, name string) {
		if on {
			if text != "" {
				text += ","
			}
			text += name
		}
	}
	add(i.UserNamespace, "userns")
	add(i.Seccomp, "seccomp")
	add(i.NoNewPrivs, "nnp")
	add(i.ReadOnlyRoot, "ro")
	add(len(i.Capabilities) == 0, "nocaps")
	add(i.Cgroups != "" && i.Cgroups != "none", "cgroup-"+i.Cgroups)
	add(i.Volume != "", "disk-"+i.Volume)
	return text
}
