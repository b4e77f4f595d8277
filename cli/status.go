package cli

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/podvine/podvine/agent"
)

func newStatusCommand(streams Streams) *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "status",
		Short: "Show the cluster as the member behind the kubeconfig sees it: leader, quorum, members",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			client, config, err := newClient()
			if err != nil {
				return err
			}
			asked := time.Now()
			content, err := client.CoreV1().RESTClient().Get().AbsPath(agent.StatusPath).DoRaw(command.Context())
			if err != nil {
				return fmt.Errorf("ask %s for its status: %w", config.Host, err)
			}
			took := time.Since(asked)
			var status agent.Status
			if err := json.Unmarshal(content, &status); err != nil {
				return fmt.Errorf("read the status of %s: %w", config.Host, err)
			}
			if output != "" && output != "wide" {
				return printAs(streams.Out, output, status)
			}
			return printStatus(streams, status, took)
		},
	}
	addOutputFlag(command, &output)
	return command
}

func printStatus(streams Streams, status agent.Status, took time.Duration) error {
	leader := status.Leader
	if leader == "" {
		leader = "none: quorum lost"
	}
	table := tabwriter.NewWriter(streams.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(table, "Cluster:\t%s\n", status.Cluster)
	fmt.Fprintf(table, "Answered by:\t%s in %s\n", status.Node, took.Round(100*time.Microsecond))
	fmt.Fprintf(table, "Version:\t%s\n", status.Version)
	fmt.Fprintf(table, "Leader:\t%s\n", leader)
	fmt.Fprintf(table, "Log index:\t%d\n", status.LastIndex)
	for _, condition := range status.Conditions {
		fmt.Fprintf(table, "Condition:\t%s\n", condition)
	}
	fmt.Fprintln(table)
	fmt.Fprintln(table, "MEMBER\tROLE\tSTATE\tSINCE\tADDRESS\tVERSION")
	for _, member := range status.Members {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", member.Name, member.Role, member.State, duration.HumanDuration(time.Since(member.Since)), member.Address, member.Version)
	}
	return table.Flush()
}
