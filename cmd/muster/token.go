package main

import (
	"strings"

	"github.com/spf13/cobra"

	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/server"
)

// tokenAnswer is what `token -o json` prints.
type tokenAnswer struct {
	Server string `json:"server"`
	Token  string `json:"token"`
	Role   string `json:"role,omitempty"` // where it was asked for
	From   string `json:"from"`           // $MUSTER_TOKEN, or a path
}

func newTokenCommand(s *shell) *cobra.Command {
	var out *outputFlag
	var role string
	c := &cobra.Command{
		Use:   "token",
		Short: "Print the token the API wants",
		Long: `Print the token that the API of the server in use wants, as found in
$MUSTER_TOKEN, --token-file or the data directory. Whoever has it may run code in
the fleet's sandboxes: treat it as a password.

--role prints another token, made from it, for people or programs that may do
less: a reader sees everything and changes nothing; an operator submits and ends
tasks, runs commands in sandboxes, and changes schedules and the fleet. They hold
until the server's token is changed.`,
		Example: `  curl -H "Authorization: Bearer $(muster token)" http://127.0.0.1:7433/v1/fleet
  muster token --role reader`,
		Args: cobra.NoArgs,
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
			token, err := tokenOf(p.Token, role)
			if err != nil {
				return err
			}
			if done, err := out.structured(s, tokenAnswer{Server: p.Server, Token: token, Role: role, From: p.TokenFrom}); done {
				return err
			}
			s.printf("%s\n", token)
			return nil
		},
	}
	c.Flags().StringVar(&role, "role", "", "print the token of a role instead: reader, operator or admin")
	out = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}

// tokenOf is the token itself, or that of a role.
func tokenOf(token, role string) (string, error) {
	if role == "" {
		return token, nil
	}
	r, err := server.ParseRole(role)
	if err != nil {
		return "", err
	}
	for _, name := range []string{"reader", "operator"} {
		if strings.HasPrefix(token, name+"-") {
			return "", &client.Error{Text: "the token in use is that of a role, " + name, Hint: "only the admin's, the file \"token\" of the server's data directory, makes others"}
		}
	}
	return server.TokenFor(token, r), nil
}
