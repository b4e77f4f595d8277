// Package nodeclient is what a node says to the API and hears from it: its Node object, the pods that are bound to it, and their statuses.
//
// Role: it knows the API only. What a status says comes from the caller, so that hollow nodes, which run no pods, load an API server as
// true ones do.
//
// Ownership: the status of this node's Node object, and the statuses of its pods.
//
// Concurrency: everything is safe for use by many goroutines.
package nodeclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// CallTimeout bounds one call of the API.
const CallTimeout = 10 * time.Second

// Pods lists and watches the pods that are bound to a node.
func Pods(client kubernetes.Interface, node string) cache.ListerWatcher {
	pods := client.CoreV1().Pods("")
	return selected(client, fields.OneTermEqualSelector("spec.nodeName", node).String(),
		func(ctx context.Context, o metav1.ListOptions) (kruntime.Object, error) { return pods.List(ctx, o) }, pods.Watch)
}

func selected(client kubernetes.Interface, selector string, list cache.ListWithContextFunc, watches cache.WatchFuncWithContext) cache.ListerWatcher {
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (kruntime.Object, error) {
			o.FieldSelector = selector
			return list(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return watches(ctx, o)
		},
	}, client)
}

// Report tells the API what changed of a pod's status since base.
func Report(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod, base, status corev1.PodStatus) error {
	body := func(s corev1.PodStatus) ([]byte, error) {
		return json.Marshal(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: pod.UID}, Status: s})
	}
	was, err := body(base)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	now, err := body(status)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(was, now, &corev1.Pod{})
	if err != nil {
		return fmt.Errorf("compare statuses: %w", err)
	}
	if string(patch) == "{}" {
		return nil
	}
	var m map[string]any
	if err := json.Unmarshal(patch, &m); err != nil {
		return fmt.Errorf("compare statuses: %w", err)
	}
	// The UID makes the API refuse to touch a namesake.
	m["metadata"] = map[string]any{"uid": string(pod.UID)}
	if patch, err = json.Marshal(m); err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	_, err = client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// Gone tells whether a report found its pod gone, be it that a namesake stands in its place: the API says of that only
// that the UID in the report is not to be changed.
func Gone(err error) bool {
	if apierrors.IsNotFound(err) {
		return true
	}
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" })
}

// Finish tells the API to forget a pod of which nothing is left on the node. That it knows none of this UID is no error.
func Finish(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	err := client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To(int64(0)), Preconditions: &metav1.Preconditions{UID: &pod.UID},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
