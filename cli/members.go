package cli

import (
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func newMembersCommand(streams Streams) *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "members",
		Short: "List the members of the cluster, as gossip knows them",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			status, _, err := fetchStatus(command.Context())
			if err != nil {
				return err
			}
			if output != "" && output != "wide" {
				return printAs(streams.Out, output, status.Members)
			}
			table := tabwriter.NewWriter(streams.Out, 0, 0, 3, ' ', 0)
			printMembers(table, status.Members)
			return table.Flush()
		},
	}
	addOutputFlag(command, &output)
	return command
}
