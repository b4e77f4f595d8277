package node

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/podvine/podvine/agent/api/kinds"
)

// maxPodCIDRs is how many pod ranges a node has: one for each IP family.
const maxPodCIDRs = 2

// preferAvoidPodsKey is the annotation by which a controller's pods are kept off a node.
const preferAvoidPodsKey = corev1.PreferAvoidPodsAnnotationKey

func validate(_ context.Context, n *corev1.Node) field.ErrorList {
	metadata := field.NewPath("metadata")
	errs := kinds.ValidateObjectMeta(&n.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, metadata)
	errs = append(errs, validateAnnotations(n.Annotations, metadata.Child("annotations"))...)
	errs = append(errs, validateTaints(n.Spec.Taints, metadata.Child("taints"))...)
	errs = append(errs, validateResources(n)...)
	return append(errs, validatePodCIDRs(n.Spec.PodCIDRs, nil)...)
}

// validateUpdate serves updates of the node and of its status: of spec only what is unset may be set, and taints and
// schedulability may change.
func validateUpdate(_ context.Context, n, old *corev1.Node) field.ErrorList {
	metadata, spec := field.NewPath("metadata"), field.NewPath("spec")
	errs := kinds.ValidateObjectMetaUpdate(&n.ObjectMeta, &old.ObjectMeta, metadata)
	errs = append(errs, validateAnnotations(n.Annotations, metadata.Child("annotations"))...)
	errs = append(errs, validateResources(n)...)
	errs = append(errs, validateAddresses(n.Status.Addresses)...)
	errs = append(errs, validatePodCIDRs(n.Spec.PodCIDRs, old.Spec.PodCIDRs)...)
	if len(old.Spec.PodCIDRs) > 0 && !apiequality.Semantic.DeepEqual(n.Spec.PodCIDRs, old.Spec.PodCIDRs) {
		errs = append(errs, field.Forbidden(spec.Child("podCIDRs"), `node updates may not change podCIDR except from "" to valid`))
	}
	if old.Spec.ProviderID != "" && n.Spec.ProviderID != old.Spec.ProviderID {
		errs = append(errs, field.Invalid(spec.Child("providerID"), nil, "field cannot be modified once set"))
	}
	if n.Spec.ConfigSource != nil && !apiequality.Semantic.DeepEqual(n.Spec.ConfigSource, old.Spec.ConfigSource) {
		errs = append(errs, field.Forbidden(spec.Child("configSource"), "updating configSource is not supported"))
	}
	errs = append(errs, validateTaints(n.Spec.Taints, metadata.Child("taints"))...)
	if n.Spec.DoNotUseExternalID != old.Spec.DoNotUseExternalID {
		errs = append(errs, field.Forbidden(spec, "node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig feature gate is enabled)"))
	}
	return errs
}

func validatePodCIDRs(cidrs, known []string) field.ErrorList {
	at := field.NewPath("spec", "podCIDRs")
	var errs field.ErrorList
	for i, cidr := range cidrs {
		errs = append(errs, validation.IsValidCIDRForLegacyField(at.Index(i), cidr, true, known)...)
	}
	if len(cidrs) < maxPodCIDRs {
		return errs
	}
	dual, err := netutils.IsDualStackCIDRStrings(cidrs)
	if err != nil {
		errs = append(errs, field.InternalError(at, fmt.Errorf("invalid PodCIDRs. failed to check with dual stack with error:%w", err)))
	}
	if !dual || len(cidrs) > maxPodCIDRs {
		errs = append(errs, field.Invalid(at, cidrs, "may specify no more than one CIDR for each IP family"))
	}
	return errs
}

func validateTaints(taints []corev1.Taint, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	type pair struct {
		key    string
		effect corev1.TaintEffect
	}
	seen := sets.New[pair]()
	for i, t := range taints {
		here := at.Index(i)
		errs = append(errs, metav1validation.ValidateLabelName(t.Key, here.Child("key"))...)
		if msgs := validation.IsValidLabelValue(t.Value); len(msgs) > 0 {
			errs = append(errs, field.Invalid(here.Child("value"), t.Value, strings.Join(msgs, ";")))
		}
		errs = append(errs, validateEffect(t.Effect, here.Child("effect"))...)
		if p := (pair{t.Key, t.Effect}); seen.Has(p) {
			duplicate := field.Duplicate(here, t)
			duplicate.Detail = "taints must be unique by key and effect pair"
			errs = append(errs, duplicate)
		} else {
			seen.Insert(p)
		}
	}
	return errs
}

func validateEffect(effect corev1.TaintEffect, at *field.Path) field.ErrorList {
	switch effect {
	case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
		return nil
	case "":
		return field.ErrorList{field.Required(at, "")}
	}
	return field.ErrorList{field.NotSupported(at, effect, []corev1.TaintEffect{
		corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute})}
}

func validateResources(n *corev1.Node) field.ErrorList {
	status := field.NewPath("status")
	errs := validateQuantities(n.Status.Capacity, status.Child("capacity"))
	return append(errs, validateQuantities(n.Status.Allocatable, status.Child("allocatable"))...)
}

// validateQuantities refuses negative amounts, and parts of what comes in whole pieces.
func validateQuantities(list corev1.ResourceList, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range sets.List(sets.KeySet(list)) {
		quantity, here := list[name], at.Child(string(name))
		if quantity.Cmp(resource.Quantity{}) < 0 {
			errs = append(errs, field.Invalid(here, quantity.String(), "must be greater than or equal to 0"))
		}
		if isWhole(name) && quantity.MilliValue()%1000 != 0 {
			errs = append(errs, field.Invalid(here, quantity.String(), "must be an integer"))
		}
	}
	return errs
}

// isWhole says that a resource is counted in pieces: pods, and extended resources.
func isWhole(name corev1.ResourceName) bool {
	if name == corev1.ResourcePods {
		return true
	}
	prefix, _, qualified := strings.Cut(string(name), "/")
	return qualified && !strings.HasSuffix(prefix, "kubernetes.io")
}

func validateAddresses(addresses []corev1.NodeAddress) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[corev1.NodeAddress]()
	for i, a := range addresses {
		if seen.Has(a) {
			errs = append(errs, field.Duplicate(field.NewPath("status", "addresses").Index(i), a))
		}
		seen.Insert(a)
	}
	return errs
}

// validateAnnotations checks the one annotation that has a schema.
func validateAnnotations(annotations map[string]string, at *field.Path) field.ErrorList {
	text := annotations[preferAvoidPodsKey]
	if text == "" {
		return nil
	}
	var avoid corev1.AvoidPods
	if err := json.Unmarshal([]byte(text), &avoid); err != nil {
		return field.ErrorList{field.Invalid(at.Child("AvoidPods"), preferAvoidPodsKey, err.Error())}
	}
	var errs field.ErrorList
	for i := range avoid.PreferAvoidPods {
		here := at.Child(preferAvoidPodsKey).Index(i).Child("podSignature")
		controller := avoid.PreferAvoidPods[i].PodSignature.PodController
		if controller == nil {
			errs = append(errs, field.Required(here, ""))
		} else if controller.Controller == nil || !*controller.Controller {
			errs = append(errs, field.Invalid(here.Child("PodController"), controller.Controller, "must point to a controller"))
		}
	}
	return errs
}
