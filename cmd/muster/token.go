package main

import (
	"github.com/spf13/cobra"

	"muster.dev/muster/internal/client"
)

// tokenAnswer is what `token -o json` prints.
type tokenAnswer struct {
	Server string `json:"server"`
	Token  string `json:"token"`
	From   string `json:"from"` // $MUSTER_TOKEN, or a path
}

func newTokenCommand(s *shell) *cobra.Command {
	var out *outputFlag
	c := &cobra.Command{
		Use:   "token",
		Short: "Print the token the API wants",
		Long: `Print the token that the API of the server in use wants, as found in
$MUSTER_TOKEN, --token-file or the data directory. Whoever has it may run code in
the fleet's sandboxes: treat it as a password.`,
		Example: `  curl -H "Authorization: Bearer $(muster token)" http://127.0.0.1:7433/v1/fleet`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p, err := s.place()
			if err != nil {
				return err
			}
			if p.Token == "" {
				return &client.Error{
					Text: "no token for " + p.Server + " was found in " + p.DataDir,
					Hint: "`muster up` makes it on its first start; for another server set MUSTER_TOKEN or --token-file",
				}
			}
			if done, err := out.structured(s, tokenAnswer{Server: p.Server, Token: p.Token, From: p.TokenFrom}); done {
				return err
			}
			s.printf("%s\n", p.Token)
			return nil
		},
	}
	out = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}
