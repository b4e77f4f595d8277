package podspec

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Options loosen rules that objects of older versions may break. The zero value is strict, as for a new object;
// [OptionsFor] makes the options for a change of an existing one.
type Options struct {
	// AllowInvalidLabelValueInSelector accepts label values in selectors that no label can have.
	AllowInvalidLabelValueInSelector bool
	// AllowInvalidLabelValueInNodeAffinity does the same for required node affinity.
	AllowInvalidLabelValueInNodeAffinity bool
	// AllowIndivisibleHugePages accepts amounts of huge pages that are no multiple of the page's size.
	AllowIndivisibleHugePages bool
	// AllowHostNamespaceSysctls accepts sysctls of a namespace that the pod shares with the host.
	AllowHostNamespaceSysctls bool
	// AllowInvalidDeletionCost accepts a pod deletion cost that is no number.
	AllowInvalidDeletionCost bool
	// AllowOddTokenPath accepts projected token paths that climb.
	AllowOddTokenPath bool
	// AllowHostPortMismatch accepts host ports that differ from container ports on the host network.
	AllowHostPortMismatch bool
	// AllowLegacyIPs accepts addresses in host aliases that are written in an ambiguous way.
	AllowLegacyIPs bool
	// Pod says that the specification belongs to a pod and not to a template.
	Pod bool
}

// checker holds what the parts of a specification need to know of each other.
type checker struct {
	opts       Options
	spec       *corev1.PodSpec
	meta       *metav1.ObjectMeta // of the pod; nil in a template
	volumes    map[string]corev1.VolumeSource
	claimNames sets.Set[string]
	// hostUsers says that the pod uses the host's user namespace.
	hostUsers bool
	// graceSeconds bounds how long a handler may sleep.
	graceSeconds int64
}

// Validate reports all errors of a pod specification. meta is the pod's, and nil for a template.
func Validate(spec *corev1.PodSpec, meta *metav1.ObjectMeta, path *field.Path, opts Options) field.ErrorList {
	c := &checker{opts: opts, spec: spec, meta: meta, claimNames: sets.New[string](), hostUsers: spec.HostUsers == nil || *spec.HostUsers}
	if spec.TerminationGracePeriodSeconds != nil {
		c.graceSeconds = *spec.TerminationGracePeriodSeconds
	}
	for _, claim := range spec.ResourceClaims {
		if claim.Name != "" {
			c.claimNames.Insert(claim.Name)
		}
	}
	var errs field.ErrorList
	errs = append(errs, c.checkVolumes(path.Child("volumes"))...)
	errs = append(errs, c.resourceClaims(path.Child("resourceClaims"))...)
	errs = append(errs, c.containers(path.Child("containers"))...)
	errs = append(errs, c.initContainers(path.Child("initContainers"))...)
	errs = append(errs, c.ephemeralContainers(path.Child("ephemeralContainers"))...)
	errs = append(errs, c.podResources(path)...)
	errs = append(errs, c.hostNetwork(path)...)
	errs = append(errs, requiredOneOf(spec.RestartPolicy, path.Child("restartPolicy"),
		corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)...)
	errs = append(errs, requiredOneOf(spec.DNSPolicy, path.Child("dnsPolicy"),
		corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)...)
	errs = append(errs, metav1validation.ValidateLabels(spec.NodeSelector, path.Child("nodeSelector"))...)
	errs = append(errs, c.podSecurity(path.Child("securityContext"))...)
	errs = append(errs, c.affinity(path.Child("affinity"))...)
	errs = append(errs, dnsConfig(spec, path.Child("dnsConfig"))...)
	errs = append(errs, readinessGates(spec.ReadinessGates, path.Child("readinessGates"))...)
	errs = append(errs, schedulingGates(spec.SchedulingGates, path.Child("schedulingGates"))...)
	errs = append(errs, c.topologySpread(path.Child("topologySpreadConstraints"))...)
	errs = append(errs, c.hostProcess(path)...)
	errs = append(errs, c.userNamespace(path)...)
	errs = append(errs, c.names(path)...)
	errs = append(errs, c.placement(path)...)
	errs = append(errs, c.operatingSystem(path)...)
	return Unique(errs)
}

// names checks everything that is the name of something else, or of the pod on the network.
func (c *checker) names(path *field.Path) field.ErrorList {
	spec := c.spec
	var errs field.ErrorList
	if spec.ServiceAccountName != "" {
		errs = append(errs, objectName(spec.ServiceAccountName, path.Child("serviceAccountName"))...)
	}
	if spec.NodeName != "" {
		errs = append(errs, objectName(spec.NodeName, path.Child("nodeName"))...)
	}
	if spec.ActiveDeadlineSeconds != nil {
		if s := *spec.ActiveDeadlineSeconds; s < 1 || s > math.MaxInt32 {
			errs = append(errs, field.Invalid(path.Child("activeDeadlineSeconds"), s, validation.InclusiveRangeError(1, math.MaxInt32)))
		}
	}
	if spec.Hostname != "" {
		errs = append(errs, dnsLabel(spec.Hostname, path.Child("hostname"))...)
	}
	if spec.Subdomain != "" {
		errs = append(errs, dnsLabel(spec.Subdomain, path.Child("subdomain"))...)
	}
	errs = append(errs, hostnameOverride(spec, path)...)
	errs = append(errs, hostAliases(spec.HostAliases, path.Child("hostAliases"), c.opts)...)
	if spec.PriorityClassName != "" {
		errs = append(errs, invalid(path.Child("priorityClassName"), spec.PriorityClassName, apivalidation.NameIsDNSSubdomain(spec.PriorityClassName, false))...)
	}
	if spec.RuntimeClassName != nil {
		errs = append(errs, objectName(*spec.RuntimeClassName, path.Child("runtimeClassName"))...)
	}
	return errs
}

// placement checks what the scheduler reads and no other function looks at.
func (c *checker) placement(path *field.Path) field.ErrorList {
	spec := c.spec
	errs := ValidateTolerations(spec.Tolerations, path.Child("tolerations"))
	if spec.PreemptionPolicy != nil {
		errs = append(errs, requiredOneOf(*spec.PreemptionPolicy, path.Child("preemptionPolicy"), corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	if spec.Overhead != nil {
		errs = append(errs, c.overhead(spec.Overhead, path.Child("overhead"))...)
	}
	if spec.SchedulingGroup != nil {
		errs = append(errs, schedulingGroup(spec.SchedulingGroup, path.Child("schedulingGroup"))...)
	}
	return errs
}

// ValidateTemplate reports all errors of a pod template.
func ValidateTemplate(template *corev1.PodTemplateSpec, path *field.Path, opts Options) field.ErrorList {
	errs := metav1validation.ValidateLabels(template.Labels, path.Child("labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(template.Annotations, path.Child("annotations"))...)
	errs = append(errs, ValidateAnnotations(template.Annotations, &template.Spec, path.Child("annotations"), opts)...)
	errs = append(errs, Validate(&template.Spec, nil, path.Child("spec"), opts)...)
	errs = append(errs, profilesMatch(&template.ObjectMeta, &template.Spec, path.Child("spec"))...)
	if len(template.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(path.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template"))
	}
	return errs
}
