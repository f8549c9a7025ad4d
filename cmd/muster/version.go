package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/terminal"
)

// versionAnswer is what `version -o json` prints.
type versionAnswer struct {
	Client v1alpha1.Version  `json:"client"`
	Server *v1alpha1.Version `json:"server,omitempty"`
	// Problem says why there is no server's version.
	Problem string `json:"problem,omitempty"`
}

// version is the module's version, or the commit it was built from.
func version() string {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := b.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, modified := "", ""
	for _, s := range b.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+changes"
		}
	}
	if revision == "" {
		return "devel"
	}
	return "devel-" + revision + modified
}

func newVersionCommand(s *shell) *cobra.Command {
	var (
		out        *outputFlag
		clientOnly bool
	)
	c := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of this program and of the server",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versionAnswer{Client: v1alpha1.Version{Version: version(), GoVersion: runtime.Version(), APIVersion: v1alpha1.APIVersion}}
			if !clientOnly {
				server, err := serverVersion(cmd, s)
				if err != nil {
					v.Problem = err.Error()
				} else {
					v.Server = &server
				}
			}
			if done, err := out.structured(s, v); done {
				return err
			}
			s.printf("muster %s (%s, API %s)\n", v.Client.Version, v.Client.GoVersion, v.Client.APIVersion)
			switch {
			case v.Server != nil && v.Server.Version != v.Client.Version:
				s.printf("%s\n", terminal.Escape(fmt.Sprintf("server %s (%s, API %s)", v.Server.Version, v.Server.GoVersion, v.Server.APIVersion)))
			case v.Server != nil:
				s.printf("server the same\n")
			case v.Problem != "":
				s.printf("server none: %s\n", terminal.EscapeLines(v.Problem))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&clientOnly, "client", false, "do not ask the server")
	out = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}

func serverVersion(cmd *cobra.Command, s *shell) (v1alpha1.Version, error) {
	c, err := s.connect()
	if err != nil {
		return v1alpha1.Version{}, err
	}
	defer c.Close()
	return c.Version(cmd.Context())
}
