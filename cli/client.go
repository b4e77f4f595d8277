package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/podvine/podvine/agent"
)

// newClient returns a client for the cluster that KUBECONFIG, ~/.kube/config or this machine's own agent names.
func newClient() (kubernetes.Interface, *rest.Config, error) {
	if err := defaultKubeconfig(); err != nil {
		return nil, nil, err
	}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil)
	config, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, nil, errors.New("find a cluster: there is no kubeconfig: set KUBECONFIG, or run this on a machine with an agent")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("use the kubeconfig: %w", err)
	}
	return client, config, nil
}

// machineKubeconfig returns the path of a kubeconfig for this machine's own cluster: the administrator's for root, for
// others one with a short-lived certificate that the agent hands to the members of the group podvine. It returns "" where
// this machine has no agent, or none that serves the user.
func machineKubeconfig() (string, error) {
	path := filepath.Join(agent.DefaultConfig().ConfigDir, "admin.kubeconfig")
	file, err := os.Open(path)
	switch {
	case err == nil:
		return path, file.Close()
	case errors.Is(err, fs.ErrPermission):
		return userKubeconfig()
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	}
	return "", fmt.Errorf("find this machine's kubeconfig: %w", err)
}
