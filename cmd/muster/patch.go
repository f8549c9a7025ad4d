package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

// patchAnswer is what `patch -o json` prints.
type patchAnswer struct {
	Task  fleet.TaskID `json:"task"`
	Bytes int64        `json:"bytes"`
	Note  string       `json:"note,omitempty"`
	Patch rawText      `json:"patch"`
}

func newPatchCommand(s *shell) *cobra.Command {
	var to string
	c := &cobra.Command{
		Use:   "patch ID",
		Short: "Print what a task changed, as a git patch",
		Long: `Print what a task changed in its repository, as a git patch (binary files
included), to standard output or a file. -o json prints an object with the patch
in it; for a file of that name write ./json.`,
		Example: `  muster patch t01hv… | git apply --index
  muster patch -o fix.patch t01hv…`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeTask(s, ended),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, id, err := s.task(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer cl.Close()
			return runPatch(cmd.Context(), s, cl, id, to)
		},
	}
	c.Flags().StringVarP(&to, "output", "o", "", "`file` to write; - is standard output; json prints an object")
	return c
}

func runPatch(ctx context.Context, s *shell, c *client.Client, id fleet.TaskID, to string) error {
	r, err := c.Patch(ctx, id)
	if errors.Is(err, fleet.ErrNotFound) || errors.Is(err, fleet.ErrConflict) {
		return noPatch(ctx, c, id, err)
	}
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	switch to {
	case formatJSON:
		b, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("read the patch: %w", err)
		}
		t, err := c.Task(ctx, id)
		if err != nil {
			return err
		}
		o := outputFlag{value: formatJSON}
		_, err = o.structured(s, patchAnswer{Task: id, Bytes: int64(len(b)), Note: t.PatchNote, Patch: b})
		return err
	case "", "-":
		w := s.out
		if _, tty := s.terminal(s.out); tty {
			f := terminal.NewFilter(s.out)
			defer func() { _ = f.Close() }()
			w = f
		}
		if _, err := io.Copy(w, r); err != nil {
			return fmt.Errorf("read the patch: %w", err)
		}
		return nil
	}
	if err := writeFile(to, 0o666, r); err != nil {
		return fmt.Errorf("write %s: %w", to, err)
	}
	return nil
}

// noPatch says why there is none.
func noPatch(ctx context.Context, c *client.Client, id fleet.TaskID, err error) error {
	t, terr := c.Task(ctx, id)
	switch {
	case terr != nil:
		return terr
	case !t.Final():
		return &client.Error{
			Text: fmt.Sprintf("%s has no patch yet: it is %s", label(t), t.State), Cause: err,
			Hint: "`muster wait " + string(id) + "` waits for its end",
		}
	case t.PatchNote != "":
		return &client.Error{Text: fmt.Sprintf("%s has no patch: %s", label(t), patchNote(t)), Cause: err}
	}
	return &client.Error{Text: fmt.Sprintf("%s has no patch: it changed nothing", label(t)), Cause: err}
}
