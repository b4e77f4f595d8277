package cli

import "github.com/spf13/cobra"

func newKubeconfigCommand(streams Streams) *cobra.Command {
	return &cobra.Command{Use: "kubeconfig"}
}

func userKubeconfig() (string, error) { return "", nil }
