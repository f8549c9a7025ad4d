package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// newWaitHereCommand is what pods run that only hold or bring a node.
func newWaitHereCommand() *cobra.Command {
	return &cobra.Command{
		Use: "wait-here", Short: "Wait for a signal, and do nothing", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			<-ctx.Done()
			return nil
		},
	}
}
