package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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
			status, took, err := fetchStatus(command.Context())
			if err != nil {
				return err
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
	printMembers(table, status.Members)
	return table.Flush()
}

// fetchStatus asks the member behind the kubeconfig how it sees the cluster.
func fetchStatus(ctx context.Context) (status agent.Status, took time.Duration, err error) {
	client, config, err := newClient()
	if err != nil {
		return status, 0, err
	}
	asked := time.Now()
	content, err := client.CoreV1().RESTClient().Get().AbsPath(agent.StatusPath).DoRaw(ctx)
	if err != nil {
		return status, 0, fmt.Errorf("ask %s for its status: %w", config.Host, err)
	}
	took = time.Since(asked)
	if err := json.Unmarshal(content, &status); err != nil {
		return status, 0, fmt.Errorf("read the status of %s: %w", config.Host, err)
	}
	return status, took, nil
}

func printMembers(table io.Writer, members []agent.MemberStatus) {
	fmt.Fprintln(table, "MEMBER\tROLE\tSTATE\tSINCE\tADDRESS\tVERSION")
	for _, member := range members {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", member.Name, member.Role, member.State, duration.HumanDuration(time.Since(member.Since)), member.Address, member.Version)
	}
}
