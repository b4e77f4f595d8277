package cli

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
	kubernetesversion "k8s.io/component-base/version"
	"sigs.k8s.io/yaml"

	"github.com/podvine/podvine/agent/version"
)

func newVersionCommand(streams Streams) *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of Podvine and of the Kubernetes API that it serves",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			versions := struct {
				Podvine    string `json:"podvine"`
				Kubernetes string `json:"kubernetes"`
				Go         string `json:"go"`
				Platform   string `json:"platform"`
			}{version.Version, kubernetesversion.Get().GitVersion, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			if output == "" {
				_, err := fmt.Fprintf(streams.Out, "podvine %s, Kubernetes API %s, %s, %s\n", versions.Podvine, versions.Kubernetes, versions.Go, versions.Platform)
				return err
			}
			return printAs(streams.Out, output, versions)
		},
	}
	addOutputFlag(command, &output)
	return command
}

func addOutputFlag(command *cobra.Command, output *string) {
	command.Flags().StringVarP(output, "output", "o", "", "json, yaml or wide instead of the table")
}

// printAs writes value as JSON or YAML.
func printAs(out interface{ Write([]byte) (int, error) }, format string, value any) error {
	var content []byte
	var err error
	switch format {
	case "json":
		if content, err = json.MarshalIndent(value, "", "  "); err == nil {
			content = append(content, '\n')
		}
	case "yaml":
		content, err = yaml.Marshal(value)
	default:
		return fmt.Errorf("print as %q: the formats are json, yaml and wide", format)
	}
	if err != nil {
		return fmt.Errorf("print as %s: %w", format, err)
	}
	_, err = out.Write(content)
	return err
}
