package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kedaimport"
	"muster.dev/muster/internal/terminal"
)

func newImportCommand(s *shell) *cobra.Command {
	c := &cobra.Command{
		Use:   "import",
		Short: "Make a Fleet of what another autoscaler was told",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newImportKEDACommand(s))
	return c
}

// imported is what import answers to programs.
type imported struct {
	Fleets []kedaimport.Converted `json:"fleets"`
	Others []string               `json:"others,omitempty"` // documents that were not read
}

func newImportKEDACommand(s *shell) *cobra.Command {
	var (
		file string
		out  *outputFlag
	)
	c := &cobra.Command{
		Use:   "keda FILE…",
		Short: "Make a Fleet of KEDA's ScaledObject or ScaledJob",
		Long: `Read documents of KEDA (several to a file; - is standard input), with the
TriggerAuthentications they refer to, and write a Fleet of mode: scale for each:
the workers stay, and Muster says how many there should be.

What is not carried over is listed, each with a reason: todo has to be done before
the Fleet works, changed means something else now, left has no counterpart. No
credential is copied; the Fleet names where each is. See docs/keda.md.`,
		Example: `  muster import keda scaledobject.yaml > fleet.yaml
  kubectl get scaledobjects,triggerauthentications -o yaml | muster import keda - --out fleets.yaml
  muster eval -f fleet.yaml`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var files [][]byte
			for _, name := range args {
				b, err := readFile(s, name)
				if err != nil {
					return err
				}
				files = append(files, b)
			}
			fleets, others, err := kedaimport.Convert(files...)
			if perr := printImported(s, imported{Fleets: nonNil(fleets), Others: others}, file, out); perr != nil {
				return perr
			}
			if errors.Is(err, fleet.ErrInvalid) {
				return &client.Error{Text: err.Error(), Kind: client.ErrUsage, Cause: err}
			}
			return err
		},
	}
	c.Flags().StringVar(&file, "out", "-", "write the Fleets to this `file`; - is standard output")
	out = addOutput(c, formatText, formatJSON, formatYAML)
	c.Flags().Lookup("output").Usage += ": json and yaml hold the Fleets and what was not carried over"
	return c
}

func printImported(s *shell, all imported, file string, out *outputFlag) error {
	var docs strings.Builder
	for i, c := range all.Fleets {
		if i > 0 {
			docs.WriteString("---\n")
		}
		docs.WriteString(c.YAML)
	}
	if file != "-" && docs.Len() > 0 {
		if err := os.WriteFile(file, []byte(docs.String()), 0o644); err != nil { //nolint:gosec // as any file a user writes; it holds no secret
			return usageError("--out: %v", cause(err))
		}
	}
	if done, err := out.structured(s, all); done {
		return err
	}
	if file == "-" {
		s.printf("%s", terminal.EscapeLines(docs.String()))
	}
	for _, c := range all.Fleets {
		for _, n := range c.Notes {
			_, _ = fmt.Fprintln(s.errs, terminal.EscapeLines(fmt.Sprintf("%s: %s: %s %s", c.From, n.Kind, n.At, n.Why)))
		}
	}
	for _, o := range all.Others {
		_, _ = fmt.Fprintln(s.errs, terminal.EscapeLines(o+": left; it is neither a ScaledObject, a ScaledJob nor a TriggerAuthentication"))
	}
	return nil
}
