// Package cli is the command line: a file a command, thin over the packages that do the work. [Main] is the whole of
// the program; package cli/podvine only calls it.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/podvine/podvine/agent/version"
)

// Streams are where commands read and write.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// ExitError ends the program with a code of its own and prints nothing more.
type ExitError struct{ Code int }

func (e ExitError) Error() string { return fmt.Sprintf("exit with code %d", e.Code) }

// Main runs the command line that args hold, its program name first, and returns the exit code.
func Main(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	streams := Streams{In: in, Out: out, Err: errOut}
	if len(args) > 1 && args[1] == "kubectl" {
		return kubectl(args[2:], streams)
	}
	root := newRoot(streams)
	root.SetArgs(args[1:])
	err := root.ExecuteContext(ctx)
	var exit ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Code
	}
	fmt.Fprintf(errOut, "podvine: %v\n", err)
	return 1
}

func newRoot(streams Streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "podvine",
		Short: "Turn Linux machines into one computer that speaks the Kubernetes API",
		Long: `Podvine turns a set of Linux machines into one computer that speaks the Kubernetes API.

Each machine runs one agent. Agents gossip who is alive, elect a few of themselves to hold the cluster's
records, and run pods, the pod network and the service proxy locally.`,
		Version:       version.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	root.AddCommand(
		newAgentCommand(streams),
		newBackupCommand(streams),
		newCheckCommand(streams),
		newFenceCommand(streams),
		newImageCommand(streams),
		newKeysCommand(streams),
		newKubeconfigCommand(streams),
		newKubectlCommand(),
		newLabCommand(streams),
		newMembersCommand(streams),
		newQuorumCommand(streams),
		newRestoreCommand(streams),
		newStatusCommand(streams),
		newTokenCommand(streams),
		newVersionCommand(streams),
	)
	return root
}
