package scheduler

import (
	"context"
	"fmt"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Binder commits placements. Implementations must refuse a binding whose pod has another UID or a node already.
type Binder interface {
	// Bind binds each pod to its node and returns one error, or nil, for each binding. It is safe for
	// concurrent use.
	Bind(ctx context.Context, bindings []Binding) []error
}

// Binding is one pod's placement.
type Binding struct {
	Pod  *v1.Pod
	Node string
}

// bindParallel bounds the requests that one batch has under way.
const bindParallel = 32

// apiBinder binds through pods/binding, one request a pod.
type apiBinder struct{ client kubernetes.Interface }

func (b apiBinder) Bind(ctx context.Context, bindings []Binding) []error {
	errs := make([]error, len(bindings))
	var group sync.WaitGroup
	slots := make(chan struct{}, bindParallel)
	for i, binding := range bindings {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			errs[i] = b.bind(ctx, binding)
		})
	}
	group.Wait()
	return errs
}

func (b apiBinder) bind(ctx context.Context, binding Binding) error {
	pod := binding.Pod
	err := b.client.CoreV1().Pods(pod.Namespace).Bind(ctx, &v1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     v1.ObjectReference{Kind: "Node", Name: binding.Node},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("bind pod %s/%s to %s: %w", pod.Namespace, pod.Name, binding.Node, err)
	}
	return nil
}
