// Package rootca publishes the cluster's CA certificate as the ConfigMap kube-root-ca.crt in every active
// namespace, from where pods' projected volumes take it to trust the API.
//
// Ownership: the loop owns the ConfigMap's data and its description; both are put back when someone changes them.
//
// Concurrency: as [loop.Driver].
package rootca

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/podvine/podvine/agent/control/loop"
)

const (
	// Name of the ConfigMap.
	Name = "kube-root-ca.crt"
	// Key of the certificate in its data.
	Key = "ca.crt"

	descriptionKey = "kubernetes.io/description"
	description    = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints " +
		"such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)

// Loop publishes. Make it with [New].
type Loop struct {
	loop.Controller
	ca         func() []byte
	namespaces corelisters.NamespaceLister
	maps       corelisters.ConfigMapLister
}

// New makes the loop, which publishes ca, the bundle in PEM as it is now. Its client acts as the root-ca-cert-publisher.
func New(w loop.Wiring, ca func() []byte) (*Loop, error) {
	if err := w.Check("root CA"); err != nil {
		return nil, err
	}
	if ca == nil {
		return nil, errors.New("make root CA loop: CA is required")
	}
	core := w.Informers.Core().V1()
	l := &Loop{Controller: loop.NewController(w, ""), ca: ca, namespaces: core.Namespaces().Lister(), maps: core.ConfigMaps().Lister()}
	return l, l.Drive(loop.Config{
		Name: "root_ca_cert_publisher",
		Sources: []loop.Source{
			loop.OnKey(core.Namespaces().Informer()),
			loop.On(core.ConfigMaps().Informer(), func(old, new *v1.ConfigMap) []string {
				if old != nil && old.Name == Name { // our own creation needs no second look
					return []string{old.Namespace}
				}
				return nil
			}),
		},
		All:       core.Namespaces().Informer().GetIndexer().ListKeys,
		Reconcile: l.reconcile,
	})
}

// Changed has the bundle published anew in every namespace. Safe for concurrent use, also outside of Run.
func (l *Loop) Changed() {
	all, err := l.namespaces.List(labels.Everything())
	if err != nil {
		l.Logger.Error("publish root CA: list namespaces", "error", err)
	}
	for _, namespace := range all {
		l.Trigger(namespace.Name)
	}
}

func (l *Loop) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, err := l.namespaces.Get(key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	found, err := l.maps.ConfigMaps(key).Get(Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	create, update := decide(namespace, found, l.ca())
	client := l.Client.CoreV1().ConfigMaps(key)
	switch {
	case create != nil:
		_, err = client.Create(ctx, create, metav1.CreateOptions{})
	case update != nil:
		_, err = client.Update(ctx, update, metav1.UpdateOptions{})
	default:
		return 0, nil
	}
	if err == nil || apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
		return 0, nil
	}
	return 0, fmt.Errorf("publish root CA: %w", err)
}

// decide says which ConfigMap to create or update; both nil is nothing.
func decide(namespace *v1.Namespace, found *v1.ConfigMap, ca []byte) (create, update *v1.ConfigMap) {
	if namespace.DeletionTimestamp != nil || namespace.Status.Phase == v1.NamespaceTerminating {
		return nil, nil
	}
	data := map[string]string{Key: string(ca)}
	if found == nil {
		return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: Name,
			Annotations: map[string]string{descriptionKey: description}}, Data: data}, nil
	}
	if maps.Equal(found.Data, data) && found.Annotations[descriptionKey] == description {
		return nil, nil
	}
	next := found.DeepCopy()
	next.Data = data
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, descriptionKey, description)
	return nil, next
}
