package api

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/api/kinds/priorityclass"
)

const (
	// bootstrapRetry is the pause between attempts to make the objects that every cluster has.
	bootstrapRetry = 200 * time.Millisecond
	// systemNamespacesQueue is how many deletions of namespaces may wait to be looked at; more are folded into one.
	systemNamespacesQueue = 1
)

// systemNamespaces exist in every cluster.
func systemNamespaces() []string {
	return []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease}
}

func (s *Server) addHooks(core *genericapiserver.GenericAPIServer) error {
	hooks := []BootstrapHook{
		{Name: "start-system-namespaces-controller", Run: s.keepNamespaces},
		{Name: "priority-and-fairness-config-producer", Run: s.keepFlowControl},
		{Name: "scheduling/bootstrap-system-priority-classes", Run: s.makePriorityClasses},
	}
	if s.config.KubernetesService != nil {
		hooks = append(hooks, BootstrapHook{Name: "bootstrap-controller", Run: s.keepKubernetesService})
	}
	for _, h := range append(hooks, s.config.Bootstrap...) {
		if err := core.AddPostStartHook(h.Name, h.Run); err != nil {
			return fmt.Errorf("add hook %s: %w", h.Name, err)
		}
	}
	return nil
}

// retry calls f until it succeeds or the context ends; what fails right after the start (no quorum yet) passes.
func (s *Server) retry(ctx context.Context, what string, f func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextCancel(ctx, bootstrapRetry, true, func(ctx context.Context) (bool, error) {
		err := f(ctx)
		if err != nil && (last == nil || err.Error() != last.Error()) {
			s.config.Log.Warn("bootstrap: try again", "what", what, "error", err)
		}
		last = err
		return err == nil, nil
	})
	if err != nil && last != nil {
		return fmt.Errorf("%s: %w", what, last)
	}
	return err
}

// keepNamespaces makes the system namespaces, and makes them again when one is deleted.
func (s *Server) keepNamespaces(hook HookContext) error {
	client, err := kubernetes.NewForConfig(hook.LoopbackClientConfig)
	if err != nil {
		return err
	}
	ensure := func(ctx context.Context) error { return ensureNamespaces(ctx, client) }
	if err := s.retry(hook, "make system namespaces", ensure); err != nil {
		return err
	}
	deleted := make(chan struct{}, systemNamespacesQueue)
	_, err = s.informers.Core().V1().Namespaces().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		DeleteFunc: func(any) {
			select {
			case deleted <- struct{}{}:
			default: // a look is due already
			}
		}})
	if err != nil {
		return err
	}
	s.informers.Start(hook.Done())
	go func() {
		for {
			select {
			case <-hook.Done():
				return
			case <-deleted:
				if err := s.retry(hook, "make system namespaces", ensure); err != nil {
					return // the server ends
				}
			}
		}
	}()
	return nil
}

// makePriorityClasses makes the classes of the system's own pods.
func (s *Server) makePriorityClasses(hook HookContext) error {
	client, err := kubernetes.NewForConfig(hook.LoopbackClientConfig)
	if err != nil {
		return err
	}
	return s.retry(hook, "make system priority classes", func(ctx context.Context) error {
		classes := client.SchedulingV1().PriorityClasses()
		for _, class := range priorityclass.System() {
			_, err := classes.Get(ctx, class.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				_, err = classes.Create(ctx, class, metav1.CreateOptions{})
			}
			if ignoreExists(err) != nil {
				return err
			}
		}
		return nil
	})
}

func ensureNamespaces(ctx context.Context, client kubernetes.Interface) error {
	for _, name := range systemNamespaces() {
		_, err := client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		}
		if ignoreExists(err) != nil {
			return err
		}
	}
	return nil
}
