package pod

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// validateStatusUpdate reports the errors of a change through /status.
func validateStatusUpdate(_ context.Context, p, old *corev1.Pod) field.ErrorList {
	meta, status := field.NewPath("metadata"), field.NewPath("status")
	errs := kinds.ValidateObjectMetaUpdate(&p.ObjectMeta, &old.ObjectMeta, meta)
	errs = append(errs, annotationChanges(p.Annotations, old.Annotations, meta.Child("annotations"))...)
	errs = append(errs, conditions(p.Status.Conditions, status.Child("conditions"))...)
	if p.Status.NominatedNodeName != "" {
		errs = append(errs, messages(status.Child("nominatedNodeName"), p.Status.NominatedNodeName, apivalidation.NameIsDNSSubdomain(p.Status.NominatedNodeName, false))...)
	}
	if old.Status.QOSClass != "" && p.Status.QOSClass != old.Status.QOSClass {
		errs = append(errs, field.Invalid(status.Child("qosClass"), p.Status.QOSClass, "field is immutable"))
	}
	if p.Status.ObservedGeneration < 0 {
		errs = append(errs, apivalidation.ValidateNonnegativeField(p.Status.ObservedGeneration, status.Child("observedGeneration"))...)
	}
	errs = append(errs, restarts(p, old, status)...)
	errs = append(errs, claimStatuses(p, status.Child("resourceClaimStatuses"))...)
	if s := p.Status.ExtendedResourceClaimStatus; s != nil {
		errs = append(errs, extendedClaim(s, &p.Spec, status.Child("extendedResourceClaimStatus"))...)
	}
	errs = append(errs, podIPs(p, status)...)
	return append(errs, hostIPs(p, status)...)
}

func messages(path *field.Path, value any, list []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range list {
		errs = append(errs, field.Invalid(path, value, m))
	}
	return errs
}

// conditions checks the names of conditions that are not Kubernetes' own.
func conditions(list []corev1.PodCondition, path *field.Path) field.ErrorList {
	own := sets.New(corev1.PodScheduled, corev1.PodReady, corev1.PodInitialized, corev1.ContainersReady)
	var errs field.ErrorList
	for i, c := range list {
		if !own.Has(c.Type) {
			errs = append(errs, messages(path.Index(i).Child("Type"), string(c.Type), validation.IsQualifiedName(string(c.Type)))...)
		}
		if c.ObservedGeneration < 0 {
			errs = append(errs, apivalidation.ValidateNonnegativeField(c.ObservedGeneration, path.Index(i).Child("observedGeneration"))...)
		}
	}
	return errs
}

// restarts refuses that a container which ended for good is said to run again.
func restarts(p, old *corev1.Pod, status *field.Path) field.ErrorList {
	policies := map[string]corev1.RestartPolicy{}
	collect := func(list []corev1.Container, fallback corev1.RestartPolicy) {
		for _, c := range list {
			policies[c.Name] = fallback
			if c.RestartPolicy != nil {
				policies[c.Name] = corev1.RestartPolicy(*c.RestartPolicy)
			}
			if len(c.RestartPolicyRules) > 0 {
				policies[c.Name] = corev1.RestartPolicyAlways
			}
		}
	}
	collect(old.Spec.Containers, old.Spec.RestartPolicy)
	collect(old.Spec.InitContainers, old.Spec.RestartPolicy)
	for _, c := range old.Spec.EphemeralContainers {
		policies[c.Name] = corev1.RestartPolicyNever
	}
	errs := stillEnded(p.Status.ContainerStatuses, old.Status.ContainerStatuses, policies, status.Child("containerStatuses"))
	errs = append(errs, stillEnded(p.Status.InitContainerStatuses, old.Status.InitContainerStatuses, policies, status.Child("initContainerStatuses"))...)
	return append(errs, stillEnded(p.Status.EphemeralContainerStatuses, old.Status.EphemeralContainerStatuses, policies, status.Child("ephemeralContainerStatuses"))...)
}

func stillEnded(now, old []corev1.ContainerStatus, policies map[string]corev1.RestartPolicy, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, was := range old {
		t := was.State.Terminated
		if t == nil || policies[was.Name] == corev1.RestartPolicyAlways || (policies[was.Name] == corev1.RestartPolicyOnFailure && t.ExitCode != 0) {
			continue
		}
		for _, is := range now {
			if is.Name == was.Name && is.State.Terminated == nil {
				errs = append(errs, field.Forbidden(path.Index(i).Child("state"), "may not be transitioned to non-terminated state"))
				break
			}
		}
	}
	return errs
}

func claimStatuses(p *corev1.Pod, path *field.Path) field.ErrorList {
	names := sets.New[string]()
	for _, c := range p.Spec.ResourceClaims {
		names.Insert(c.Name)
	}
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, s := range p.Status.ResourceClaimStatuses {
		at := path.Index(i)
		if !names.Has(s.Name) {
			errs = append(errs, field.Invalid(at.Child("name"), s.Name, "must match the name of an entry in `spec.resourceClaims`"))
		}
		if seen.Has(s.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), s.Name))
		}
		seen.Insert(s.Name)
		if s.ResourceClaimName != nil {
			errs = append(errs, messages(at.Child("name"), *s.ResourceClaimName, validation.IsDNS1123Subdomain(*s.ResourceClaimName))...)
		}
	}
	return errs
}

func extendedClaim(s *corev1.PodExtendedResourceClaimStatus, spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.ResourceClaimName == "" {
		errs = append(errs, field.Required(path.Child("resourceClaimName"), ""))
	} else {
		errs = append(errs, messages(path.Child("resourceClaimName"), s.ResourceClaimName, validation.IsDNS1123Subdomain(s.ResourceClaimName))...)
	}
	if len(s.RequestMappings) == 0 {
		return append(errs, field.Required(path.Child("requestMappings"), "at least one request mapping is required"))
	}
	containers := sets.New[string]()
	for _, c := range spec.Containers {
		containers.Insert(c.Name)
	}
	for _, c := range spec.InitContainers {
		containers.Insert(c.Name)
	}
	for i, m := range s.RequestMappings {
		at := path.Child("requestMappings").Index(i)
		if !containers.Has(m.ContainerName) {
			errs = append(errs, field.Invalid(at.Child("containerName"), m.ContainerName, "must match the name of an entry in `spec.initContainers.name` or `spec.containers.name`"))
		}
		if m.ResourceName == "" {
			errs = append(errs, field.Required(at.Child("resourceName"), ""))
		}
		errs = append(errs, messages(at.Child("requestName"), m.RequestName, validation.IsDNS1123Label(m.RequestName))...)
	}
	return errs
}

// podIPs demands at most one address of each family.
func podIPs(p *corev1.Pod, status *field.Path) field.ErrorList {
	path, list := status.Child("podIPs"), p.Status.PodIPs
	var errs field.ErrorList
	texts := make([]string, len(list))
	for i, ip := range list {
		errs = append(errs, validation.IsValidIPForLegacyField(path.Index(i), ip.IP, true, nil)...)
		texts[i] = ip.IP
	}
	if len(list) > 1 {
		errs = append(errs, oneOfEachFamily(texts, podspec.InternalView(list), path)...)
	}
	return errs
}

func oneOfEachFamily(texts []string, value any, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	dual, err := netutils.IsDualStackIPStrings(texts)
	if err != nil {
		errs = append(errs, field.InternalError(path, fmt.Errorf("failed to check for dual stack with error:%w", err)))
	}
	if len(texts) > 2 || (err == nil && !dual) {
		errs = append(errs, field.Invalid(path, value, "may specify no more than one IP for each IP family"))
	}
	seen := sets.New[string]()
	for i, t := range texts {
		if seen.Has(t) {
			errs = append(errs, field.Duplicate(path.Index(i), value))
		}
		seen.Insert(t)
	}
	return errs
}

// hostIPs demands that the list begins with hostIP, and at most one address of each family.
func hostIPs(p *corev1.Pod, status *field.Path) field.ErrorList {
	path, list := status.Child("hostIPs"), p.Status.HostIPs
	if len(list) == 0 {
		return nil
	}
	var errs field.ErrorList
	if p.Status.HostIP != list[0].IP {
		errs = append(errs, field.Invalid(path.Index(0).Child("ip"), list[0].IP, "must be equal to `hostIP`"))
	}
	texts := make([]string, len(list))
	for i, ip := range list {
		errs = append(errs, validation.IsValidIPForLegacyField(path.Index(i), ip.IP, true, nil)...)
		texts[i] = ip.IP
	}
	if len(list) > 1 {
		errs = append(errs, oneOfEachFamily(texts, podspec.InternalView(list), path)...)
	}
	return errs
}
