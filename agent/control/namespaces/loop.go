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
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"

	"github.com/podvine/podvine/agent/control/loop"
)

// Config wires a [Loop].
type Config struct {
	// Client acts as the namespace-controller. Required.
	Client kubernetes.Interface
	// Metadata deletes and lists objects of any kind, as the same identity. Required.
	Metadata metadata.Interface
	// Discovery tells which kinds there are; nil is Client's.
	Discovery discovery.DiscoveryInterface
	// Informers of namespaces; the caller starts them. Required.
	Informers informers.SharedInformerFactory
	// Logger is required.
	Logger *slog.Logger
	// Metrics is a registry of the loop's own; nil registers nowhere.
	Metrics prometheus.Registerer
}

// Loop ends namespaces. Make it with [New].
type Loop struct {
	cfg        Config
	driver     *loop.Driver
	namespaces corelisters.NamespaceLister
}

// New checks the configuration and asks the factory for its informers.
func New(cfg Config) (*Loop, error) {
	if cfg.Client == nil || cfg.Metadata == nil || cfg.Informers == nil || cfg.Logger == nil {
		return nil, errors.New("make namespace loop: Client, Metadata, Informers and Logger are required")
	}
	if cfg.Discovery == nil {
		cfg.Discovery = cfg.Client.Discovery()
	}
	informer := cfg.Informers.Core().V1().Namespaces()
	l := &Loop{cfg: cfg, namespaces: informer.Lister()}
	metrics, err := loop.OptionalMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	l.driver, err = loop.New(loop.Config{
		Name: "namespace",
		Sources: []loop.Source{loop.On(informer.Informer(), func(old, new *v1.Namespace) []string {
			if new == nil || new.DeletionTimestamp == nil {
				return nil
			}
			return []string{new.Name}
		})},
		All:       informer.Informer().GetIndexer().ListKeys,
		Reconcile: l.reconcile,
		Logger:    cfg.Logger,
		Metrics:   metrics,
	})
	return l, err
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
			l.driver.Trigger(n.Name)
		}
	}
}

// Run ends namespaces until ctx ends.
func (l *Loop) Run(ctx context.Context) error { return l.driver.Run(ctx) }

func (l *Loop) reconcile(ctx context.Context, key string) (time.Duration, error) {
	shown, err := l.namespaces.Get(key)
	if apierrors.IsNotFound(err) || err == nil && shown.DeletionTimestamp == nil {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	namespace, err := l.cfg.Client.CoreV1().Namespaces().Get(ctx, key, metav1.GetOptions{}) // what follows destroys
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
		if namespace, err = l.cfg.Client.CoreV1().Namespaces().UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
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
	if _, err := l.cfg.Client.CoreV1().Namespaces().Finalize(ctx, next, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
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
	_, err := l.cfg.Client.CoreV1().Namespaces().UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
