package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

func newArtifactsCommand(s *shell) *cobra.Command {
	var out *outputFlag
	c := &cobra.Command{
		Use:   "artifacts ID [DIR]",
		Short: "List a task's artifacts, or save them to a directory",
		Long: `List the files a task left behind, or save them below a directory, which is made
where it is not there. Files of the same name are replaced. The names come from
the task: none leads out of the directory, not through links in it either.`,
		Args: cobra.RangeArgs(1, 2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return completeTask(s, ended)(cmd, args, toComplete)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, id, err := s.task(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer cl.Close()
			list, err := cl.Artifacts(cmd.Context(), id)
			if err != nil {
				return err
			}
			if list.Note != "" {
				s.note("%s", list.Note)
			}
			if len(args) == 2 {
				err = saveArtifacts(cmd.Context(), s, cl, id, args[1], list.Artifacts)
			}
			if done, perr := out.structured(s, list); done {
				return errors.Join(err, perr)
			}
			if len(args) == 1 {
				for _, a := range list.Artifacts {
					s.printf("%10s  %s\n", terminal.Bytes(a.Bytes), terminal.Escape(a.Path))
				}
			}
			return err
		},
	}
	out = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}

func saveArtifacts(ctx context.Context, s *shell, c *client.Client, id fleet.TaskID, dir string, list []fleet.Artifact) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	var errs []error
	saved := 0
	for _, a := range list {
		if err := saveArtifact(ctx, c, id, root, a.Path); err != nil {
			if errors.Is(err, client.ErrLost) {
				return err
			}
			errs = append(errs, fmt.Errorf("%s: %w", terminal.Escape(a.Path), err))
			continue
		}
		saved++
	}
	s.note("%d of %d artifacts in %s", saved, len(list), dir)
	return joined(errs)
}

// saveArtifact writes one file; root keeps every step of it inside.
func saveArtifact(ctx context.Context, c *client.Client, id fleet.TaskID, root *os.Root, name string) error {
	local := filepath.FromSlash(name)
	if !filepath.IsLocal(local) || strings.ContainsRune(name, 0) || filepath.Clean(local) == "." {
		return errors.New("refused: the name leads out of the directory")
	}
	r, err := c.Artifact(ctx, id, name)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	if err := root.MkdirAll(filepath.Dir(local), 0o777); err != nil {
		return err
	}
	return writeWhole(root, local, 0o666, r)
}
