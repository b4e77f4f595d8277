package admission

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/kubernetes"
	nodelisters "k8s.io/client-go/listers/node/v1"
)

// runtimeClasses applies the overhead and the scheduling of a pod's runtime class.
type runtimeClasses struct {
	*admission.Handler
	client kubernetes.Interface
	lister nodelisters.RuntimeClassLister
}

var (
	_ admission.MutationInterface   = (*runtimeClasses)(nil)
	_ admission.ValidationInterface = (*runtimeClasses)(nil)
)

func newRuntimeClasses(config Config) *runtimeClasses {
	informer := config.Informers.Node().V1().RuntimeClasses()
	p := &runtimeClasses{Handler: admission.NewHandler(admission.Create), client: config.Client, lister: informer.Lister()}
	p.SetReadyFunc(informer.Informer().HasSynced)
	return p
}

// Admit merges the class into the pod.
func (p *runtimeClasses) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, pods(), "") {
		return nil
	}
	pod, class, err := p.find(ctx, a)
	if err != nil || class == nil {
		return err
	}
	if class.Overhead != nil {
		if pod.Spec.Overhead != nil && !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead) {
			return forbidden(a, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
		}
		pod.Spec.Overhead = class.Overhead.PodFixed.DeepCopy()
	}
	if class.Scheduling == nil {
		return nil
	}
	for k, v := range class.Scheduling.NodeSelector {
		if have, ok := pod.Spec.NodeSelector[k]; ok && have != v {
			return forbidden(a, "conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", k, v, k, have)
		}
	}
	for k, v := range class.Scheduling.NodeSelector {
		if pod.Spec.NodeSelector == nil {
			pod.Spec.NodeSelector = map[string]string{}
		}
		pod.Spec.NodeSelector[k] = v
	}
	for _, t := range class.Scheduling.Tolerations {
		if !slices.ContainsFunc(pod.Spec.Tolerations, func(o corev1.Toleration) bool { return equality.Semantic.DeepEqual(o, t) }) {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, *t.DeepCopy())
		}
	}
	return nil
}

// Validate refuses an overhead that is not that of the class.
func (p *runtimeClasses) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, pods(), "") {
		return nil
	}
	pod, class, err := p.find(ctx, a)
	if err != nil {
		return err
	}
	if class != nil && class.Overhead != nil {
		if !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead) {
			return forbidden(a, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
		}
		return nil
	}
	if len(pod.Spec.Overhead) > 0 {
		return forbidden(a, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
	}
	return nil
}

// find returns the pod and its class, which is nil where it names none.
func (p *runtimeClasses) find(ctx context.Context, a admission.Attributes) (*corev1.Pod, *nodev1.RuntimeClass, error) {
	pod, err := object[*corev1.Pod](a)
	if err != nil || pod.Spec.RuntimeClassName == nil {
		return pod, nil, err
	}
	name := *pod.Spec.RuntimeClassName
	absent := forbidden(a, "pod rejected: RuntimeClass %q not found", name)
	class, err := p.lister.Get(name)
	if apierrors.IsNotFound(err) {
		class, err = p.client.NodeV1().RuntimeClasses().Get(ctx, name, metav1.GetOptions{})
	}
	switch {
	case apierrors.IsNotFound(err), isBadName(err):
		return nil, nil, absent
	case err != nil:
		return nil, nil, fmt.Errorf("look up runtime class %s: %w", name, err)
	}
	return pod, class, nil
}
