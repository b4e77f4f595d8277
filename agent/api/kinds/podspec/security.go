package podspec

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxSysctlBytes   = 253
	maxAppArmorBytes = 4095
	sysctlSegment    = `[a-z0-9]([-_a-z0-9]*[a-z0-9])?`
	sysctlForm       = `^(` + sysctlSegment + `[\./])*` + sysctlSegment + `$`
)

var sysctlName = regexp.MustCompile(sysctlForm)

// podSecurity checks the security context of the pod as a whole.
func (c *checker) podSecurity(path *field.Path) field.ErrorList {
	sc := c.spec.SecurityContext
	if sc == nil {
		return nil
	}
	errs := groupID(sc.FSGroup, path.Child("fsGroup"))
	errs = append(errs, userID(sc.RunAsUser, path.Child("runAsUser"))...)
	errs = append(errs, groupID(sc.RunAsGroup, path.Child("runAsGroup"))...)
	for i := range sc.SupplementalGroups {
		errs = append(errs, groupID(&sc.SupplementalGroups[i], path.Child("supplementalGroups").Index(i))...)
	}
	if share := c.spec.ShareProcessNamespace; share != nil && *share && c.spec.HostPID {
		errs = append(errs, field.Invalid(path.Child("shareProcessNamespace"), *share, "ShareProcessNamespace and HostPID cannot both be enabled"))
	}
	errs = append(errs, c.sysctls(sc.Sysctls, path.Child("sysctls"))...)
	if sc.FSGroupChangePolicy != nil {
		errs = append(errs, OneOf(*sc.FSGroupChangePolicy, path.Child("fsGroupChangePolicy"), corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)...)
	}
	errs = append(errs, seccomp(sc.SeccompProfile, path.Child("seccompProfile"))...)
	errs = append(errs, windowsOptions(sc.WindowsOptions, path.Child("windowsOptions"))...)
	errs = append(errs, appArmor(sc.AppArmorProfile, path.Child("appArmorProfile"))...)
	if sc.SupplementalGroupsPolicy != nil {
		errs = append(errs, OneOf(*sc.SupplementalGroupsPolicy, path.Child("supplementalGroupsPolicy"), corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)...)
	}
	if sc.SELinuxChangePolicy != nil {
		errs = append(errs, OneOf(*sc.SELinuxChangePolicy, path.Child("seLinuxChangePolicy"), corev1.SELinuxChangePolicyMountOption, corev1.SELinuxChangePolicyRecursive)...)
	}
	return errs
}

// containerSecurity checks the security context of one container.
func (c *checker) containerSecurity(sc *corev1.SecurityContext, path *field.Path) field.ErrorList {
	if sc == nil {
		return nil
	}
	errs := userID(sc.RunAsUser, path.Child("runAsUser"))
	errs = append(errs, groupID(sc.RunAsGroup, path.Child("runAsGroup"))...)
	if sc.ProcMount != nil {
		errs = append(errs, OneOf(*sc.ProcMount, path.Child("procMount"), corev1.DefaultProcMount, corev1.UnmaskedProcMount)...)
		if c.hostUsers && *sc.ProcMount == corev1.UnmaskedProcMount {
			errs = append(errs, field.Invalid(path.Child("procMount"), *sc.ProcMount, "`hostUsers` must be false to use `Unmasked`"))
		}
	}
	errs = append(errs, seccomp(sc.SeccompProfile, path.Child("seccompProfile"))...)
	if sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
		if privileged(sc) {
			errs = append(errs, field.Invalid(path, InternalView(sc), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
		}
		if sc.Capabilities != nil {
			for _, add := range sc.Capabilities.Add {
				if add == "CAP_SYS_ADMIN" {
					errs = append(errs, field.Invalid(path, InternalView(sc), "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"))
				}
			}
		}
	}
	errs = append(errs, windowsOptions(sc.WindowsOptions, path.Child("windowsOptions"))...)
	return append(errs, appArmor(sc.AppArmorProfile, path.Child("appArmorProfile"))...)
}

func seccomp(p *corev1.SeccompProfile, path *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	var errs field.ErrorList
	if p.Type == "" {
		errs = append(errs, field.Required(path.Child("type"), "type is required when seccompProfile is set"))
	} else {
		errs = append(errs, OneOf(p.Type, path.Child("type"), corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)...)
	}
	profile := path.Child("localhostProfile")
	switch {
	case p.Type == corev1.SeccompProfileTypeLocalhost && p.LocalhostProfile == nil:
		errs = append(errs, field.Required(profile, "must be set when seccomp type is Localhost"))
	case p.Type == corev1.SeccompProfileTypeLocalhost:
		errs = append(errs, DescendingPath(*p.LocalhostProfile, profile)...)
	case p.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(profile, InternalView(p), "can only be set when seccomp type is Localhost"))
	}
	return errs
}

func appArmor(p *corev1.AppArmorProfile, path *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	profile := path.Child("localhostProfile")
	switch p.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		return appArmorLocalhost(p, profile)
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if p.LocalhostProfile != nil {
			return field.ErrorList{field.Invalid(profile, p.LocalhostProfile, "can only be set when AppArmor type is Localhost")}
		}
		return nil
	case "":
		return field.ErrorList{field.Required(path.Child("type"), "type is required when appArmorProfile is set")}
	}
	return OneOf(p.Type, path.Child("type"), corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
}

func appArmorLocalhost(p *corev1.AppArmorProfile, path *field.Path) field.ErrorList {
	if p.LocalhostProfile == nil {
		return field.ErrorList{field.Required(path, "must be set when AppArmor type is Localhost")}
	}
	var errs field.ErrorList
	name := strings.TrimSpace(*p.LocalhostProfile)
	if name != *p.LocalhostProfile {
		errs = append(errs, field.Invalid(path, *p.LocalhostProfile, "must not be padded with whitespace"))
	} else if name == "" {
		errs = append(errs, field.Required(path, "must be set when AppArmor type is Localhost"))
	}
	if len(*p.LocalhostProfile) > maxAppArmorBytes {
		errs = append(errs, field.TooLong(path, *p.LocalhostProfile, maxAppArmorBytes))
	}
	return errs
}

func (c *checker) sysctls(list []corev1.Sysctl, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i, s := range list {
		at := path.Index(i).Child("name")
		switch {
		case s.Name == "":
			errs = append(errs, field.Required(at, ""))
		case len(s.Name) > maxSysctlBytes || !sysctlName.MatchString(s.Name):
			errs = append(errs, field.Invalid(at, s.Name, fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctlBytes, sysctlForm)))
		case names.Has(s.Name):
			errs = append(errs, field.Duplicate(at, s.Name))
		}
		names.Insert(s.Name)
		if !c.opts.AllowHostNamespaceSysctls {
			errs = append(errs, c.hostSysctl(s.Name, at)...)
		}
	}
	return errs
}

// hostSysctl refuses a setting of a namespace that is the host's.
func (c *checker) hostSysctl(name string, path *field.Path) field.ErrorList {
	dotted := DottedSysctl(name)
	ipc := dotted == "kernel.sem" || strings.HasPrefix(dotted, "kernel.shm") || strings.HasPrefix(dotted, "kernel.msg") || strings.HasPrefix(dotted, "fs.mqueue.")
	switch {
	case ipc && c.spec.HostIPC:
		return field.ErrorList{field.Invalid(path, name, "may not be specified when 'hostIPC' is true")}
	case strings.HasPrefix(dotted, "net.") && c.spec.HostNetwork:
		return field.ErrorList{field.Invalid(path, name, "may not be specified when 'hostNetwork' is true")}
	}
	return nil
}

// DottedSysctl writes a name that separates by slashes, and may have dots inside a part, with dots.
func DottedSysctl(name string) string {
	first := strings.IndexAny(name, "./")
	if first < 0 || name[first] == '.' {
		return name
	}
	return strings.NewReplacer("/", ".", ".", "/").Replace(name)
}

// userNamespace refuses what a user namespace of its own takes from the pod.
func (c *checker) userNamespace(path *field.Path) field.ErrorList {
	if c.hostUsers {
		return nil
	}
	var errs field.ErrorList
	const refused = "when `hostUsers` is false"
	if c.spec.HostPID {
		errs = append(errs, field.Forbidden(path.Child("hostPID"), refused))
	}
	if c.spec.HostNetwork {
		errs = append(errs, field.Forbidden(path.Child("hostNetwork"), refused))
	}
	if c.spec.HostIPC {
		errs = append(errs, field.Forbidden(path.Child("hostIPC"), refused))
	}
	return errs
}
