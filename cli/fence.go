package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/podvine/podvine/agent"
	"github.com/podvine/podvine/agent/control/nodes"
)

func newFenceCommand(streams Streams) *cobra.Command {
	var lift bool
	command := &cobra.Command{
		Use:   "fence NODE",
		Short: "Declare that a dead node runs nothing any more, so that its StatefulSet pods are replaced",
		Long: `Pods with an identity of their own are replaced only when the old ones are known gone, and of a dead node nobody knows.
With this command you vouch for it: switch the machine off, or cut it from the network and the storage, first, and do not let it start
where it reaches no member: it would start its pods after 30 s. All its pods are removed from the cluster, and none is placed there until
--lift. It sets the taint node.kubernetes.io/out-of-service.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			said, err := fence(command.Context(), args[0], lift)
			if err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, "node/%s %s\n", args[0], said)
			return nil
		},
	}
	command.Flags().BoolVar(&lift, "lift", false, "the node is back in service")
	return command
}

// fence writes the taints that are decided on; said is what became of the node. A record that changes meanwhile is decided on anew.
func fence(ctx context.Context, name string, lift bool) (said string, err error) {
	client, _, err := newClient()
	if err != nil {
		return "", err
	}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("fence node %s: %w", name, err)
		}
		var changed bool
		if said, changed, err = fenceTaints(ctx, node, lift); err != nil || !changed {
			return err
		}
		_, err = client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
		return err
	})
	return said, err
}

// fenceTaints changes the taints of the node in memory.
func fenceTaints(ctx context.Context, node *v1.Node, lift bool) (said string, changed bool, err error) {
	if lift {
		if node.Spec.Taints, changed = nodes.Unfence(node); !changed {
			return "was not fenced", false, nil
		}
		return "in service again", true, nil
	}
	status, _, err := fetchStatus(ctx)
	if err != nil {
		return "", false, err
	}
	alive := slices.ContainsFunc(status.Members, func(m agent.MemberStatus) bool { return m.Name == node.Name && m.Alive })
	taints, changed, err := nodes.Fence(node, alive, time.Now())
	switch {
	case errors.Is(err, nodes.ErrAlive):
		return "", false, fmt.Errorf("fence node %s: %w: switch the machine off first, or empty it with `podvine kubectl drain %[1]s`", node.Name, err)
	case errors.Is(err, nodes.ErrReady):
		return "", false, fmt.Errorf("fence node %s: %w: try again in some seconds", node.Name, err)
	case err != nil:
		return "", false, fmt.Errorf("fence node %s: %w", node.Name, err)
	case !changed:
		return "was fenced already", false, nil
	}
	node.Spec.Taints = taints
	return "fenced", true, nil
}
