package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"muster.dev/muster/internal/sandbox/oci"
	"muster.dev/muster/internal/store/sqlite"
)

func newDownCommand() *cobra.Command {
	var dataDir string
	c := &cobra.Command{
		Use:   "down",
		Short: "Remove every sandbox a stopped `muster up` left running",
		Long: `Remove the sandboxes that go on after ` + "`muster up`" + ` was stopped or killed, with
everything of them on this machine. The tasks in them are tried again by the
next ` + "`muster up`" + `. It refuses while a muster runs on the data directory.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := existingDataDir(dataDir)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Minute)
			defer cancel()
			n, err := removeSandboxes(ctx, dir)
			if err != nil {
				return err
			}
			what := "sandboxes"
			if n == 1 {
				what = "sandbox"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d %s removed\n", n, what)
			return err
		},
	}
	c.Flags().StringVar(&dataDir, "data", "", "data `directory`; default $MUSTER_HOME, /var/lib/muster for root, else ~/.local/state/muster")
	return c
}

func removeSandboxes(ctx context.Context, dir string) (int, error) {
	lock, err := sqlite.Lock(dir)
	if err != nil {
		return 0, err
	}
	defer func() { _ = lock.Release() }()
	boxes, err := oci.New(ctx, oci.Options{Dir: filepath.Join(dir, "sandboxes"), Bin: filepath.Join(dir, "bin")})
	if err != nil {
		return 0, err
	}
	defer func() { _ = boxes.Close() }() // nothing is written through it any more
	ids, err := boxes.List(ctx)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		if err := boxes.Destroy(ctx, id); err != nil {
			return 0, fmt.Errorf("destroy sandbox %s: %w", id, err)
		}
	}
	return len(ids), nil
}
