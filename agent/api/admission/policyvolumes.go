package admission

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	psp "github.com/podvine/podvine/agent/api/kinds/podsecuritypolicy"
)

// volume checks one volume of a pod.
func (p *policyOf) volume(pod *corev1.Pod, v *corev1.Volume, path *field.Path) field.ErrorList {
	kind := psp.TypeOfVolume(v)
	token := kind == psp.Projected && slices.Contains(p.Spec.Volumes, psp.Secret) && onlyToken(v.Projected)
	if !slices.Contains(p.Spec.Volumes, psp.All) && !slices.Contains(p.Spec.Volumes, kind) && !token {
		return field.ErrorList{field.Invalid(path, string(kind), string(kind)+" volumes are not allowed to be used")}
	}
	switch kind {
	case psp.HostPath:
		return p.hostPath(pod, v, path)
	case psp.FlexVolume:
		allowed := func(a psp.AllowedFlexVolume) bool { return a.Driver == v.FlexVolume.Driver }
		if len(p.Spec.AllowedFlexVolumes) > 0 && !slices.ContainsFunc(p.Spec.AllowedFlexVolumes, allowed) {
			return field.ErrorList{field.Invalid(path.Child("driver"), v.FlexVolume.Driver, "Flexvolume driver is not allowed to be used")}
		}
	case psp.CSI:
		allowed := func(a psp.AllowedCSIDriver) bool { return a.Name == v.CSI.Driver }
		if len(p.Spec.AllowedCSIDrivers) > 0 && !slices.ContainsFunc(p.Spec.AllowedCSIDrivers, allowed) {
			return field.ErrorList{field.Invalid(path.Child("csi", "driver"), v.CSI.Driver, "Inline CSI driver is not allowed to be used")}
		}
	}
	return nil
}

// hostPath checks the path of a volume, and that it is mounted read-only where it may be so alone.
func (p *policyOf) hostPath(pod *corev1.Pod, v *corev1.Volume, path *field.Path) (errs field.ErrorList) {
	if len(p.Spec.AllowedHostPaths) == 0 {
		return nil
	}
	allowed, readOnly := false, true
	for _, a := range p.Spec.AllowedHostPaths {
		if below(v.HostPath.Path, a.PathPrefix) {
			allowed, readOnly = true, readOnly && a.ReadOnly
		}
	}
	if !allowed {
		return field.ErrorList{field.Invalid(path.Child("hostPath", "pathPrefix"), v.HostPath.Path, "is not allowed to be used")}
	}
	if !readOnly {
		return nil
	}
	eachContainer(pod, func(c *policyContainer) {
		for i, m := range c.mounts {
			if m.Name == v.Name && !m.ReadOnly {
				errs = append(errs, field.Invalid(field.NewPath("spec", c.list).Index(c.index).Child("volumeMounts").Index(i).Child("readOnly"), false, "must be read-only"))
			}
		}
	})
	return errs
}

// below says that a path is a prefix or below it, element by element.
func below(path, prefix string) bool {
	path, prefix = strings.TrimSuffix(path, "/"), strings.TrimSuffix(prefix, "/")
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

// onlyToken says that a projected volume is the one that every pod gets: the token, the authority's certificate and the namespace.
// Whoever may mount secrets may have it.
func onlyToken(v *corev1.ProjectedVolumeSource) bool {
	for _, s := range v.Sources {
		switch {
		case s.ServiceAccountToken != nil:
			if s.ServiceAccountToken.Path != "token" || s.ServiceAccountToken.Audience != "" {
				return false
			}
		case s.ConfigMap != nil:
			if s.ConfigMap.Name != rootCAName {
				return false
			}
		case s.DownwardAPI != nil:
			for _, item := range s.DownwardAPI.Items {
				if item.Path != "namespace" || item.FieldRef == nil || item.FieldRef.APIVersion != "v1" || item.FieldRef.FieldPath != "metadata.namespace" {
					return false
				}
			}
		default:
			return false
		}
	}
	return true
}
