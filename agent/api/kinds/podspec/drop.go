package podspec

import corev1 "k8s.io/api/core/v1"

// DropDisabled removes the fields that Kubernetes 1.37 keeps behind feature gates that are off by default. Nothing
// can have stored them, so there is no old object to look at.
func DropDisabled(spec *corev1.PodSpec) {
	spec.SchedulingGroup = nil
	spec.EvictionResponders = nil
	for i := range spec.Containers {
		dropFromContainer(&spec.Containers[i])
	}
	for i := range spec.InitContainers {
		dropFromContainer(&spec.InitContainers[i])
	}
	for i := range spec.EphemeralContainers {
		c := corev1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon)
		dropFromContainer(&c)
		spec.EphemeralContainers[i].EphemeralContainerCommon = corev1.EphemeralContainerCommon(c)
	}
	for i := range spec.Volumes {
		dropFromVolume(&spec.Volumes[i])
	}
}

// DropDisabledStatus does the same for what nodes report. It takes the gates DRANodeAllocatableResources,
// CSIVolumeHealth and ContainerStopSignals as off.
func DropDisabledStatus(status *corev1.PodStatus) {
	status.NodeAllocatableResourceClaimStatuses = nil
	status.VolumeHealth = nil
	for _, list := range [][]corev1.ContainerStatus{status.InitContainerStatuses, status.ContainerStatuses, status.EphemeralContainerStatuses} {
		for i := range list {
			list[i].StopSignal = nil
		}
	}
}

// dropFromContainer takes the gates ContainerStopSignals, H2CContainerProbe and VolumeBindMountOptions as off.
func dropFromContainer(c *corev1.Container) {
	drop := func(get *corev1.HTTPGetAction) {
		if get != nil {
			get.Protocol = nil
		}
	}
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if p != nil {
			drop(p.HTTPGet)
			if p.GRPC != nil {
				p.GRPC.Mode = nil
			}
		}
	}
	if l := c.Lifecycle; l != nil {
		l.StopSignal = nil
		for _, h := range []*corev1.LifecycleHandler{l.PostStart, l.PreStop} {
			if h != nil {
				drop(h.HTTPGet)
			}
		}
	}
	for i := range c.VolumeMounts {
		c.VolumeMounts[i].BindMountOptions = nil
	}
}

// dropFromVolume takes the gates AtomicWriteVolumeUserFields and EmptyDirVolumeMode as off.
func dropFromVolume(v *corev1.Volume) {
	dropKeys := func(items []corev1.KeyToPath) {
		for i := range items {
			items[i].User = nil
		}
	}
	dropFiles := func(items []corev1.DownwardAPIVolumeFile) {
		for i := range items {
			items[i].User = nil
		}
	}
	if v.EmptyDir != nil {
		v.EmptyDir.Mode = nil
	}
	if v.Secret != nil {
		v.Secret.DefaultUser = nil
		dropKeys(v.Secret.Items)
	}
	if v.ConfigMap != nil {
		v.ConfigMap.DefaultUser = nil
		dropKeys(v.ConfigMap.Items)
	}
	if v.DownwardAPI != nil {
		v.DownwardAPI.DefaultUser = nil
		dropFiles(v.DownwardAPI.Items)
	}
	if v.Projected == nil {
		return
	}
	v.Projected.DefaultUser = nil
	for i := range v.Projected.Sources {
		s := &v.Projected.Sources[i]
		if s.Secret != nil {
			dropKeys(s.Secret.Items)
		}
		if s.ConfigMap != nil {
			dropKeys(s.ConfigMap.Items)
		}
		if s.DownwardAPI != nil {
			dropFiles(s.DownwardAPI.Items)
		}
		if s.ServiceAccountToken != nil {
			s.ServiceAccountToken.User = nil
		}
		if s.ClusterTrustBundle != nil {
			s.ClusterTrustBundle.User = nil
		}
		if s.PodCertificate != nil {
			s.PodCertificate.User = nil
		}
	}
}
