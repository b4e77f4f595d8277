package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/podvine/podvine/agent"
	"github.com/podvine/podvine/agent/preflight"
)

func newCheckCommand(streams Streams) *cobra.Command {
	config := agent.DefaultConfig()
	var output string
	command := &cobra.Command{
		Use:   "check",
		Short: "Tell whether this machine can run an agent",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			findings := preflight.Run(config.Preflight(), false)
			if err := printFindings(streams, output, findings); err != nil {
				return err
			}
			if preflight.FirstFatal(findings) != nil {
				return ExitError{Code: 1}
			}
			return nil
		},
	}
	command.Flags().StringVar(&config.DataDir, "data-dir", config.DataDir, "folder that the agent would use")
	addOutputFlag(command, &output)
	return command
}

func printFindings(streams Streams, output string, findings []preflight.Finding) error {
	if output != "" && output != "wide" {
		return printAs(streams.Out, output, findings)
	}
	table := tabwriter.NewWriter(streams.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "CHECK\tRESULT\tDETAIL\tADVICE")
	for _, finding := range findings {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", finding.Check, finding.Severity, finding.Detail, finding.Advice)
	}
	return table.Flush()
}
