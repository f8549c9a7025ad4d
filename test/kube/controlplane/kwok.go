package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"sigs.k8s.io/kwok/pkg/config"
	"sigs.k8s.io/kwok/pkg/kwok/cmd"
	"sigs.k8s.io/kwok/pkg/log"
	"sigs.k8s.io/kwok/pkg/utils/signals"
)

// kwok plays the kubelets of nodes that are not there. Its own flags are read
// twice: once for the log and the files of configuration, which the command
// needs before it is made, and once by the command.
func kwok(args []string) int {
	os.Args = append([]string{"kwok"}, args...)                         // what its configuration reads its flags from
	pflag.CommandLine = pflag.NewFlagSet("kwok", pflag.ContinueOnError) // without those that Kubernetes has put there
	early := pflag.NewFlagSet("kwok", pflag.ContinueOnError)
	early.ParseErrorsAllowlist.UnknownFlags = true
	early.Usage = func() {}

	ctx, _ := log.InitFlags(signals.SetupSignalContext(), early)
	ctx, err := config.InitFlags(ctx, early)
	if err != nil {
		fmt.Fprintf(os.Stderr, "kwok: read the configuration: %v\n", err)
		return 1
	}
	c := cmd.NewCommand(ctx)
	c.PersistentFlags().AddFlagSet(early)
	c.SetArgs(args)
	if err := c.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "kwok: %v\n", err)
		return 1
	}
	return 0
}
