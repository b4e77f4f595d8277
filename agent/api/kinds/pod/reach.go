package pod

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
)

// reach finds the node of a pod, and how to speak to it. It is immutable.
type reach struct {
	pods  rest.Getter
	nodes kinds.NodeConnector
}

// place is where a request about a pod goes: a path and query at the API of its node.
type place struct {
	pod        *corev1.Pod
	connection kinds.NodeConnection
}

// url returns the address of a path at the node.
func (p *place) url(path string, query url.Values) *url.URL {
	return &url.URL{Scheme: p.connection.URL.Scheme, Host: p.connection.URL.Host, Path: path, RawQuery: query.Encode()}
}

// containerPath is the path of an action on a container ("/exec/NAMESPACE/POD/CONTAINER").
func (p *place) containerPath(action, container string) string {
	return "/" + action + "/" + p.pod.Namespace + "/" + p.pod.Name + "/" + container
}

// connect finds the node that the pod is on.
func (r *reach) connect(ctx context.Context, p *corev1.Pod) (*place, error) {
	if p.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", p.Name))
	}
	connection, err := r.nodes.ConnectNode(ctx, p.Spec.NodeName)
	if err != nil {
		return nil, err
	}
	return &place{pod: p, connection: connection}, nil
}

// chooseContainer returns the wanted container, or the only one there is.
func chooseContainer(wanted string, p *corev1.Pod) (string, error) {
	containers, inits, ephemerals := containerNames(p)
	if wanted != "" {
		for _, list := range [][]string{containers, inits, ephemerals} {
			for _, name := range list {
				if name == wanted {
					return wanted, nil
				}
			}
		}
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", wanted, p.Name))
	}
	switch len(containers) {
	case 0:
		return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s", p.Name))
	case 1:
		return containers[0], nil
	}
	msg := fmt.Sprintf("a container name must be specified for pod %s, choose one of: [%s]", p.Name, strings.Join(containers, " "))
	if len(inits) > 0 {
		msg += fmt.Sprintf(" or one of the init containers: [%s]", strings.Join(inits, " "))
	}
	if len(ephemerals) > 0 {
		msg += fmt.Sprintf(" or one of the ephemeral containers: [%s]", strings.Join(ephemerals, " "))
	}
	return "", apierrors.NewBadRequest(msg)
}

func containerNames(p *corev1.Pod) (containers, inits, ephemerals []string) {
	for _, c := range p.Spec.Containers {
		containers = append(containers, c.Name)
	}
	for _, c := range p.Spec.InitContainers {
		inits = append(inits, c.Name)
	}
	for _, c := range p.Spec.EphemeralContainers {
		ephemerals = append(ephemerals, c.Name)
	}
	return containers, inits, ephemerals
}
