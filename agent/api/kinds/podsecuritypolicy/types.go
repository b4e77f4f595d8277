package podsecuritypolicy

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// All is what allows everything: every capability, kind of volume or runtime class.
const All = "*"

// PodSecurityPolicy says which pods those may make who may "use" it, and what becomes of fields that they leave out.
type PodSecurityPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// Standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`
	// What the policy allows.
	// +optional
	Spec PodSecurityPolicySpec `json:"spec,omitempty" protobuf:"bytes,2,opt,name=spec"`
}

// PodSecurityPolicySpec is what a policy allows.
type PodSecurityPolicySpec struct {
	// Containers may be privileged.
	// +optional
	Privileged bool `json:"privileged,omitempty" protobuf:"varint,1,opt,name=privileged"`
	// Capabilities that every container gets which does not drop them itself. They need not stand in allowedCapabilities too.
	// +optional
	DefaultAddCapabilities []corev1.Capability `json:"defaultAddCapabilities,omitempty" protobuf:"bytes,2,rep,name=defaultAddCapabilities,casttype=k8s.io/api/core/v1.Capability"`
	// Capabilities that are dropped from every container, and that none may add.
	// +optional
	RequiredDropCapabilities []corev1.Capability `json:"requiredDropCapabilities,omitempty" protobuf:"bytes,3,rep,name=requiredDropCapabilities,casttype=k8s.io/api/core/v1.Capability"`
	// Capabilities that containers may add; "*" stands for all of them.
	// +optional
	AllowedCapabilities []corev1.Capability `json:"allowedCapabilities,omitempty" protobuf:"bytes,4,rep,name=allowedCapabilities,casttype=k8s.io/api/core/v1.Capability"`
	// Kinds of volumes that pods may have; "*" stands for all of them, and an empty list allows none.
	// +optional
	Volumes []FSType `json:"volumes,omitempty" protobuf:"bytes,5,rep,name=volumes,casttype=FSType"`
	// Pods may use the network of their host.
	// +optional
	HostNetwork bool `json:"hostNetwork,omitempty" protobuf:"varint,6,opt,name=hostNetwork"`
	// Ports of the host that pods may take.
	// +optional
	HostPorts []HostPortRange `json:"hostPorts,omitempty" protobuf:"bytes,7,rep,name=hostPorts"`
	// Pods may see the processes of their host.
	// +optional
	HostPID bool `json:"hostPID,omitempty" protobuf:"varint,8,opt,name=hostPID"`
	// Pods may use the IPC namespace of their host.
	// +optional
	HostIPC bool `json:"hostIPC,omitempty" protobuf:"varint,9,opt,name=hostIPC"`
	// Which SELinux labels processes may have.
	SELinux SELinuxStrategyOptions `json:"seLinux" protobuf:"bytes,10,opt,name=seLinux"`
	// Which users processes may run as.
	RunAsUser RunAsUserStrategyOptions `json:"runAsUser" protobuf:"bytes,11,opt,name=runAsUser"`
	// Which groups processes may run as; any where it is left out.
	// +optional
	RunAsGroup *RunAsGroupStrategyOptions `json:"runAsGroup,omitempty" protobuf:"bytes,22,opt,name=runAsGroup"`
	// Which further groups processes may belong to.
	SupplementalGroups SupplementalGroupsStrategyOptions `json:"supplementalGroups" protobuf:"bytes,12,opt,name=supplementalGroups"`
	// Which group may own the volumes of a pod.
	FSGroup FSGroupStrategyOptions `json:"fsGroup" protobuf:"bytes,13,opt,name=fsGroup"`
	// Containers must have a root file system that they cannot write to.
	// +optional
	ReadOnlyRootFilesystem bool `json:"readOnlyRootFilesystem,omitempty" protobuf:"varint,14,opt,name=readOnlyRootFilesystem"`
	// What containers that do not say get as allowPrivilegeEscalation.
	// +optional
	DefaultAllowPrivilegeEscalation *bool `json:"defaultAllowPrivilegeEscalation,omitempty" protobuf:"varint,15,opt,name=defaultAllowPrivilegeEscalation"`
	// Containers may let their processes gain privileges. True where it is left out.
	// +optional
	AllowPrivilegeEscalation *bool `json:"allowPrivilegeEscalation,omitempty" protobuf:"varint,16,opt,name=allowPrivilegeEscalation"`
	// Paths of the host that volumes of the kind hostPath may have; an empty list allows all.
	// +optional
	AllowedHostPaths []AllowedHostPath `json:"allowedHostPaths,omitempty" protobuf:"bytes,17,rep,name=allowedHostPaths"`
	// Drivers that volumes of the kind flexVolume may have; an empty list allows all.
	// +optional
	AllowedFlexVolumes []AllowedFlexVolume `json:"allowedFlexVolumes,omitempty" protobuf:"bytes,18,rep,name=allowedFlexVolumes"`
	// Drivers that volumes of the kind csi may have; an empty list allows all.
	// +optional
	AllowedCSIDrivers []AllowedCSIDriver `json:"allowedCSIDrivers,omitempty" protobuf:"bytes,23,rep,name=allowedCSIDrivers"`
	// Sysctls that pods may set although they are not safe. A name that ends in "*" stands for all that begin so.
	// +optional
	AllowedUnsafeSysctls []string `json:"allowedUnsafeSysctls,omitempty" protobuf:"bytes,19,rep,name=allowedUnsafeSysctls"`
	// Sysctls that pods may not set although they are safe. A name that ends in "*" stands for all that begin so.
	// +optional
	ForbiddenSysctls []string `json:"forbiddenSysctls,omitempty" protobuf:"bytes,20,rep,name=forbiddenSysctls"`
	// Kinds of /proc that containers may have; an empty list allows the default alone.
	// +optional
	AllowedProcMountTypes []corev1.ProcMountType `json:"allowedProcMountTypes,omitempty" protobuf:"bytes,21,opt,name=allowedProcMountTypes"`
	// Which runtime classes pods may name; any where it is left out.
	// +optional
	RuntimeClass *RuntimeClassStrategyOptions `json:"runtimeClass,omitempty" protobuf:"bytes,24,opt,name=runtimeClass"`
}

// AllowedHostPath allows the paths of the host below one.
type AllowedHostPath struct {
	// The path, of which only whole elements count: "/foo" allows "/foo/bar" and not "/food".
	PathPrefix string `json:"pathPrefix,omitempty" protobuf:"bytes,1,rep,name=pathPrefix"`
	// Only where every mount of the volume is read-only.
	// +optional
	ReadOnly bool `json:"readOnly,omitempty" protobuf:"varint,2,opt,name=readOnly"`
}

// FSType is a kind of volume.
type FSType string

// AllowedFlexVolume allows a driver of flexVolumes.
type AllowedFlexVolume struct {
	// Name of the driver.
	Driver string `json:"driver" protobuf:"bytes,1,opt,name=driver"`
}

// AllowedCSIDriver allows a CSI driver for volumes that stand in the pod itself.
type AllowedCSIDriver struct {
	// Name under which the driver is registered.
	Name string `json:"name" protobuf:"bytes,1,opt,name=name"`
}

// HostPortRange is a range of ports of the host.
type HostPortRange struct {
	// The first port.
	Min int32 `json:"min" protobuf:"varint,1,opt,name=min"`
	// The last port.
	Max int32 `json:"max" protobuf:"varint,2,opt,name=max"`
}

// IDRange is a range of numbers of users or groups.
type IDRange struct {
	// The first number.
	Min int64 `json:"min" protobuf:"varint,1,opt,name=min"`
	// The last number.
	Max int64 `json:"max" protobuf:"varint,2,opt,name=max"`
}

// Rules of strategies. Not every strategy has each of them.
const (
	// MustRunAs demands one of the values that the strategy names, and gives the first where a pod says nothing.
	MustRunAs = "MustRunAs"
	// MayRunAs demands one of the values from those that say something, and gives none.
	MayRunAs = "MayRunAs"
	// MustRunAsNonRoot demands a user that is not root.
	MustRunAsNonRoot = "MustRunAsNonRoot"
	// RunAsAny demands nothing.
	RunAsAny = "RunAsAny"
)

// SELinuxStrategy is the rule of an SELinuxStrategyOptions: MustRunAs or RunAsAny.
type SELinuxStrategy string

// SELinuxStrategyOptions says which SELinux labels processes may have.
type SELinuxStrategyOptions struct {
	// MustRunAs or RunAsAny.
	Rule SELinuxStrategy `json:"rule" protobuf:"bytes,1,opt,name=rule,casttype=SELinuxStrategy"`
	// The label that MustRunAs demands.
	// +optional
	SELinuxOptions *corev1.SELinuxOptions `json:"seLinuxOptions,omitempty" protobuf:"bytes,2,opt,name=seLinuxOptions"`
}

// RunAsUserStrategy is the rule of a RunAsUserStrategyOptions: MustRunAs, MustRunAsNonRoot or RunAsAny.
type RunAsUserStrategy string

// RunAsUserStrategyOptions says which users processes may run as.
type RunAsUserStrategyOptions struct {
	// MustRunAs, MustRunAsNonRoot or RunAsAny.
	Rule RunAsUserStrategy `json:"rule" protobuf:"bytes,1,opt,name=rule,casttype=RunAsUserStrategy"`
	// The users that MustRunAs allows.
	// +optional
	Ranges []IDRange `json:"ranges,omitempty" protobuf:"bytes,2,rep,name=ranges"`
}

// RunAsGroupStrategy is the rule of a RunAsGroupStrategyOptions: MustRunAs, MayRunAs or RunAsAny.
type RunAsGroupStrategy string

// RunAsGroupStrategyOptions says which groups processes may run as.
type RunAsGroupStrategyOptions struct {
	// MustRunAs, MayRunAs or RunAsAny.
	Rule RunAsGroupStrategy `json:"rule" protobuf:"bytes,1,opt,name=rule,casttype=RunAsGroupStrategy"`
	// The groups that MustRunAs and MayRunAs allow.
	// +optional
	Ranges []IDRange `json:"ranges,omitempty" protobuf:"bytes,2,rep,name=ranges"`
}

// FSGroupStrategyType is the rule of an FSGroupStrategyOptions: MustRunAs, MayRunAs or RunAsAny.
type FSGroupStrategyType string

// FSGroupStrategyOptions says which group may own the volumes of a pod.
type FSGroupStrategyOptions struct {
	// MustRunAs, MayRunAs or RunAsAny.
	// +optional
	Rule FSGroupStrategyType `json:"rule,omitempty" protobuf:"bytes,1,opt,name=rule,casttype=FSGroupStrategyType"`
	// The groups that MustRunAs and MayRunAs allow.
	// +optional
	Ranges []IDRange `json:"ranges,omitempty" protobuf:"bytes,2,rep,name=ranges"`
}

// SupplementalGroupsStrategyType is the rule of a SupplementalGroupsStrategyOptions: MustRunAs, MayRunAs or RunAsAny.
type SupplementalGroupsStrategyType string

// SupplementalGroupsStrategyOptions says which further groups processes may belong to.
type SupplementalGroupsStrategyOptions struct {
	// MustRunAs, MayRunAs or RunAsAny.
	// +optional
	Rule SupplementalGroupsStrategyType `json:"rule,omitempty" protobuf:"bytes,1,opt,name=rule,casttype=SupplementalGroupsStrategyType"`
	// The groups that MustRunAs and MayRunAs allow.
	// +optional
	Ranges []IDRange `json:"ranges,omitempty" protobuf:"bytes,2,rep,name=ranges"`
}

// RuntimeClassStrategyOptions says which runtime classes pods may name.
type RuntimeClassStrategyOptions struct {
	// Names of classes; "*" stands for all of them, and an empty list allows none.
	AllowedRuntimeClassNames []string `json:"allowedRuntimeClassNames" protobuf:"bytes,1,rep,name=allowedRuntimeClassNames"`
	// The class of pods that name none. It must be allowed.
	// +optional
	DefaultRuntimeClassName *string `json:"defaultRuntimeClassName,omitempty" protobuf:"bytes,2,opt,name=defaultRuntimeClassName"`
}

// PodSecurityPolicyList is a list of policies.
type PodSecurityPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	// Standard list metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`
	// The policies.
	Items []PodSecurityPolicy `json:"items" protobuf:"bytes,2,rep,name=items"`
}
