package admission

import (
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"

	psp "github.com/podvine/podvine/agent/api/kinds/podsecuritypolicy"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// applyPolicy fills in what a policy gives to pods that leave it out. It is pure but for the pod.
func applyPolicy(p *policyOf, pod *corev1.Pod) {
	sc := corev1.PodSecurityContext{}
	if pod.Spec.SecurityContext != nil {
		sc = *pod.Spec.SecurityContext
	}
	if r := p.Spec.SupplementalGroups; sc.SupplementalGroups == nil && r.Rule == psp.MustRunAs {
		sc.SupplementalGroups = []int64{r.Ranges[0].Min}
	}
	if r := p.Spec.FSGroup; sc.FSGroup == nil && r.Rule == psp.MustRunAs {
		sc.FSGroup = first(r.Ranges)
	}
	if sc.SELinuxOptions == nil {
		sc.SELinuxOptions = seLinuxOf(&p.Spec)
	}
	// The annotations of pods by which Kubernetes 1.24 gave the profile on are read by nobody any more.
	if sc.SeccompProfile == nil {
		sc.SeccompProfile = seccompProfile(p.Annotations[psp.SeccompDefault])
	}
	if pod.Spec.SecurityContext != nil || !reflect.ValueOf(sc).IsZero() {
		pod.Spec.SecurityContext = &sc
	}
	if c := p.Spec.RuntimeClass; c != nil && pod.Spec.RuntimeClassName == nil && c.DefaultRuntimeClassName != nil {
		name := *c.DefaultRuntimeClassName
		pod.Spec.RuntimeClassName = &name
	}
	eachContainer(pod, func(c *policyContainer) { applyToContainer(p, pod, c) })
}

func applyToContainer(p *policyOf, pod *corev1.Pod, c *policyContainer) {
	sc := corev1.SecurityContext{}
	if *c.security != nil {
		sc = **c.security
	}
	seen := effective(pod.Spec.SecurityContext, &sc)
	if seen.RunAsUser == nil && p.Spec.RunAsUser.Rule == psp.MustRunAs {
		sc.RunAsUser = first(p.Spec.RunAsUser.Ranges)
	}
	if g := p.Spec.RunAsGroup; seen.RunAsGroup == nil && g != nil && g.Rule == psp.MustRunAs {
		sc.RunAsGroup = first(g.Ranges)
	}
	if seen.SELinuxOptions == nil {
		sc.SELinuxOptions = seLinuxOf(&p.Spec)
	}
	yes, no := true, false
	if p.Spec.RunAsUser.Rule == psp.MustRunAsNonRoot && seen.RunAsNonRoot == nil && seen.RunAsUser == nil {
		sc.RunAsNonRoot = &yes
	}
	if name := p.Annotations[psp.AppArmorDefault]; name != "" && appArmorName(pod, c) == "" {
		sc.AppArmorProfile = podspec.AnnotatedProfile(name)
	}
	sc.Capabilities = withCapabilities(&p.Spec, sc.Capabilities)
	if p.Spec.ReadOnlyRootFilesystem && sc.ReadOnlyRootFilesystem == nil {
		sc.ReadOnlyRootFilesystem = &yes
	}
	if d := p.Spec.DefaultAllowPrivilegeEscalation; d != nil && sc.AllowPrivilegeEscalation == nil {
		value := *d
		sc.AllowPrivilegeEscalation = &value
	}
	if !p.mayEscalate() && sc.AllowPrivilegeEscalation == nil {
		sc.AllowPrivilegeEscalation = &no
	}
	if *c.security != nil || !reflect.ValueOf(sc).IsZero() {
		*c.security = &sc
	}
}

// withCapabilities adds the policy's to a container's own; those that the container drops are not added.
func withCapabilities(s *psp.PodSecurityPolicySpec, have *corev1.Capabilities) *corev1.Capabilities {
	var added, dropped []corev1.Capability
	if have != nil {
		added, dropped = distinct(have.Add), distinct(have.Drop)
	}
	more := slices.DeleteFunc(slices.Clone(s.DefaultAddCapabilities), func(c corev1.Capability) bool { return slices.Contains(dropped, c) })
	add, drop := distinct(slices.Concat(more, added)), distinct(slices.Concat(s.RequiredDropCapabilities, dropped))
	if len(add) == len(added) && len(drop) == len(dropped) {
		return have
	}
	return &corev1.Capabilities{Add: add, Drop: drop}
}

// distinct sorts a list and drops what it has twice; nil for an empty one.
func distinct(list []corev1.Capability) []corev1.Capability {
	if len(list) == 0 {
		return nil
	}
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

func first(ranges []psp.IDRange) *int64 {
	id := ranges[0].Min
	return &id
}

func seLinuxOf(s *psp.PodSecurityPolicySpec) *corev1.SELinuxOptions {
	if s.SELinux.Rule != psp.MustRunAs {
		return nil
	}
	return s.SELinux.SELinuxOptions.DeepCopy()
}

// policyContainer is a container of any kind as policies see it.
type policyContainer struct {
	name     string
	list     string
	index    int
	security **corev1.SecurityContext
	ports    []corev1.ContainerPort
	mounts   []corev1.VolumeMount
}

// eachContainer visits all containers of a pod.
func eachContainer(pod *corev1.Pod, visit func(*policyContainer)) {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		visit(&policyContainer{c.Name, "initContainers", i, &c.SecurityContext, c.Ports, c.VolumeMounts})
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		visit(&policyContainer{c.Name, "containers", i, &c.SecurityContext, c.Ports, c.VolumeMounts})
	}
	for i := range pod.Spec.EphemeralContainers {
		c := &pod.Spec.EphemeralContainers[i]
		visit(&policyContainer{c.Name, "ephemeralContainers", i, &c.SecurityContext, c.Ports, c.VolumeMounts})
	}
}

// effective is what counts for a container: its own, else the pod's.
func effective(pod *corev1.PodSecurityContext, container *corev1.SecurityContext) corev1.SecurityContext {
	var seen corev1.SecurityContext
	if container != nil {
		seen = *container
	}
	if pod == nil {
		return seen
	}
	if seen.RunAsUser == nil {
		seen.RunAsUser = pod.RunAsUser
	}
	if seen.RunAsGroup == nil {
		seen.RunAsGroup = pod.RunAsGroup
	}
	if seen.RunAsNonRoot == nil {
		seen.RunAsNonRoot = pod.RunAsNonRoot
	}
	if seen.SELinuxOptions == nil {
		seen.SELinuxOptions = pod.SELinuxOptions
	}
	if seen.SeccompProfile == nil {
		seen.SeccompProfile = pod.SeccompProfile
	}
	if seen.AppArmorProfile == nil {
		seen.AppArmorProfile = pod.AppArmorProfile
	}
	return seen
}
