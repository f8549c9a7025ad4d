package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

// maxExecOutput bounds what `exec -o json` keeps.
const maxExecOutput = 64 << 20

// execAnswer is what `exec -o json` prints.
type execAnswer struct {
	Task     fleet.TaskID `json:"task"`
	ExitCode int          `json:"exitCode"`
	Stdout   rawText      `json:"stdout"`
	Stderr   rawText      `json:"stderr"`
}

// execOptions are the flags of exec.
type execOptions struct {
	tty, stdin bool
	env        []string
	out        *outputFlag
}

func newExecCommand(s *shell) *cobra.Command {
	var o execOptions
	c := &cobra.Command{
		Use:   "exec [flags] ID -- COMMAND [ARG…]",
		Short: "Run a command in a running task's sandbox",
		Long: `Run a command beside a running task, in its sandbox, as its user and in its
workspace. It ends as the command does.

-i passes standard input on; -t gives the command a terminal (and implies -i when
standard input is one). -o json collects the output into an object.`,
		Example: `  muster exec t01hv… -- git diff
  muster exec -it t01hv… -- bash`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completeTask(s, running),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runExec(cmd.Context(), s, o, args)
		},
	}
	f := c.Flags()
	f.SetInterspersed(false) // what follows the id is the command's
	f.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal")
	f.BoolVarP(&o.stdin, "stdin", "i", false, "pass standard input on")
	f.StringArrayVarP(&o.env, "env", "e", nil, "`KEY=VALUE`, or KEY to pass yours on; repeat for several")
	o.out = addOutput(c, formatText, formatJSON)
	return c
}

func runExec(ctx context.Context, s *shell, o execOptions, args []string) error {
	command := args[1:]
	if command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 || strings.HasPrefix(command[0], "-") {
		return usageError("no command behind %q; want `muster exec [flags] ID -- COMMAND`, flags before the id", args[0])
	}
	environment, err := (&taskFlags{env: o.env}).environment()
	if err != nil {
		return err
	}
	asJSON := o.out.value == formatJSON
	if asJSON && o.tty {
		return usageError("-t and -o json exclude each other: a terminal's output is not one text")
	}
	c, id, err := s.task(ctx, args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	r := fleet.ExecRequest{Command: command, Env: environment, TTY: o.tty, Stdout: s.out, Stderr: s.errs}
	if o.stdin || o.tty && isTerminal(s, s.in) {
		r.Stdin = s.in
	}
	if asJSON {
		return execJSON(ctx, s, c, id, r)
	}
	code, err := execLive(ctx, s, c, id, r)
	if err == nil && code != 0 {
		err = exitStatus(code)
	}
	return err
}

func isTerminal(s *shell, stream any) bool {
	_, ok := s.terminal(stream)
	return ok
}

// execLive connects the command to our streams; with a terminal ours goes raw
// meanwhile and its size is passed on.
func execLive(ctx context.Context, s *shell, c *client.Client, id fleet.TaskID, r fleet.ExecRequest) (int, error) {
	if !r.TTY {
		var filters []*terminal.Filter
		if isTerminal(s, s.out) {
			f := terminal.NewFilter(r.Stdout)
			r.Stdout, filters = f, append(filters, f)
		}
		if isTerminal(s, s.errs) {
			f := terminal.NewFilter(r.Stderr)
			r.Stderr, filters = f, append(filters, f)
		}
		code, err := c.Exec(ctx, id, r)
		for _, f := range filters {
			_ = f.Close()
		}
		return code, err
	}
	// A terminal was asked for: the program in it may draw as it likes.
	in, ok := s.terminal(s.in)
	if !ok {
		r.Rows, r.Cols = 24, 80
		return c.Exec(ctx, id, r)
	}
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return -1, fmt.Errorf("set the terminal raw: %w", err)
	}
	defer func() { _ = term.Restore(int(in.Fd()), before) }()
	sizes, stop := watchSize(ctx, in)
	defer stop()
	first := <-sizes
	r.Rows, r.Cols, r.Resize = first[0], first[1], sizes
	return c.Exec(ctx, id, r)
}

// watchSize delivers the terminal's size (rows, columns): at once, and
// whenever it changes.
func watchSize(ctx context.Context, f *os.File) (<-chan [2]uint16, func()) {
	ctx, cancel := context.WithCancel(ctx)
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	sizes := make(chan [2]uint16, 1)
	go func() {
		for {
			cols, rows, err := term.GetSize(int(f.Fd()))
			if err != nil || cols == 0 || rows == 0 {
				cols, rows = 80, 24
			}
			select {
			case sizes <- [2]uint16{uint16(rows), uint16(cols)}:
			case <-ctx.Done():
				return
			}
			select {
			case <-changes:
			case <-ctx.Done():
				return
			}
		}
	}()
	return sizes, func() { signal.Stop(changes); cancel() }
}

// bounded is a buffer that refuses to grow beyond maxExecOutput.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxExecOutput {
		return 0, errors.New("the output is larger than 64 MiB; leave -o json away")
	}
	return b.Buffer.Write(p)
}

func execJSON(ctx context.Context, s *shell, c *client.Client, id fleet.TaskID, r fleet.ExecRequest) error {
	var stdout, stderr bounded
	r.Stdout, r.Stderr = &stdout, &stderr
	code, err := c.Exec(ctx, id, r)
	if err != nil {
		return err
	}
	o := outputFlag{value: formatJSON}
	if _, err := o.structured(s, execAnswer{Task: id, ExitCode: code, Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}); err != nil {
		return err
	}
	if code != 0 {
		return exitStatus(code)
	}
	return nil
}
