package tokens

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// Objects looks up what tokens belong to. A missing object is a NotFound API error. Results are not changed.
type Objects interface {
	ServiceAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error)
	Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error)
	Node(ctx context.Context, name string) (*corev1.Node, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Live reads through the API, always the newest state.
type Live struct{ Client kubernetes.Interface }

// ServiceAccount reads an account.
func (l Live) ServiceAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	return l.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
}

// Pod reads a pod.
func (l Live) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	return l.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
}

// Node reads a node.
func (l Live) Node(ctx context.Context, name string) (*corev1.Node, error) {
	return l.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
}

// Secret reads a secret.
func (l Live) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return l.Client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

// Cached reads from listers, which trail the store by a moment, and asks Live for what they do not know yet. Secrets
// are read live always: tokens are rarely bound to one, and no cache of all secrets is kept for them.
type Cached struct {
	Live            Live
	ServiceAccounts corelisters.ServiceAccountLister
	Pods            corelisters.PodLister
	Nodes           corelisters.NodeLister
}

// ServiceAccount reads an account.
func (c Cached) ServiceAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	found, err := c.ServiceAccounts.ServiceAccounts(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return c.Live.ServiceAccount(ctx, namespace, name)
	}
	return found, err
}

// Pod reads a pod.
func (c Cached) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	found, err := c.Pods.Pods(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return c.Live.Pod(ctx, namespace, name)
	}
	return found, err
}

// Node reads a node.
func (c Cached) Node(ctx context.Context, name string) (*corev1.Node, error) {
	found, err := c.Nodes.Get(name)
	if apierrors.IsNotFound(err) {
		return c.Live.Node(ctx, name)
	}
	return found, err
}

// Secret reads a secret.
func (c Cached) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return c.Live.Secret(ctx, namespace, name)
}
