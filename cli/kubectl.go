package cli

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/tools/clientcmd"
	basecli "k8s.io/component-base/cli"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
)

// newKubectlCommand only documents the command: [Main] hands `podvine kubectl` to kubectl whole, because kubectl reads
// its own flags, finds its own plug-ins and chooses its own exit codes.
func newKubectlCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl",
		Short:              "Run kubectl, which is part of this program",
		Long:               "The whole of kubectl. Without KUBECONFIG and ~/.kube/config it takes this machine's administrator kubeconfig.",
		DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("kubectl must be the first argument: podvine kubectl …")
		},
	}
}

// kubectl runs the library's own command tree and returns its exit code.
func kubectl(args []string, streams Streams) int {
	if err := defaultKubeconfig(); err != nil {
		return kubectlFailure(err)
	}
	io := genericiooptions.IOStreams{In: streams.In, Out: streams.Out, ErrOut: streams.Err}
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50).WithWarningPrinter(io)
	command := kubectlcmd.NewDefaultKubectlCommandWithArgs(kubectlcmd.KubectlOptions{
		PluginHandler: kubectlcmd.NewDefaultPluginHandler(plugin.ValidPluginFilenamePrefixes),
		Arguments:     append([]string{"kubectl"}, args...),
		ConfigFlags:   flags,
		IOStreams:     io,
	})
	command.SetArgs(args)
	if err := basecli.RunNoErrOutput(command); err != nil {
		return kubectlFailure(err)
	}
	return 0
}

// kubectlFailure prints the error as kubectl does; it ends the process with kubectl's code for it.
func kubectlFailure(err error) int {
	kubectlutil.CheckErr(err)
	return 1
}

// defaultKubeconfig points the clients of this process at the machine's own cluster where the user named none.
func defaultKubeconfig() error {
	if os.Getenv(clientcmd.RecommendedConfigPathEnvVar) != "" {
		return nil
	}
	if _, err := os.Stat(clientcmd.RecommendedHomeFile); err == nil {
		return nil
	}
	path, err := machineKubeconfig()
	if err != nil || path == "" {
		return err
	}
	return os.Setenv(clientcmd.RecommendedConfigPathEnvVar, path)
}
