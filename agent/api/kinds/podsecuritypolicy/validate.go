package podsecuritypolicy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// Annotations of a policy: what profiles containers may have, separated by commas, and which those get that name none.
const (
	AppArmorDefault = "apparmor.security.beta.kubernetes.io/defaultProfileName"
	AppArmorAllowed = "apparmor.security.beta.kubernetes.io/allowedProfileNames"
	SeccompDefault  = "seccomp.security.alpha.kubernetes.io/defaultProfileName"
	SeccompAllowed  = "seccomp.security.alpha.kubernetes.io/allowedProfileNames"
)

// Profiles of seccomp as annotations write them.
const (
	SeccompUnconfined      = "unconfined"
	SeccompRuntimeDefault  = "runtime/default"
	SeccompDockerDefault   = "docker/default"
	SeccompLocalhostPrefix = "localhost/"
)

const (
	maxSysctlBytes = 253
	sysctlPattern  = `([a-z0-9]([-_a-z0-9]*[a-z0-9])?\.)*([a-z0-9][-_a-z0-9]*)?[a-z0-9*]`
)

var sysctlForm = regexp.MustCompile("^" + sysctlPattern + "$")

func validate(p *PodSecurityPolicy) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&p.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, validateContent(p)...)
}

// validateContent checks all but metadata that every object has. The paths are those of Kubernetes, also where they are odd.
func validateContent(p *PodSecurityPolicy) field.ErrorList {
	s, path := &p.Spec, field.NewPath("spec")
	errs := validateAnnotations(p.Annotations, field.NewPath("metadata", "annotations"))
	errs = append(errs, podspec.OneOf(s.RunAsUser.Rule, path.Child("runAsUser", "rule"), MustRunAs, MustRunAsNonRoot, RunAsAny)...)
	errs = append(errs, validateRanges(s.RunAsUser.Ranges, path.Child("runAsUser", "ranges"))...)
	errs = append(errs, validateRunAsGroup(s.RunAsGroup, path.Child("runAsGroup"))...)
	errs = append(errs, podspec.OneOf(s.SELinux.Rule, path.Child("seLinux", "rule"), MustRunAs, RunAsAny)...)
	errs = append(errs, podspec.OneOf(s.SupplementalGroups.Rule, path.Child("supplementalGroups", "rule"), MayRunAs, MustRunAs, RunAsAny)...)
	errs = append(errs, validateRanges(s.SupplementalGroups.Ranges, path.Child("supplementalGroups", "ranges"))...)
	errs = append(errs, podspec.OneOf(s.FSGroup.Rule, path.Child("fsGroup", "rule"), MayRunAs, MustRunAs, RunAsAny)...)
	errs = append(errs, validateRanges(s.FSGroup.Ranges, path.Child("fsGroup", "ranges"))...)
	types := append([]FSType{All}, volumeTypes()...)
	for _, v := range s.Volumes {
		errs = append(errs, podspec.OneOf(v, path.Child("volumes"), types...)...)
	}
	errs = append(errs, validateCapabilities(s)...)
	if d := s.DefaultAllowPrivilegeEscalation; d != nil && *d && s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation {
		errs = append(errs, field.Invalid(path.Child("defaultAllowPrivilegeEscalation"), *d,
			"Cannot set DefaultAllowPrivilegeEscalation to true without also setting AllowPrivilegeEscalation to true"))
	}
	for i, t := range s.AllowedProcMountTypes {
		errs = append(errs, podspec.OneOf(t, path.Child("allowedProcMountTypes").Index(i), corev1.DefaultProcMount, corev1.UnmaskedProcMount)...)
	}
	errs = append(errs, validateVolumes(s, path)...)
	allowed, refused := path.Child("allowedUnsafeSysctls"), path.Child("forbiddenSysctls")
	errs = append(errs, validateSysctls(s.AllowedUnsafeSysctls, allowed)...)
	errs = append(errs, validateSysctls(s.ForbiddenSysctls, refused)...)
	errs = append(errs, validateOverlap(s.AllowedUnsafeSysctls, s.ForbiddenSysctls, allowed, refused)...)
	return append(errs, validateRuntimeClass(s.RuntimeClass, path.Child("runtimeClass"))...)
}

func validateAnnotations(annotations map[string]string, path *field.Path) (errs field.ErrorList) {
	for _, key := range []string{AppArmorDefault, AppArmorAllowed} {
		for _, profile := range profiles(annotations, key) {
			if fault := podspec.AppArmorProfileFault(profile); fault != "" {
				errs = append(errs, field.Invalid(path.Key(key), annotations[key], fault))
			}
		}
	}
	for _, key := range []string{SeccompDefault, SeccompAllowed} {
		for _, profile := range profiles(annotations, key) {
			local, isLocal := strings.CutPrefix(profile, SeccompLocalhostPrefix)
			switch {
			case profile == All && key == SeccompAllowed:
			case profile == SeccompRuntimeDefault, profile == SeccompDockerDefault, profile == SeccompUnconfined:
			case isLocal:
				errs = append(errs, podspec.DescendingPath(local, path.Key(key))...)
			default:
				errs = append(errs, field.Invalid(path.Key(key), profile, "must be a valid seccomp profile"))
			}
		}
	}
	return errs
}

// profiles are those that an annotation names: the default is one, the allowed are a list.
func profiles(annotations map[string]string, key string) []string {
	switch value := annotations[key]; {
	case value == "":
		return nil
	case key == AppArmorAllowed || key == SeccompAllowed:
		return strings.Split(value, ",")
	default:
		return []string{value}
	}
}

func validateRanges(ranges []IDRange, path *field.Path) (errs field.ErrorList) {
	for i, r := range ranges {
		at := path.Index(i)
		if r.Min < 0 {
			errs = append(errs, field.Invalid(at.Child("min"), r.Min, "min cannot be negative"))
		}
		if r.Max < 0 {
			errs = append(errs, field.Invalid(at.Child("max"), r.Max, "max cannot be negative"))
		}
		if r.Min > r.Max {
			errs = append(errs, field.Invalid(at.Child("min"), r.Min, "min cannot be greater than max"))
		}
	}
	return errs
}

func validateRunAsGroup(g *RunAsGroupStrategyOptions, path *field.Path) field.ErrorList {
	if g == nil {
		return nil
	}
	ranges := path.Child("ranges")
	switch {
	case g.Rule == RunAsAny && len(g.Ranges) > 0:
		return field.ErrorList{field.Invalid(ranges, g.Ranges, "Ranges must be empty")}
	case g.Rule == RunAsAny:
		return nil
	case g.Rule != MustRunAs && g.Rule != MayRunAs:
		return podspec.OneOf(g.Rule, path.Child("rule"), MustRunAs, RunAsAny, MayRunAs)
	case len(g.Ranges) == 0:
		return field.ErrorList{field.Invalid(ranges, g.Ranges, "must provide at least one range")}
	}
	return validateRanges(g.Ranges, ranges)
}

func validateCapabilities(s *PodSecurityPolicySpec) (errs field.ErrorList) {
	if len(s.RequiredDropCapabilities) > 0 && slices.Contains(s.AllowedCapabilities, All) {
		errs = append(errs, field.Invalid(field.NewPath("requiredDropCapabilities"), s.RequiredDropCapabilities,
			"must be empty when all capabilities are allowed by a wildcard"))
	}
	for _, added := range []struct {
		name string
		list []corev1.Capability
	}{{"defaultAddCapabilities", s.DefaultAddCapabilities}, {"allowedCapabilities", s.AllowedCapabilities}} {
		for _, c := range added.list {
			if slices.Contains(s.RequiredDropCapabilities, c) {
				errs = append(errs, field.Invalid(field.NewPath(added.name), c,
					fmt.Sprintf("capability is listed in %s and requiredDropCapabilities", added.name)))
			}
		}
	}
	return errs
}

func validateVolumes(s *PodSecurityPolicySpec, path *field.Path) (errs field.ErrorList) {
	for i, p := range s.AllowedHostPaths {
		at := path.Child("allowedHostPaths").Index(i)
		if p.PathPrefix == "" {
			errs = append(errs, field.Required(at, "is required"))
			break
		}
		if slices.Contains(strings.Split(p.PathPrefix, "/"), "..") {
			errs = append(errs, field.Invalid(at, p.PathPrefix, "must not contain '..'"))
		}
	}
	for i, v := range s.AllowedFlexVolumes {
		if v.Driver == "" {
			errs = append(errs, field.Required(path.Child("allowedFlexVolumes", "allowedFlexVolumes").Index(i).Child("driver"), "must specify a driver"))
		}
	}
	for i, d := range s.AllowedCSIDrivers {
		errs = append(errs, podspec.ValidateCSIDriverName(d.Name, path.Child("allowedCSIDrivers", "allowedCSIDriver").Index(i).Child("name"))...)
	}
	return errs
}

func validateSysctls(names []string, path *field.Path) (errs field.ErrorList) {
	all := false
	for i, name := range names {
		switch {
		case name == "":
			errs = append(errs, field.Invalid(path.Index(i), name, "empty sysctl not allowed"))
		case len(name) > maxSysctlBytes || !sysctlForm.MatchString(name):
			errs = append(errs, field.Invalid(path.Index(i), name, fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctlBytes, sysctlPattern)))
		default:
			all = all || name[0] == '*'
		}
	}
	if all && len(names) > 1 {
		errs = append(errs, field.Forbidden(path.Child("items"), "if '*' is present, must not specify other sysctls"))
	}
	return errs
}

// validateOverlap refuses what is allowed and forbidden at once.
func validateOverlap(allowed, refused []string, allowedPath, refusedPath *field.Path) (errs field.ErrorList) {
	for i, a := range allowed {
		for j, f := range refused {
			switch {
			case MatchesSysctl(f, strings.TrimSuffix(a, "*")) && (strings.HasSuffix(f, "*") || !strings.HasSuffix(a, "*")):
				errs = append(errs, field.Invalid(allowedPath.Index(i), a, fmt.Sprintf("sysctl overlaps with %v", f)))
			case strings.HasSuffix(a, "*") && MatchesSysctl(a, strings.TrimSuffix(f, "*")):
				errs = append(errs, field.Invalid(refusedPath.Index(j), f, fmt.Sprintf("sysctl overlaps with %v", a)))
			}
		}
	}
	return errs
}

// MatchesSysctl says that a pattern stands for a sysctl, written with dots.
func MatchesSysctl(pattern, name string) bool {
	if prefix, open := strings.CutSuffix(pattern, "*"); open {
		return strings.HasPrefix(name, prefix)
	}
	return name == pattern
}

func validateRuntimeClass(c *RuntimeClassStrategyOptions, path *field.Path) (errs field.ErrorList) {
	if c == nil {
		return nil
	}
	list := path.Child("allowedRuntimeClassNames")
	for i, name := range c.AllowedRuntimeClassNames {
		if name != All {
			errs = append(errs, validateClassName(name, list.Index(i))...)
		}
		if slices.Contains(c.AllowedRuntimeClassNames[:i], name) {
			errs = append(errs, field.Duplicate(list.Index(i), name))
		}
	}
	any := slices.Contains(c.AllowedRuntimeClassNames, All)
	if name := c.DefaultRuntimeClassName; name != nil {
		errs = append(errs, validateClassName(*name, path.Child("defaultRuntimeClassName"))...)
		if !any && !slices.Contains(c.AllowedRuntimeClassNames, *name) {
			errs = append(errs, field.Required(list, fmt.Sprintf("default %q must be allowed", *name)))
		}
	}
	if any && len(c.AllowedRuntimeClassNames) > 1 {
		errs = append(errs, field.Invalid(list, c.AllowedRuntimeClassNames, "if '*' is present, must not specify other RuntimeClass names"))
	}
	return errs
}

func validateClassName(name string, path *field.Path) (errs field.ErrorList) {
	for _, fault := range apivalidation.NameIsDNSSubdomain(name, false) {
		errs = append(errs, field.Invalid(path, name, fault))
	}
	return errs
}
