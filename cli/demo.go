package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/podvine/podvine/agent/bundle"
	"github.com/podvine/podvine/cli/lab"
)

// demoHosts is how many hosts the demonstration starts: the fewest whose records outlive the loss of one.
const demoHosts = 3

// newLabDemo is what `make run` calls. Every step is idempotent, so a second run only shows the same again.
func newLabDemo(streams Streams, name *string) *cobra.Command {
	command := &cobra.Command{
		Use:   "demo",
		Short: "Start a lab with a sample application, and show that it answers",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return demo(command.Context(), *name, streams)
		},
	}
	return command
}

func demo(ctx context.Context, name string, streams Streams) error {
	const answerTimeout = 60 * time.Second
	say := func(format string, args ...any) { fmt.Fprintf(streams.Out, format+"\n", args...) }
	l, err := lab.Up(ctx, lab.UpOptions{Name: name, Hosts: demoHosts, Publish: []uint16{lab.DemoNodePort}, Progress: say})
	if err != nil {
		return err
	}
	defer l.Close()
	host, err := l.Host("")
	if err != nil {
		return err
	}
	client, _, err := l.Client(host)
	if err != nil {
		return err
	}
	if err := importSample(ctx, client, say); err != nil {
		return err
	}
	kubeconfig, err := writeKubeconfig(l, host)
	if err != nil {
		return err
	}
	for _, arguments := range [][]string{{"apply", "-f", "-"}, {"rollout", "status", "deployment/hello", "--timeout=60s"}, {"get", "deployments,pods,services", "-o", "wide"}} {
		if err := runKubectl(ctx, streams, kubeconfig, arguments, lab.DemoManifest); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	service, err := client.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, "hello", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("look up the sample's service: %w", err)
	}
	inside, err := exec.CommandContext(ctx, "/proc/self/exe", "lab", "exec", "--name", name, host.Name, "--", "podvine", "lab", "fetch", "http://"+service.Spec.ClusterIP).Output()
	if err != nil {
		return fmt.Errorf("ask the sample through its cluster IP: %w", err)
	}
	url := fmt.Sprintf("http://127.0.0.1:%d/", host.Published[lab.DemoNodePort])
	outside, err := lab.Fetch(ctx, url)
	if err != nil {
		return err
	}
	say("\nThrough the cluster IP %s, inside %s: %s", service.Spec.ClusterIP, host.Name, strings.TrimSpace(string(inside)))
	say("Through %s on this machine: %s", url, strings.TrimSpace(outside))
	say("\nThe sample application answers at %s\nKUBECONFIG=%s is the cluster's kubeconfig; `podvine lab down` ends it all.", url, kubeconfig)
	return nil
}

func importSample(ctx context.Context, client kubernetes.Interface, say func(string, ...any)) error {
	program, err := bundle.Sample(os.Getenv("PODVINE_PROGRAMS"))
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := lab.WriteImage(&archive, lab.DemoImage, program); err != nil {
		return err
	}
	return ImportImages(ctx, client, bytes.NewReader(archive.Bytes()), nil, func(node string, images []string) {
		say("imported %s on %s", strings.Join(images, ", "), node)
	})
}

// writeKubeconfig leaves the lab's kubeconfig beside it, readable by root alone.
func writeKubeconfig(l *lab.Lab, host *lab.Host) (string, error) {
	content, err := l.Kubeconfig(host)
	if err != nil {
		return "", err
	}
	path := filepath.Join(lab.Root, l.Name, "kubeconfig")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return "", fmt.Errorf("keep the lab's kubeconfig: %w", err)
	}
	return path, nil
}

// runKubectl runs this program's kubectl in a process of its own, because kubectl ends the process on an error.
func runKubectl(ctx context.Context, streams Streams, kubeconfig string, arguments []string, input []byte) error {
	command := exec.CommandContext(ctx, "/proc/self/exe", append([]string{"kubectl", "--kubeconfig", kubeconfig}, arguments...)...)
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(input), streams.Out, streams.Err
	if err := command.Run(); err != nil {
		return fmt.Errorf("kubectl %s: %w", strings.Join(arguments, " "), err)
	}
	return nil
}
