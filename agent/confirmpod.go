package agent

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/podvine/podvine/agent/pods"
)

// confirmPod asks the API whether a pod is this node's. It lists, because a node may not get a pod that is not its own.
func (n *node) confirmPod(client kubernetes.Interface) func(context.Context, pods.PodRef) (pods.Confirmation, error) {
	return func(ctx context.Context, ref pods.PodRef) (pods.Confirmation, error) {
		selector := fields.AndSelectors(fields.OneTermEqualSelector("spec.nodeName", n.dir.NodeName), fields.OneTermEqualSelector(metav1.ObjectNameField, ref.Name))
		result := client.CoreV1().RESTClient().Get().Namespace(ref.Namespace).Resource("pods").
			VersionedParams(&metav1.ListOptions{FieldSelector: selector.String()}, scheme.ParameterCodec).Do(ctx)
		found := &corev1.PodList{}
		if err := result.Into(found); err != nil {
			return pods.Unconfirmed, fmt.Errorf("ask for pod %s/%s: %w", ref.Namespace, ref.Name, err)
		}
		stale := len(result.Warnings()) > 0 // a list of pods has no other
		if len(found.Items) == 0 {
			return pods.Answer(ref, nil, stale), nil
		}
		return pods.Answer(ref, &found.Items[0], stale), nil
	}
}
