package admission

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	psp "github.com/podvine/podvine/agent/api/kinds/podsecuritypolicy"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// safeSysctls may be set without a policy's leave: they change nothing for other pods.
func safeSysctls() []string {
	return []string{"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
		"net.ipv4.ip_unprivileged_port_start"}
}

// holdToPolicy reports everything of a pod that the policy does not allow. It is pure.
func holdToPolicy(p *policyOf, pod *corev1.Pod) field.ErrorList {
	spec := field.NewPath("spec")
	path := spec.Child("securityContext")
	sc := corev1.PodSecurityContext{}
	if pod.Spec.SecurityContext != nil {
		sc = *pod.Spec.SecurityContext
	}
	var groups []int64
	if sc.FSGroup != nil {
		groups = []int64{*sc.FSGroup}
	}
	errs := inGroups(string(p.Spec.FSGroup.Rule), p.Spec.FSGroup.Ranges, groups, path.Child("fsGroup"))
	errs = append(errs, inGroups(string(p.Spec.SupplementalGroups.Rule), p.Spec.SupplementalGroups.Ranges, sc.SupplementalGroups, path.Child("supplementalGroups"))...)
	errs = append(errs, p.seccomp(sc.SeccompProfile, path.Child("seccompProfile"))...)
	errs = append(errs, p.seLinux(sc.SELinuxOptions, path.Child("seLinuxOptions"))...)
	for _, host := range []struct {
		name          string
		used, allowed bool
		what          string
	}{
		{"hostNetwork", pod.Spec.HostNetwork, p.Spec.HostNetwork, "Host network"},
		{"hostPID", pod.Spec.HostPID, p.Spec.HostPID, "Host PID"},
		{"hostIPC", pod.Spec.HostIPC, p.Spec.HostIPC, "Host IPC"},
	} {
		if host.used && !host.allowed {
			errs = append(errs, field.Invalid(path.Child(host.name), true, host.what+" is not allowed to be used"))
		}
	}
	errs = append(errs, p.sysctls(sc.Sysctls)...)
	for i := range pod.Spec.Volumes {
		errs = append(errs, p.volume(pod, &pod.Spec.Volumes[i], spec.Child("volumes").Index(i))...)
	}
	if c := p.Spec.RuntimeClass; c != nil && pod.Spec.RuntimeClassName != nil {
		if name := *pod.Spec.RuntimeClassName; !slices.Contains(c.AllowedRuntimeClassNames, psp.All) && !slices.Contains(c.AllowedRuntimeClassNames, name) {
			errs = append(errs, field.Invalid(spec.Child("runtimeClassName"), name, ""))
		}
	}
	eachContainer(pod, func(c *policyContainer) {
		errs = append(errs, p.container(pod, c, spec.Child(c.list).Index(c.index))...)
	})
	return errs
}

func inGroups(rule string, ranges []psp.IDRange, groups []int64, path *field.Path) (errs field.ErrorList) {
	if rule == psp.RunAsAny {
		return nil
	}
	if rule == psp.MustRunAs && len(groups) == 0 {
		errs = append(errs, field.Invalid(path, groups, "unable to validate empty groups against required ranges"))
	}
	for _, g := range groups {
		if !inRanges(g, ranges) {
			errs = append(errs, field.Invalid(path, groups, fmt.Sprintf("group %d must be in the ranges: %v", g, ranges)))
		}
	}
	return errs
}

func inRanges(id int64, ranges []psp.IDRange) bool {
	return slices.ContainsFunc(ranges, func(r psp.IDRange) bool { return id >= r.Min && id <= r.Max })
}

func (p *policyOf) seLinux(have *corev1.SELinuxOptions, path *field.Path) (errs field.ErrorList) {
	want := seLinuxOf(&p.Spec)
	if want == nil {
		return nil
	}
	if have == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	for _, part := range []struct{ name, have, want string }{
		{"level", sortedLevel(have.Level), sortedLevel(want.Level)}, {"role", have.Role, want.Role}, {"type", have.Type, want.Type}, {"user", have.User, want.User},
	} {
		if part.have != part.want {
			errs = append(errs, field.Invalid(path.Child(part.name), part.have, "must be "+part.want))
		}
	}
	return errs
}

// sortedLevel writes the categories of a level in an order that does not matter: s0:c6,c0 is s0:c0,c6.
func sortedLevel(level string) string {
	sensitivity, categories, ok := strings.Cut(level, ":")
	if !ok {
		return level
	}
	list := strings.Split(categories, ",")
	slices.Sort(list)
	return sensitivity + ":" + strings.Join(list, ",")
}

// seccompProfile reads a profile as annotations of policies write it, nil for none.
func seccompProfile(name string) *corev1.SeccompProfile {
	switch local, isLocal := strings.CutPrefix(name, psp.SeccompLocalhostPrefix); {
	case name == psp.SeccompUnconfined:
		return &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
	case name == psp.SeccompRuntimeDefault || name == psp.SeccompDockerDefault:
		return &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	case isLocal:
		return &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &local}
	}
	return nil
}

// seccompName is the way back.
func seccompName(profile *corev1.SeccompProfile) string {
	switch {
	case profile == nil:
		return ""
	case profile.Type == corev1.SeccompProfileTypeUnconfined:
		return psp.SeccompUnconfined
	case profile.Type == corev1.SeccompProfileTypeRuntimeDefault:
		return psp.SeccompRuntimeDefault
	case profile.LocalhostProfile != nil:
		return psp.SeccompLocalhostPrefix + *profile.LocalhostProfile
	}
	return ""
}

func (p *policyOf) seccomp(have *corev1.SeccompProfile, path *field.Path) field.ErrorList {
	allowed, words, _ := p.allowedProfiles(psp.SeccompAllowed)
	if i := slices.Index(allowed, psp.SeccompDockerDefault); i >= 0 {
		allowed = append(allowed, psp.SeccompRuntimeDefault)
	}
	name := seccompName(have)
	switch {
	case words == "" && name == "" || slices.Contains(allowed, psp.All) || name != "" && slices.Contains(allowed, name):
		return nil
	case words == "":
		return field.ErrorList{field.Forbidden(path, "seccomp may not be set")}
	}
	return field.ErrorList{field.Forbidden(path, fmt.Sprintf("%s is not an allowed seccomp profile. Valid values are %v", name, words))}
}

// appArmorName is the profile of a container as annotations write it: that of the field, else of the annotation before it, else the pod's.
func appArmorName(pod *corev1.Pod, c *policyContainer) string {
	if *c.security != nil && (*c.security).AppArmorProfile != nil {
		return appArmorProfileName((*c.security).AppArmorProfile)
	}
	if name := pod.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.name]; name != "" {
		return name
	}
	if pod.Spec.SecurityContext != nil {
		return appArmorProfileName(pod.Spec.SecurityContext.AppArmorProfile)
	}
	return ""
}

func appArmorProfileName(profile *corev1.AppArmorProfile) string {
	switch {
	case profile == nil:
		return ""
	case profile.Type == corev1.AppArmorProfileTypeUnconfined:
		return corev1.DeprecatedAppArmorBetaProfileNameUnconfined
	case profile.Type == corev1.AppArmorProfileTypeRuntimeDefault:
		return corev1.DeprecatedAppArmorBetaProfileRuntimeDefault
	case profile.LocalhostProfile != nil:
		return corev1.DeprecatedAppArmorBetaProfileNamePrefix + *profile.LocalhostProfile
	}
	return ""
}

func (p *policyOf) appArmor(pod *corev1.Pod, c *policyContainer, path *field.Path) field.ErrorList {
	allowed, words, restricted := p.allowedProfiles(psp.AppArmorAllowed)
	name := appArmorName(pod, c)
	switch {
	case !restricted || name != "" && slices.Contains(allowed, name):
		return nil
	case name == "":
		return field.ErrorList{field.Forbidden(path, "AppArmor profile must be set")}
	}
	return field.ErrorList{field.Forbidden(path, fmt.Sprintf("%s is not an allowed profile. Allowed values: %q", name, words))}
}

func (p *policyOf) sysctls(list []corev1.Sysctl) (errs field.ErrorList) {
	path := field.NewPath("pod", "spec", "securityContext", "sysctls")
	matches := func(patterns []string, name string) bool {
		return slices.ContainsFunc(patterns, func(pattern string) bool { return psp.MatchesSysctl(pattern, name) })
	}
	for i, s := range list {
		name := podspec.DottedSysctl(s.Name)
		switch {
		case matches(p.Spec.ForbiddenSysctls, name):
			errs = append(errs, field.Forbidden(path.Index(i), fmt.Sprintf("sysctl %q is not allowed", s.Name)))
		case !slices.Contains(safeSysctls(), name) && !matches(p.Spec.AllowedUnsafeSysctls, name):
			errs = append(errs, field.Forbidden(path.Index(i), fmt.Sprintf("unsafe sysctl %q is not allowed", s.Name)))
		}
	}
	return errs
}

// container checks one container.
func (p *policyOf) container(pod *corev1.Pod, c *policyContainer, path *field.Path) field.ErrorList {
	sc := effective(pod.Spec.SecurityContext, *c.security)
	at := path.Child("securityContext")
	errs := p.user(&sc, at)
	var groups []int64
	if sc.RunAsGroup != nil {
		groups = []int64{*sc.RunAsGroup}
	}
	if g := p.Spec.RunAsGroup; g != nil {
		errs = append(errs, inGroups(string(g.Rule), g.Ranges, groups, at)...)
	}
	errs = append(errs, p.seLinux(sc.SELinuxOptions, at.Child("seLinuxOptions"))...)
	errs = append(errs, p.appArmor(pod, c, at.Child("appArmorProfile"))...)
	errs = append(errs, p.seccomp(sc.SeccompProfile, at.Child("seccompProfile"))...)
	if sc.Privileged != nil && *sc.Privileged && !p.Spec.Privileged {
		errs = append(errs, field.Invalid(at.Child("privileged"), true, "Privileged containers are not allowed"))
	}
	mount, allowed := corev1.DefaultProcMount, p.Spec.AllowedProcMountTypes
	if sc.ProcMount != nil {
		mount = *sc.ProcMount
	}
	if len(allowed) == 0 {
		allowed = []corev1.ProcMountType{corev1.DefaultProcMount}
	}
	if !slices.Contains(allowed, mount) {
		errs = append(errs, field.Invalid(at.Child("procMount"), mount, "ProcMountType is not allowed"))
	}
	errs = append(errs, p.capabilities(sc.Capabilities, at.Child("capabilities"))...)
	for _, port := range c.ports {
		within := func(r psp.HostPortRange) bool { return port.HostPort >= r.Min && port.HostPort <= r.Max }
		if port.HostPort > 0 && !slices.ContainsFunc(p.Spec.HostPorts, within) {
			errs = append(errs, field.Invalid(path.Child("hostPort"), port.HostPort,
				fmt.Sprintf("Host port %d is not allowed to be used. Allowed ports: [%s]", port.HostPort, p.ports())))
		}
	}
	if ro := sc.ReadOnlyRootFilesystem; p.Spec.ReadOnlyRootFilesystem && (ro == nil || !*ro) {
		errs = append(errs, field.Invalid(at.Child("readOnlyRootFilesystem"), ro, "ReadOnlyRootFilesystem must be set to true"))
	}
	if e := sc.AllowPrivilegeEscalation; !p.mayEscalate() && (e == nil || *e) {
		errs = append(errs, field.Invalid(at.Child("allowPrivilegeEscalation"), e, "Allowing privilege escalation for containers is not allowed"))
	}
	return errs
}

func (p *policyOf) user(sc *corev1.SecurityContext, path *field.Path) field.ErrorList {
	switch p.Spec.RunAsUser.Rule {
	case psp.MustRunAs:
		if sc.RunAsUser == nil {
			return field.ErrorList{field.Required(path.Child("runAsUser"), "")}
		}
		if !inRanges(*sc.RunAsUser, p.Spec.RunAsUser.Ranges) {
			return field.ErrorList{field.Invalid(path.Child("runAsUser"), *sc.RunAsUser, fmt.Sprintf("must be in the ranges: %v", p.Spec.RunAsUser.Ranges))}
		}
	case psp.MustRunAsNonRoot:
		switch {
		case sc.RunAsNonRoot == nil && sc.RunAsUser == nil:
			return field.ErrorList{field.Required(path.Child("runAsNonRoot"), "must be true")}
		case sc.RunAsNonRoot != nil && !*sc.RunAsNonRoot:
			return field.ErrorList{field.Invalid(path.Child("runAsNonRoot"), false, "must be true")}
		case sc.RunAsUser != nil && *sc.RunAsUser == 0:
			return field.ErrorList{field.Invalid(path.Child("runAsUser"), 0, "running with the root UID is forbidden")}
		}
	}
	return nil
}

func (p *policyOf) capabilities(have *corev1.Capabilities, path *field.Path) (errs field.ErrorList) {
	s := &p.Spec
	if have == nil {
		if len(s.DefaultAddCapabilities)+len(s.RequiredDropCapabilities) > 0 {
			errs = append(errs, field.Invalid(path, have, "required capabilities are not set on the securityContext"))
		}
		return errs
	}
	if slices.Contains(s.AllowedCapabilities, psp.All) {
		return nil
	}
	for _, c := range have.Add {
		if !slices.Contains(s.DefaultAddCapabilities, c) && !slices.Contains(s.AllowedCapabilities, c) {
			errs = append(errs, field.Invalid(path.Child("add"), c, "capability may not be added"))
		}
	}
	for _, c := range s.RequiredDropCapabilities {
		if !slices.Contains(have.Drop, c) {
			errs = append(errs, field.Invalid(path.Child("drop"), have.Drop, fmt.Sprintf("%s is required to be dropped but was not found", c)))
		}
	}
	return errs
}
