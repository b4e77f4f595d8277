package admission

import corev1 "k8s.io/api/core/v1"

// references are the kinds of objects that a pod names.
type references struct{ secrets, configMaps, claims, trustBundles bool }

func referencesOf(pod *corev1.Pod) references {
	r := references{secrets: len(pod.Spec.ImagePullSecrets) > 0}
	for _, c := range pod.Spec.InitContainers {
		r.env(c.Env, c.EnvFrom)
	}
	for _, c := range pod.Spec.Containers {
		r.env(c.Env, c.EnvFrom)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		r.env(c.Env, c.EnvFrom)
	}
	for i := range pod.Spec.Volumes {
		r.volume(&pod.Spec.Volumes[i])
	}
	return r
}

func (r *references) env(env []corev1.EnvVar, from []corev1.EnvFromSource) {
	for _, e := range env {
		if e.ValueFrom != nil {
			r.secrets = r.secrets || e.ValueFrom.SecretKeyRef != nil
			r.configMaps = r.configMaps || e.ValueFrom.ConfigMapKeyRef != nil
		}
	}
	for _, f := range from {
		r.secrets = r.secrets || f.SecretRef != nil
		r.configMaps = r.configMaps || f.ConfigMapRef != nil
	}
}

func (r *references) volume(v *corev1.Volume) {
	r.claims = r.claims || v.PersistentVolumeClaim != nil || v.Ephemeral != nil
	r.configMaps = r.configMaps || v.ConfigMap != nil
	r.secrets = r.secrets || v.Secret != nil || v.AzureFile != nil ||
		v.CephFS != nil && v.CephFS.SecretRef != nil || v.Cinder != nil && v.Cinder.SecretRef != nil ||
		v.FlexVolume != nil && v.FlexVolume.SecretRef != nil || v.RBD != nil && v.RBD.SecretRef != nil ||
		v.ScaleIO != nil && v.ScaleIO.SecretRef != nil || v.ISCSI != nil && v.ISCSI.SecretRef != nil ||
		v.StorageOS != nil && v.StorageOS.SecretRef != nil || v.CSI != nil && v.CSI.NodePublishSecretRef != nil
	if v.Projected == nil {
		return
	}
	for _, s := range v.Projected.Sources {
		r.secrets = r.secrets || s.Secret != nil
		r.configMaps = r.configMaps || s.ConfigMap != nil
		r.trustBundles = r.trustBundles || s.ClusterTrustBundle != nil
	}
}
