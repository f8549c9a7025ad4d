// Command muster runs a fleet of coding agents and sizes it to its load; see
// `muster --help`. This package is configuration and wiring: one file per
// command, made by constructors, without globals.
package main

import (
	"context"
	"fmt"
	"os"

	"muster.dev/muster/internal/terminal"
)

func main() {
	os.Exit(run(context.Background(), newShell(), os.Args[1:]))
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, s *shell, args []string) int {
	root := newRoot(s)
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.errs)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if text := errorText(err); text != "" {
		_, _ = fmt.Fprintln(s.errs, terminal.EscapeLines(text))
	}
	return exitCode(err)
}
