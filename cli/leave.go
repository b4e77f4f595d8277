package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/podvine/podvine/agent"
)

func newAgentLeaveCommand(streams Streams) *cobra.Command {
	config := agent.DefaultConfig()
	var wanted agent.LeaveRequest
	var confirmed bool
	command := &cobra.Command{
		Use:   "leave",
		Short: "Take this machine out of its cluster, and remove every trace of the agent from it",
		Long: `Takes this machine out of its cluster for good. Its pods are evicted, with respect for disruption budgets; those of DaemonSets and of
static manifests end with the machine. A replica hands its place over first. Then the agent ends, and its pods, network, mounts, data, keys
and certificates are removed, and with them the Node object.

It refuses when the quorum would be lost. Afterwards the agent does not start on the machine, so that it neither founds a cluster nor comes
back by itself: podvine agent reset has it forget that it was a member. A run that was interrupted is repeated with the same command.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if !confirmed {
				return fmt.Errorf("this takes the machine out of its cluster and deletes %s: say --yes to do it", config.DataDir)
			}
			if err := agent.Leave(command.Context(), config, wanted, func(step string) { fmt.Fprintln(streams.Err, step) }); err != nil {
				return err
			}
			fmt.Fprintln(streams.Out, "this machine has left its cluster")
			return nil
		},
	}
	flags := command.Flags()
	flags.StringVar(&config.DataDir, "data-dir", config.DataDir, "folder with everything that the node keeps")
	flags.StringVar(&config.ConfigDir, "config-dir", config.ConfigDir, "folder with the administrator's kubeconfig")
	flags.BoolVar(&confirmed, "yes", false, "do it")
	flags.BoolVar(&wanted.KeepPods, "keep-pods", false, "evict no pods: they end with the machine, and are replaced then")
	flags.BoolVar(&wanted.Force, "force", false, "evict pods, too, that nothing makes anew")
	flags.BoolVar(&wanted.DeleteEmptyDirData, "delete-emptydir-data", false, "evict pods, too, that have data in an emptyDir")
	return command
}
