package statefulset

import (
	"context"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
	"github.com/podvine/podvine/agent/api/kinds/workload"
)

func validate(_ context.Context, s *appsv1.StatefulSet) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&s.ObjectMeta, true, apivalidation.NameIsDNSLabel, field.NewPath("metadata"))
	spec := field.NewPath("spec")
	claims := spec.Child("volumeClaimTemplates")
	for i := range s.Spec.VolumeClaimTemplates { // an update cannot change them
		errs = append(errs, podspec.ValidateClaimSpec(&s.Spec.VolumeClaimTemplates[i].Spec, false, claims.Index(i).Child("spec"))...)
	}
	errs = append(errs, validateSpec(&s.Spec, podspec.Options{}, spec)...)
	if s.Spec.ServiceName != "" {
		for _, message := range apivalidation.NameIsDNSLabel(s.Spec.ServiceName, false) {
			errs = append(errs, field.Invalid(spec.Child("serviceName"), s.Spec.ServiceName, message))
		}
	}
	return errs
}

func validateUpdate(_ context.Context, s, old *appsv1.StatefulSet) field.ErrorList {
	at := field.NewPath("spec")
	errs := kinds.ValidateObjectMetaUpdate(&s.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, validateSpec(&s.Spec, podspec.OptionsFor(&old.Spec.Template.Spec, &old.Spec.Template.ObjectMeta), at)...)
	errs = append(errs, apivalidation.ValidateImmutableField(s.Spec.Selector, old.Spec.Selector, at.Child("selector"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(s.Spec.ServiceName, old.Spec.ServiceName, at.Child("serviceName"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(s.Spec.PodManagementPolicy, old.Spec.PodManagementPolicy, at.Child("podManagementPolicy"))...)
	if len(apivalidation.ValidateImmutableField(s.Spec.VolumeClaimTemplates, old.Spec.VolumeClaimTemplates, at)) > 0 {
		errs = append(errs, field.Invalid(at.Child("volumeClaimTemplates"), podspec.InternalView(untyped(s.Spec.VolumeClaimTemplates)), apivalidation.FieldImmutableErrorMsg))
	}
	return errs
}

// untyped are the claims without their kinds, as error texts show them.
func untyped(claims []corev1.PersistentVolumeClaim) []corev1.PersistentVolumeClaim {
	claims = slices.Clone(claims)
	for i := range claims {
		claims[i].TypeMeta = metav1.TypeMeta{}
	}
	return claims
}

func validateSpec(spec *appsv1.StatefulSetSpec, opts podspec.Options, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch spec.PodManagementPolicy {
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	case "":
		errs = append(errs, field.Required(at.Child("podManagementPolicy"), ""))
	default:
		errs = append(errs, field.Invalid(at.Child("podManagementPolicy"), spec.PodManagementPolicy, "must be 'OrderedReady' or 'Parallel'"))
	}
	errs = append(errs, validateStrategy(&spec.UpdateStrategy, at.Child("updateStrategy"))...)
	errs = append(errs, validateRetention(spec.PersistentVolumeClaimRetentionPolicy, at.Child("persistentVolumeClaimRetentionPolicy"))...)
	replicas := ptr.Deref(spec.Replicas, defaultReplicas)
	counts := []workload.Count{{Name: "replicas", Value: int64(replicas)}, {Name: "minReadySeconds", Value: int64(spec.MinReadySeconds)}}
	errs = append(errs, workload.NotNegative(at, counts...)...)
	if spec.Ordinals != nil {
		errs = append(errs, workload.NotNegative(at.Child("ordinals"), workload.Count{Name: "start", Value: int64(spec.Ordinals.Start)})...)
	}
	selector, selectorErrs := workload.ValidateSelector(spec.Selector, opts, "empty selector is invalid for statefulset", "", at.Child("selector"))
	errs = append(errs, selectorErrs...)
	if selector != nil {
		errs = append(errs, podspec.ValidateReplicaTemplate(withClaims(spec), selector, 0, "StatefulSet", at.Child("template"), opts)...)
	}
	return errs
}

// withClaims is the template with a volume for each claim template: containers mount them by name.
func withClaims(spec *appsv1.StatefulSetSpec) *corev1.PodTemplateSpec {
	if len(spec.VolumeClaimTemplates) == 0 {
		return &spec.Template
	}
	template := spec.Template
	template.Spec.Volumes = nil
	claimed := map[string]bool{}
	for i := range spec.VolumeClaimTemplates {
		name := spec.VolumeClaimTemplates[i].Name
		if claimed[name] {
			continue
		}
		claimed[name] = true
		template.Spec.Volumes = append(template.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}})
	}
	for _, v := range spec.Template.Spec.Volumes {
		if !claimed[v.Name] {
			template.Spec.Volumes = append(template.Spec.Volumes, v)
		}
	}
	return &template
}

func validateStrategy(s *appsv1.StatefulSetUpdateStrategy, at *field.Path) field.ErrorList {
	rolling := at.Child("rollingUpdate")
	switch s.Type {
	case "":
		return field.ErrorList{field.Required(at, "")}
	case appsv1.OnDeleteStatefulSetStrategyType:
		if s.RollingUpdate != nil {
			return field.ErrorList{field.Invalid(rolling, podspec.InternalView(s.RollingUpdate), "only allowed for updateStrategy 'RollingUpdate'")}
		}
		return nil
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if s.RollingUpdate == nil {
			return nil
		}
		errs := workload.NotNegative(rolling, workload.Count{Name: "partition", Value: int64(ptr.Deref(s.RollingUpdate.Partition, 0))})
		if s.RollingUpdate.MaxUnavailable != nil {
			errs = append(errs, validateMaxUnavailable(*s.RollingUpdate.MaxUnavailable, rolling.Child("maxUnavailable"))...)
		}
		return errs
	}
	return field.ErrorList{field.Invalid(at, podspec.InternalView(s), "must be 'RollingUpdate' or 'OnDelete'")}
}

func validateMaxUnavailable(v intstr.IntOrString, at *field.Path) field.ErrorList {
	errs := workload.CountOrPercent(v, at)
	if workload.Amount(v) == 0 {
		errs = append(errs, field.Invalid(at, v, "cannot be 0"))
	}
	return append(errs, workload.AtMostAll(v, at)...)
}

func validateRetention(p *appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy, at *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	supported := []appsv1.PersistentVolumeClaimRetentionPolicyType{
		appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType}
	var errs field.ErrorList
	for _, c := range []struct {
		name  string
		value appsv1.PersistentVolumeClaimRetentionPolicyType
	}{{"whenDeleted", p.WhenDeleted}, {"whenScaled", p.WhenScaled}} {
		if c.value != supported[0] && c.value != supported[1] {
			errs = append(errs, field.NotSupported(at.Child(c.name), c.value, supported))
		}
	}
	return errs
}

func validateStatusUpdate(_ context.Context, set, old *appsv1.StatefulSet) field.ErrorList {
	at, s := field.NewPath("status"), &set.Status
	errs := kinds.ValidateObjectMetaUpdate(&set.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, workload.NotNegative(at, workload.Count{Name: "replicas", Value: int64(s.Replicas)},
		workload.Count{Name: "readyReplicas", Value: int64(s.ReadyReplicas)}, workload.Count{Name: "currentReplicas", Value: int64(s.CurrentReplicas)},
		workload.Count{Name: "updatedReplicas", Value: int64(s.UpdatedReplicas)}, workload.Count{Name: "availableReplicas", Value: int64(s.AvailableReplicas)},
		workload.Count{Name: "observedGeneration", Value: s.ObservedGeneration})...)
	if s.CollisionCount != nil {
		errs = append(errs, workload.NotNegative(at, workload.Count{Name: "collisionCount", Value: int64(*s.CollisionCount)})...)
	}
	errs = append(errs, workload.AtMost(s.ReadyReplicas, s.Replicas, at.Child("readyReplicas"), "status.replicas")...)
	errs = append(errs, workload.AtMost(s.CurrentReplicas, s.Replicas, at.Child("currentReplicas"), "status.replicas")...)
	errs = append(errs, workload.AtMost(s.UpdatedReplicas, s.Replicas, at.Child("updatedReplicas"), "status.replicas")...)
	errs = append(errs, workload.AtMost(s.AvailableReplicas, s.Replicas, at.Child("availableReplicas"), "status.replicas")...)
	return append(errs, workload.AtMost(s.AvailableReplicas, s.ReadyReplicas, at.Child("availableReplicas"), "status.readyReplicas")...)
}
