package nodeauth

import (
	corev1 "k8s.io/api/core/v1"
)

// podReferences are the objects that a pod's node needs to run it.
func podReferences(p *corev1.Pod) map[key]bool {
	refs := map[key]bool{}
	add := func(k kind, name string) {
		if name != "" {
			refs[key{k, p.Namespace, name}] = true
		}
	}
	add(accounts, p.Spec.ServiceAccountName)
	for _, s := range p.Spec.ImagePullSecrets {
		add(secrets, s.Name)
	}
	for i := range p.Spec.InitContainers {
		environment(p.Spec.InitContainers[i].Env, p.Spec.InitContainers[i].EnvFrom, add)
	}
	for i := range p.Spec.Containers {
		environment(p.Spec.Containers[i].Env, p.Spec.Containers[i].EnvFrom, add)
	}
	for i := range p.Spec.EphemeralContainers {
		environment(p.Spec.EphemeralContainers[i].Env, p.Spec.EphemeralContainers[i].EnvFrom, add)
	}
	for i := range p.Spec.Volumes {
		volumeReferences(p, &p.Spec.Volumes[i], add)
	}
	for _, c := range p.Spec.ResourceClaims {
		if c.ResourceClaimName != nil {
			add(resourceClaims, *c.ResourceClaimName)
		}
	}
	for _, c := range p.Status.ResourceClaimStatuses {
		if c.ResourceClaimName != nil {
			add(resourceClaims, *c.ResourceClaimName)
		}
	}
	if c := p.Status.ExtendedResourceClaimStatus; c != nil {
		add(resourceClaims, c.ResourceClaimName)
	}
	return refs
}

func environment(env []corev1.EnvVar, from []corev1.EnvFromSource, add func(kind, string)) {
	for i := range env {
		if v := env[i].ValueFrom; v != nil {
			if v.SecretKeyRef != nil {
				add(secrets, v.SecretKeyRef.Name)
			}
			if v.ConfigMapKeyRef != nil {
				add(configMaps, v.ConfigMapKeyRef.Name)
			}
		}
	}
	for i := range from {
		if from[i].SecretRef != nil {
			add(secrets, from[i].SecretRef.Name)
		}
		if from[i].ConfigMapRef != nil {
			add(configMaps, from[i].ConfigMapRef.Name)
		}
	}
}

func volumeReferences(p *corev1.Pod, v *corev1.Volume, add func(kind, string)) {
	local := func(ref *corev1.LocalObjectReference) {
		if ref != nil {
			add(secrets, ref.Name)
		}
	}
	switch {
	case v.Secret != nil:
		add(secrets, v.Secret.SecretName)
	case v.ConfigMap != nil:
		add(configMaps, v.ConfigMap.Name)
	case v.PersistentVolumeClaim != nil:
		add(claims, v.PersistentVolumeClaim.ClaimName)
	case v.Ephemeral != nil:
		add(claims, p.Name+"-"+v.Name)
	case v.CSI != nil:
		local(v.CSI.NodePublishSecretRef)
	case v.CephFS != nil:
		local(v.CephFS.SecretRef)
	case v.RBD != nil:
		local(v.RBD.SecretRef)
	case v.Cinder != nil:
		local(v.Cinder.SecretRef)
	case v.FlexVolume != nil:
		local(v.FlexVolume.SecretRef)
	case v.ScaleIO != nil:
		local(v.ScaleIO.SecretRef)
	case v.ISCSI != nil:
		local(v.ISCSI.SecretRef)
	case v.StorageOS != nil:
		local(v.StorageOS.SecretRef)
	case v.AzureFile != nil:
		add(secrets, v.AzureFile.SecretName)
	case v.Projected != nil:
		for i := range v.Projected.Sources {
			if s := v.Projected.Sources[i].Secret; s != nil {
				add(secrets, s.Name)
			}
			if c := v.Projected.Sources[i].ConfigMap; c != nil {
				add(configMaps, c.Name)
			}
		}
	}
}

// volumeSecrets are the secrets that a node needs to mount a volume.
func volumeSecrets(v *corev1.PersistentVolume) []key {
	var keys []key
	namespace := v.Spec.ClaimRef.Namespace
	add := func(ref *corev1.SecretReference) {
		if ref == nil || ref.Name == "" {
			return
		}
		k := key{secrets, ref.Namespace, ref.Name}
		if k.namespace == "" {
			k.namespace = namespace
		}
		keys = append(keys, k)
	}
	s := &v.Spec.PersistentVolumeSource
	switch {
	case s.CSI != nil:
		add(s.CSI.NodePublishSecretRef)
		add(s.CSI.NodeStageSecretRef)
		add(s.CSI.NodeExpandSecretRef)
		add(s.CSI.ControllerPublishSecretRef)
	case s.CephFS != nil:
		add(s.CephFS.SecretRef)
	case s.RBD != nil:
		add(s.RBD.SecretRef)
	case s.Cinder != nil:
		add(s.Cinder.SecretRef)
	case s.FlexVolume != nil:
		add(s.FlexVolume.SecretRef)
	case s.ScaleIO != nil:
		add(s.ScaleIO.SecretRef)
	case s.ISCSI != nil:
		add(s.ISCSI.SecretRef)
	case s.AzureFile != nil:
		r := &corev1.SecretReference{Name: s.AzureFile.SecretName}
		if s.AzureFile.SecretNamespace != nil {
			r.Namespace = *s.AzureFile.SecretNamespace
		}
		add(r)
	}
	return keys
}
