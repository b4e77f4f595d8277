package admission

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	schedulinglisters "k8s.io/client-go/listers/scheduling/v1"
)

// priority resolves a pod's priority class, and keeps the default class the only one.
type priority struct {
	*admission.Handler
	client kubernetes.Interface
	lister schedulinglisters.PriorityClassLister
}

var (
	_ admission.MutationInterface   = (*priority)(nil)
	_ admission.ValidationInterface = (*priority)(nil)
)

func newPriority(client kubernetes.Interface, factory informers.SharedInformerFactory) *priority {
	informer := factory.Scheduling().V1().PriorityClasses()
	p := &priority{Handler: admission.NewHandler(admission.Create, admission.Update), client: client, lister: informer.Lister()}
	p.SetReadyFunc(informer.Informer().HasSynced)
	return p
}

// Admit writes priority and preemption policy into a new pod, and keeps them on update.
func (p *priority) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, pods(), "") {
		return nil
	}
	pod, err := object[*corev1.Pod](a)
	if err != nil {
		return err
	}
	if a.GetOperation() == admission.Create {
		return p.resolve(ctx, a, pod)
	}
	old, err := oldObject[*corev1.Pod](a)
	if err != nil {
		return err
	}
	if pod.Spec.Priority == nil && old.Spec.Priority != nil {
		value := *old.Spec.Priority
		pod.Spec.Priority = &value
	}
	if pod.Spec.PreemptionPolicy == nil && old.Spec.PreemptionPolicy != nil {
		policy := *old.Spec.PreemptionPolicy
		pod.Spec.PreemptionPolicy = &policy
	}
	return nil
}

func (p *priority) resolve(ctx context.Context, a admission.Attributes, pod *corev1.Pod) error {
	class, err := p.class(ctx, a, pod.Spec.PriorityClassName)
	if err != nil {
		return err
	}
	pod.Spec.PriorityClassName = class.Name
	if given := pod.Spec.Priority; given != nil && *given != class.Value {
		return forbidden(a, "the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *given, class.Value)
	}
	value := class.Value
	pod.Spec.Priority = &value
	if class.PreemptionPolicy == nil {
		return nil
	}
	policy := *class.PreemptionPolicy
	if given := pod.Spec.PreemptionPolicy; given != nil && *given != policy {
		return forbidden(a, "the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *given, policy)
	}
	pod.Spec.PreemptionPolicy = &policy
	return nil
}

// class finds a class by name; "" is the default one, which is an unnamed class of value 0 where nobody made another.
func (p *priority) class(ctx context.Context, a admission.Attributes, name string) (*schedulingv1.PriorityClass, error) {
	if name == "" {
		if !p.WaitForReady() { // without its list, the default class would be overlooked
			return nil, admission.NewForbidden(a, errors.New("not yet ready to handle request"))
		}
		class, err := p.defaultClass()
		if err != nil {
			return nil, err
		}
		if class == nil {
			policy := corev1.PreemptLowerPriority
			class = &schedulingv1.PriorityClass{PreemptionPolicy: &policy}
		}
		return class, nil
	}
	class, err := p.lister.Get(name)
	if apierrors.IsNotFound(err) {
		class, err = p.client.SchedulingV1().PriorityClasses().Get(ctx, name, metav1.GetOptions{})
	}
	switch {
	case err == nil:
		return class, nil
	case apierrors.IsNotFound(err), isBadName(err):
		return nil, forbidden(a, "no PriorityClass with name %v was found", name)
	}
	return nil, fmt.Errorf("failed to get PriorityClass with name %s: %w", name, err)
}

// defaultClass is the default class of the least value, nil where there is none.
func (p *priority) defaultClass() (*schedulingv1.PriorityClass, error) {
	list, err := p.lister.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("failed to get default priority class: %w", err)
	}
	var least *schedulingv1.PriorityClass
	for _, c := range list {
		if c.GlobalDefault && (least == nil || c.Value < least.Value) {
			least = c
		}
	}
	return least, nil
}

// Validate refuses a second default class.
func (p *priority) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, priorityClasses(), "") {
		return nil
	}
	class, err := object[*schedulingv1.PriorityClass](a)
	if err != nil || !class.GlobalDefault {
		return err
	}
	current, err := p.defaultClass()
	if err != nil {
		return err
	}
	if current != nil && (a.GetOperation() == admission.Create || current.Name != class.Name) {
		return forbidden(a, "PriorityClass %v is already marked as default. Only one default can exist", current.Name)
	}
	return nil
}
