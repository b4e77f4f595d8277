package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/podvine/podvine/agent"
	"github.com/podvine/podvine/agent/join"
)

func newAgentJoinCommand(streams Streams) *cobra.Command {
	flags := &agentFlags{config: agent.DefaultConfig()}
	var token, tokenFile string
	command := &cobra.Command{
		Use:   "join PEER…",
		Short: "Run this machine's agent as a member of the cluster that the peers belong to",
		Long: `Runs this machine's agent in the foreground. On a machine that belongs to no cluster yet it first joins that of the peers;
any member will do, and the first that answers is asked. A peer is an address or a name, with the port of its API unless that
is 6443. The token comes from ` + "`podvine token create`" + ` on a member; a machine that is a member already needs none.

A machine that is told to join never founds a cluster of its own.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, peers []string) error {
			config, log, err := flags.complete(command.Flags(), streams.Err)
			if err != nil {
				return err
			}
			given, err := joinToken(token, tokenFile)
			if err != nil {
				return err
			}
			config.Join = &agent.JoinConfig{Peers: peers, Token: given}
			return agent.Run(command.Context(), config, log)
		},
	}
	flags.register(command.Flags())
	command.Flags().StringVar(&token, "token", "", "the token; others on this machine can read it here: prefer --token-file or "+join.TokenVariable)
	command.Flags().StringVar(&tokenFile, "token-file", "", "file that holds the token")
	return command
}

func joinToken(token, file string) (string, error) {
	if token != "" && file != "" {
		return "", fmt.Errorf("--token and --token-file: give one of them")
	}
	if file == "" {
		if token == "" {
			token = os.Getenv(join.TokenVariable)
		}
		return token, nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	return strings.TrimSpace(string(content)), nil
}
