package podsecuritypolicy

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
)

// DeepCopyInto copies the policy into another.
func (p *PodSecurityPolicy) DeepCopyInto(out *PodSecurityPolicy) {
	*out = *p
	p.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Spec = p.Spec.DeepCopy()
}

// DeepCopy returns a copy that shares nothing with the policy.
func (p *PodSecurityPolicy) DeepCopy() *PodSecurityPolicy {
	if p == nil {
		return nil
	}
	out := &PodSecurityPolicy{}
	p.DeepCopyInto(out)
	return out
}

// DeepCopyObject implements runtime.Object.
func (p *PodSecurityPolicy) DeepCopyObject() runtime.Object { return p.DeepCopy() }

// DeepCopyObject implements runtime.Object.
func (l *PodSecurityPolicyList) DeepCopyObject() runtime.Object {
	if l == nil {
		return nil
	}
	out := &PodSecurityPolicyList{TypeMeta: l.TypeMeta}
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	if l.Items != nil {
		out.Items = make([]PodSecurityPolicy, len(l.Items))
		for i := range l.Items {
			l.Items[i].DeepCopyInto(&out.Items[i])
		}
	}
	return out
}

// DeepCopy returns a copy that shares nothing with the specification.
func (s *PodSecurityPolicySpec) DeepCopy() PodSecurityPolicySpec {
	out := *s
	out.DefaultAddCapabilities = slices.Clone(s.DefaultAddCapabilities)
	out.RequiredDropCapabilities = slices.Clone(s.RequiredDropCapabilities)
	out.AllowedCapabilities = slices.Clone(s.AllowedCapabilities)
	out.Volumes = slices.Clone(s.Volumes)
	out.HostPorts = slices.Clone(s.HostPorts)
	out.SELinux.SELinuxOptions = cloned(s.SELinux.SELinuxOptions)
	out.RunAsUser.Ranges = slices.Clone(s.RunAsUser.Ranges)
	if out.RunAsGroup = cloned(s.RunAsGroup); out.RunAsGroup != nil {
		out.RunAsGroup.Ranges = slices.Clone(s.RunAsGroup.Ranges)
	}
	out.SupplementalGroups.Ranges = slices.Clone(s.SupplementalGroups.Ranges)
	out.FSGroup.Ranges = slices.Clone(s.FSGroup.Ranges)
	out.DefaultAllowPrivilegeEscalation = cloned(s.DefaultAllowPrivilegeEscalation)
	out.AllowPrivilegeEscalation = cloned(s.AllowPrivilegeEscalation)
	out.AllowedHostPaths = slices.Clone(s.AllowedHostPaths)
	out.AllowedFlexVolumes = slices.Clone(s.AllowedFlexVolumes)
	out.AllowedCSIDrivers = slices.Clone(s.AllowedCSIDrivers)
	out.AllowedUnsafeSysctls = slices.Clone(s.AllowedUnsafeSysctls)
	out.ForbiddenSysctls = slices.Clone(s.ForbiddenSysctls)
	out.AllowedProcMountTypes = slices.Clone(s.AllowedProcMountTypes)
	if out.RuntimeClass = cloned(s.RuntimeClass); out.RuntimeClass != nil {
		out.RuntimeClass.AllowedRuntimeClassNames = slices.Clone(s.RuntimeClass.AllowedRuntimeClassNames)
		out.RuntimeClass.DefaultRuntimeClassName = cloned(s.RuntimeClass.DefaultRuntimeClassName)
	}
	return out
}

// cloned returns a pointer to a copy of what has no pointers itself, or whose own are copied by the caller.
func cloned[T any](p *T) *T {
	if p == nil {
		return nil
	}
	out := *p
	return &out
}
