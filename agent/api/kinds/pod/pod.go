// Package pod serves v1 Pod and everything below it: status, binding, eviction, ephemeral containers, resizing, and
// the connections to a pod on its node (log, exec, attach, port-forward, proxy).
//
// What a pod's specification means stands in package podspec; here is what the life of a pod allows: which fields may
// change when, how deletion waits, what kubectl prints. All decisions are pure functions over the published types. The
// storages are safe for concurrent use and keep no state of their own.
package pod

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
	"github.com/podvine/podvine/agent/phase"
)

// Resource returns the kind, with evictions that nothing holds back.
func Resource() kinds.Resource { return Guarded(nil) }

// Guarded returns the kind with a guard that decides on evictions.
func Guarded(guard DisruptionGuard) kinds.Resource {
	return &kinds.Kind[*corev1.Pod]{
		GroupVersion:        corev1.SchemeGroupVersion,
		Kind:                "Pod",
		Resource:            "pods",
		Singular:            "pod",
		ShortNames:          []string{"po"},
		Categories:          []string{"all"},
		Namespaced:          true,
		New:                 func() *corev1.Pod { return &corev1.Pod{} },
		NewList:             func() runtime.Object { return &corev1.PodList{} },
		Default:             setDefaults,
		PrepareForCreate:    prepareForCreate,
		PrepareForUpdate:    prepareForUpdate,
		HasGeneration:       true,
		Validate:            validate,
		ValidateUpdate:      validateUpdate,
		WarningsOnCreate:    func(_ context.Context, p *corev1.Pod) []string { return warnings(p, nil) },
		WarningsOnUpdate:    func(_ context.Context, p, old *corev1.Pod) []string { return warnings(p, old) },
		GracefulDelete:      gracefulDelete,
		ReturnDeletedObject: true,
		FieldLabels:         fieldLabels(),
		Fields:              selectable,
		Columns:             columns(),
		RowConditions:       rowConditions,
		Status: &kinds.Status[*corev1.Pod]{
			PrepareForUpdate: prepareForStatusUpdate,
			ValidateUpdate:   validateStatusUpdate,
			ResetFields:      []string{"spec", "metadata.deletionTimestamp", "metadata.ownerReferences"},
		},
		Extend: extend(guard),
	}
}

func setDefaults(p *corev1.Pod) {
	podspec.DefaultPod(&p.Spec)
	syncAddresses(&p.Status)
}

// syncAddresses keeps podIP and podIPs in step: the single address leads where the two differ, for old writers know
// only that one.
func syncAddresses(s *corev1.PodStatus) {
	switch {
	case s.PodIP != "" && (len(s.PodIPs) == 0 || s.PodIPs[0].IP != s.PodIP):
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	case s.PodIP == "" && len(s.PodIPs) > 0:
		s.PodIP = s.PodIPs[0].IP
	}
}

func prepareForCreate(_ context.Context, p *corev1.Pod) {
	noNegativeGrace(&p.Spec)
	podspec.SyncServiceAccount(&p.Spec)
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: QOSClass(p)}
	podspec.DropDisabled(&p.Spec)
	podspec.AppArmorFromAnnotations(&p.ObjectMeta, &p.Spec)
	podspec.LimitPodHugePages(&p.Spec)
	podspec.MergeLabelKeys(p.Labels, &p.Spec)
	if len(p.Spec.SchedulingGates) > 0 {
		setCondition(&p.Status, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse,
			Reason: corev1.PodReasonSchedulingGated, Message: "Scheduling is blocked due to non-empty scheduling gates", LastTransitionTime: metav1.Now()})
	}
}

func prepareForUpdate(_ context.Context, p, old *corev1.Pod) {
	noNegativeGrace(&p.Spec)
	podspec.SyncServiceAccount(&p.Spec)
	podspec.DropDisabled(&p.Spec)
	// Ephemeral containers change through a sub-resource of their own.
	p.Spec.EphemeralContainers = old.Spec.EphemeralContainers
	p.Status = old.Status
	if p.Spec.Resources == nil { // Clients that do not know the field cannot take it away.
		p.Spec.Resources = old.Spec.Resources
	}
	podspec.AppArmorFromAnnotations(&p.ObjectMeta, &p.Spec)
}

// noNegativeGrace makes the shortest grace period of a negative one.
func noNegativeGrace(spec *corev1.PodSpec) {
	if s := spec.TerminationGracePeriodSeconds; s != nil && *s < 0 {
		one := int64(1)
		spec.TerminationGracePeriodSeconds = &one
	}
}

// prepareForStatusUpdate keeps the specification, the owners, and the deletion time that only the main resource sets.
func prepareForStatusUpdate(_ context.Context, p, old *corev1.Pod) {
	p.Spec = old.Spec
	p.DeletionTimestamp = nil
	p.OwnerReferences = old.OwnerReferences
	if p.Status.QOSClass == "" {
		p.Status.QOSClass = old.Status.QOSClass
	}
	podspec.DropDisabledStatus(&p.Status)
	syncAddresses(&p.Status)
}

func setCondition(s *corev1.PodStatus, want corev1.PodCondition) {
	for i := range s.Conditions {
		if s.Conditions[i].Type == want.Type {
			s.Conditions[i] = want
			return
		}
	}
	s.Conditions = append(s.Conditions, want)
}

func fieldLabels() []string {
	return []string{"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
		"status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName"}
}

func selectable(p *corev1.Pod) fields.Set {
	ip := p.Status.PodIP
	if len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	return fields.Set{
		"spec.nodeName":            p.Spec.NodeName,
		"spec.restartPolicy":       string(p.Spec.RestartPolicy),
		"spec.schedulerName":       p.Spec.SchedulerName,
		"spec.serviceAccountName":  p.Spec.ServiceAccountName,
		"spec.hostNetwork":         fmt.Sprint(p.Spec.HostNetwork),
		"status.phase":             string(p.Status.Phase),
		"status.podIP":             ip,
		"status.podIPs":            ip,
		"status.nominatedNodeName": p.Status.NominatedNodeName,
	}
}

// gracefulDelete says how long the pod gets to end. A pod that no node has, or that has ended, goes at once.
func gracefulDelete(_ context.Context, p *corev1.Pod, options *metav1.DeleteOptions) bool {
	if options == nil {
		return false
	}
	period := int64(0)
	switch {
	case options.GracePeriodSeconds != nil:
		period = *options.GracePeriodSeconds
	case p.Spec.TerminationGracePeriodSeconds != nil:
		period = *p.Spec.TerminationGracePeriodSeconds
	}
	if p.Spec.NodeName == "" || phase.Ended(p.Status.Phase) {
		period = 0
	}
	if period < 0 {
		period = 1
	}
	options.GracePeriodSeconds = &period
	return true
}
