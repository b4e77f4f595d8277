package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/podvine/podvine/agent/pki"
)

// readyTimeout bounds the wait for a host's node to be Ready.
const readyTimeout = 90 * time.Second

// adminKubeconfig is where an agent leaves the administrator's kubeconfig, in its host.
const adminKubeconfig = "/etc/podvine/admin.kubeconfig"

// Kubeconfig returns a kubeconfig of the cluster's administrator that reaches the host's API from this machine.
func (l *Lab) Kubeconfig(host *Host) ([]byte, error) {
	content, err := l.adminKubeconfig(host)
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.Load(content)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig of %s: %w", host.Name, err)
	}
	for name, cluster := range config.Clusters {
		at := host
		if name != pki.KubeconfigName {
			if at, err = l.Host(name); err != nil { // a member of before
				delete(config.Clusters, name)
				delete(config.Contexts, name)
				continue
			}
		}
		cluster.Server = fmt.Sprintf("https://127.0.0.1:%d", at.Published[apiPort])
	}
	return clientcmd.Write(*config)
}

// adminKubeconfig reads the administrator's kubeconfig from the host, or from another where the host is an edge and has
// none.
func (l *Lab) adminKubeconfig(host *Host) ([]byte, error) {
	errs := []error{fmt.Errorf("read the kubeconfig of %s: %w", host.Name, fs.ErrNotExist)}
	for _, from := range append([]*Host{host}, l.Hosts...) {
		if !from.Up() {
			continue
		}
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", from.Init.PID, adminKubeconfig))
		if err == nil {
			return content, nil
		}
		errs = append(errs, fmt.Errorf("read the kubeconfig of %s: %w", from.Name, err))
	}
	return nil, errors.Join(errs...)
}

// Client returns a client and its configuration for the host's API, as the administrator.
func (l *Lab) Client(host *Host) (kubernetes.Interface, *rest.Config, error) {
	content, err := l.Kubeconfig(host)
	if err != nil {
		return nil, nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(content)
	if err != nil {
		return nil, nil, fmt.Errorf("use the kubeconfig of %s: %w", host.Name, err)
	}
	client, err := kubernetes.NewForConfig(config)
	return client, config, err
}

// waitReady returns when the host's node is Ready.
func (l *Lab) waitReady(ctx context.Context, host *Host) error {
	const pause = 50 * time.Millisecond
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("%s was not Ready within %s; its log is %s", host.Name, readyTimeout, l.LogPath(host)))
	defer cancel()
	for {
		err := l.ready(ctx, host)
		if err == nil {
			return nil
		}
		if !host.Up() {
			return fmt.Errorf("%s ended while starting; its log is %s", host.Name, l.LogPath(host))
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}

var errNotReady = errors.New("the node is not Ready yet")

func (l *Lab) ready(ctx context.Context, host *Host) error {
	client, _, err := l.Client(host)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the agent has not written its kubeconfig yet")
	}
	if err != nil {
		return err
	}
	node, err := client.CoreV1().Nodes().Get(ctx, host.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return errNotReady
}
