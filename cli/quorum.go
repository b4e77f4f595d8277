package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/podvine/podvine/agent"
	"github.com/podvine/podvine/consensus/quorum"
)

func newQuorumCommand(streams Streams) *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "quorum",
		Short: "Show the quorum: leader, voters, how far each is, and how many may be lost",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			status, err := fetchQuorum(command.Context())
			if err != nil {
				return err
			}
			if output != "" && output != "wide" {
				return printAs(streams.Out, output, status)
			}
			return printQuorum(streams, status)
		},
	}
	addOutputFlag(command, &output)
	command.AddCommand(newQuorumRecover(streams))
	return command
}

func newQuorumRecover(streams Streams) *cobra.Command {
	config := agent.DefaultConfig()
	var confirmed bool
	command := &cobra.Command{
		Use:   "recover",
		Short: "Go on with this machine's copy alone, after the majority of the voters is lost for good",
		Long: `Makes this machine's replica, a voter or a standby, the only voter of its cluster. It is for a cluster that has lost the
majority of its voters for good, and says "quorum lost". Stop this machine's agent, run this, start the agent again; the cluster then
finds new voters by itself.

What the lost voters had acknowledged and never sent here is lost with them. Every voter is asked first: while a majority may
live, this refuses. A lost voter that comes back later joins anew, without its own records.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if !confirmed {
				return errors.New("this gives up what only the lost voters have: say --yes to do it")
			}
			log, err := newLogger("text", "warn", streams.Err)
			if err != nil {
				return err
			}
			done, err := agent.Recover(command.Context(), config, log)
			if err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, "recovered at revision %d, epoch %d, without %d voters\nstart the agent again\n", done.Revision, done.Epoch, len(done.Lost))
			return nil
		},
	}
	command.Flags().StringVar(&config.DataDir, "data-dir", config.DataDir, "folder with everything that the node keeps")
	command.Flags().StringVar(&config.NodeName, "node-name", config.NodeName, "name of the Node object")
	command.Flags().BoolVar(&confirmed, "yes", false, "do it")
	return command
}

func fetchQuorum(ctx context.Context) (status quorum.Status, err error) {
	client, config, err := newClient()
	if err != nil {
		return status, err
	}
	content, err := client.CoreV1().RESTClient().Get().AbsPath(agent.QuorumPath).DoRaw(ctx)
	if err != nil {
		return status, fmt.Errorf("ask %s for the quorum: %w", config.Host, err)
	}
	if err := json.Unmarshal(content, &status); err != nil {
		return status, fmt.Errorf("read the quorum of %s: %w", config.Host, err)
	}
	return status, nil
}

func printQuorum(streams Streams, status quorum.Status) error {
	leader := status.Leader.Name
	if leader == "" {
		leader = "none"
	}
	table := tabwriter.NewWriter(streams.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(table, "State:\t%s\n", status.State)
	fmt.Fprintf(table, "Leader:\t%s\n", leader)
	fmt.Fprintf(table, "Voters:\t%d of %d; can lose %d more\n", len(status.Voters), status.Target, status.CanLose)
	fmt.Fprintf(table, "Log index:\t%d\n", status.LastIndex)
	fmt.Fprintln(table)
	fmt.Fprintln(table, "REPLICA\tROLE\tALIVE\tBEHIND\tSILENT\tZONE\tVERSION")
	for _, list := range []struct {
		role     string
		replicas []quorum.ReplicaState
	}{{"voter", status.Voters}, {"standby", status.Standbys}} {
		for _, replica := range list.replicas {
			fmt.Fprintf(table, "%s\t%s\t%v\t%s\t%s\t%s\t%s\n", replica.Name, list.role, replica.Alive,
				known(replica.LagEntries, " entries"), known(replica.SilentMillis, " ms"), orDash(replica.Zone), orDash(replica.Version))
		}
	}
	return table.Flush()
}

// known shows a figure that only the leader has.
func known(figure int64, unit string) string {
	if figure < 0 {
		return "-"
	}
	return fmt.Sprint(figure, unit)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
