// Package namespaces empties and ends terminating namespaces.
//
// Role: each round asks discovery what there is, custom resources included, deletes all of it, counts what is
// left and reports that in the namespace's conditions; when nothing is left the namespace's finalizer is taken
// away. Pods go first and alone: what protects them, such as network policies, stays until the last has ended.
//
// Ownership: the loop writes a terminating namespace's phase, conditions and the "kubernetes" finalizer.
//
// Concurrency: as [loop.Driver]; a namespace is worked on by one goroutine at a time.
package namespaces

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"

	"github.com/podvine/podvine/agent/control/loop"
)

// Loop ends namespaces. Make it with [New].
type Loop struct {
	loop.Controller
	metadata   metadata.Interface
	namespaces corelisters.NamespaceLister
}

// New makes the loop. Its client, and metadata, which deletes and lists objects of any kind, act as the namespace-controller.
func New(w loop.Wiring, metadata metadata.Interface) (*Loop, error) {
	if err := w.Check("namespace"); err != nil {
		return nil, err
	}
	if metadata == nil {
		return nil, errors.New("make namespace loop: Metadata is required")
	}
	informer := w.Informers.Core().V1().Namespaces()
	l := &Loop{Controller: loop.NewController(w, ""), metadata: metadata, namespaces: informer.Lister()}
	return l, l.Drive(loop.Config{
		Name: "namespace",
		Sources: []loop.Source{loop.On(informer.Informer(), func(old, new *v1.Namespace) []string {
			if new == nil || new.DeletionTimestamp == nil {
				return nil
			}
			return []string{new.Name}
		})},
		All:       informer.Informer().GetIndexer().ListKeys,
		Reconcile: l.reconcile,
	})
}

// KindsChanged looks at the namespaces that are ending now: a kind that has come or answers again may hold one up. Safe for
// concurrent use, also outside of Run.
func (l *Loop) KindsChanged() {
	all, err := l.namespaces.List(labels.Everything())
	if err != nil {
		return // a lister over a cache has no errors
	}
	for _, n := range all {
		if n.DeletionTimestamp != nil {
			l.Trigger(n.Name)
		}
	}
}

func (l *Loop) reconcile(ctx context.Context, key string) (time.Duration, error) {
	shown, err := l.namespaces.Get(key)
	if apierrors.IsNotFound(err) || err == nil && shown.DeletionTimestamp == nil {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	namespace, err := l.Client.CoreV1().Namespaces().Get(ctx, key, metav1.GetOptions{}) // what follows destroys
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if namespace.DeletionTimestamp == nil || namespace.UID != shown.UID || len(namespace.Spec.Finalizers) == 0 {
		return 0, nil
	}
	if namespace.Status.Phase != v1.NamespaceTerminating {
		next := namespace.DeepCopy()
		next.Status.Phase = v1.NamespaceTerminating
		if namespace, err = l.Client.CoreV1().Namespaces().UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
			return 0, err
		}
	}
	return l.round(ctx, namespace)
}

// round deletes, counts, and writes what that came to.
func (l *Loop) round(ctx context.Context, namespace *v1.Namespace) (time.Duration, error) {
	plan := Decide(namespace, l.clear(ctx, namespace.Name), time.Now())
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if !plan.Finalize || !slices.Contains(namespace.Spec.Finalizers, v1.FinalizerKubernetes) {
		return plan.Again, l.writeConditions(ctx, namespace, plan.Conditions)
	}
	next := namespace.DeepCopy()
	next.Spec.Finalizers = slices.DeleteFunc(next.Spec.Finalizers, func(f v1.FinalizerName) bool { return f == v1.FinalizerKubernetes })
	if _, err := l.Client.CoreV1().Namespaces().Finalize(ctx, next, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("finalize namespace: %w", err)
	}
	return 0, nil
}

func (l *Loop) writeConditions(ctx context.Context, namespace *v1.Namespace, conditions []v1.NamespaceCondition) error {
	if equality.Semantic.DeepEqual(namespace.Status.Conditions, conditions) {
		return nil
	}
	next := namespace.DeepCopy()
	next.Status.Conditions = conditions
	_, err := l.Client.CoreV1().Namespaces().UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
