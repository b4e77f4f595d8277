package podspec

import (
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Rules of persistent volumes, which have most of their sources in common with the volumes of pods.

const notInline = "may not be specified in the context of inline volumes"

// DefaultPersistentVolumeSpec fills the unset fields of a volume's capacity and source.
func DefaultPersistentVolumeSpec(spec *corev1.PersistentVolumeSpec) {
	RoundUp(spec.Capacity)
	if spec.HostPath != nil {
		setPointer(&spec.HostPath.Type, defaultHostPathType)
	}
	if spec.ISCSI != nil {
		setIfZero(&spec.ISCSI.ISCSIInterface, defaultISCSIInterface)
	}
	if spec.RBD != nil {
		setIfZero(&spec.RBD.RBDPool, defaultRBDPool)
		setIfZero(&spec.RBD.RadosUser, defaultRBDUser)
		setIfZero(&spec.RBD.Keyring, defaultRBDKeyring)
	}
	defaultAzureDisk(spec.AzureDisk)
	if spec.ScaleIO != nil {
		setIfZero(&spec.ScaleIO.StorageMode, defaultScaleIOStorageMode)
		setIfZero(&spec.ScaleIO.FSType, defaultScaleIOFSType)
	}
}

// ValidatePersistentVolumeSpec reports the errors of a persistent volume's specification. Inline ones, of a volume that
// is attached for a pod, have no claim, capacity or class. name is the volume's, "" for an inline one.
func ValidatePersistentVolumeSpec(spec *corev1.PersistentVolumeSpec, name string, inline bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if inline {
		errs = append(errs, inlineOnly(spec, at)...)
	} else {
		errs = append(errs, volumeCapacity(spec.Capacity, at.Child("capacity"))...)
	}
	if len(spec.AccessModes) == 0 {
		errs = append(errs, field.Required(at.Child("accessModes"), ""))
	} else {
		errs = append(errs, ValidateAccessModes(spec.AccessModes, at.Child("accessModes"))...)
	}
	policy := at.Child("persistentVolumeReclaimPolicy")
	switch spec.PersistentVolumeReclaimPolicy {
	case "", corev1.PersistentVolumeReclaimRetain:
	default:
		if inline {
			errs = append(errs, field.Forbidden(policy, "may only be Retain in the context of inline volumes"))
		} else {
			errs = append(errs, OneOf(spec.PersistentVolumeReclaimPolicy, policy, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle,
				corev1.PersistentVolumeReclaimRetain)...)
		}
	}
	if a := spec.NodeAffinity; a != nil && !inline {
		if a.Required == nil {
			errs = append(errs, field.Required(at.Child("nodeAffinity", "required"), "must specify required node constraints"))
		} else {
			errs = append(errs, ValidateNodeSelector(a.Required, false, at.Child("nodeAffinity", "required"))...)
		}
	}
	errs = append(errs, persistentSource(spec, name, inline, at)...)
	if spec.HostPath != nil && path.Clean(spec.HostPath.Path) == "/" && spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		errs = append(errs, field.Forbidden(policy, "may not be 'recycle' for a hostPath mount of '/'"))
	}
	if inline {
		return errs
	}
	return append(errs, volumeClasses(spec, at)...)
}

func inlineOnly(spec *corev1.PersistentVolumeSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	forbid := func(set bool, name, message string) {
		if set {
			errs = append(errs, field.Forbidden(at.Child(name), message))
		}
	}
	forbid(spec.ClaimRef != nil, "claimRef", notInline)
	forbid(len(spec.Capacity) > 0, "capacity", notInline)
	if spec.CSI == nil {
		errs = append(errs, field.Required(at.Child("csi"), "has to be specified in the context of inline volumes"))
	}
	forbid(spec.NodeAffinity != nil, "nodeAffinity", notInline)
	forbid(spec.StorageClassName != "", "storageClassName", notInline)
	forbid(spec.VolumeMode != nil && *spec.VolumeMode != corev1.PersistentVolumeFilesystem, "volumeMode",
		"may not specify volumeMode other than Filesystem in the context of inline volumes")
	return errs
}

func volumeCapacity(capacity corev1.ResourceList, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(capacity) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	if _, ok := capacity[corev1.ResourceStorage]; !ok || len(capacity) > 1 {
		errs = append(errs, field.NotSupported(at, capacity, []corev1.ResourceName{corev1.ResourceStorage}))
	}
	for name, amount := range capacity {
		if amount.Sign() <= 0 {
			errs = append(errs, field.Invalid(at.Key(string(name)), amount.String(), "must be greater than zero"))
		}
	}
	return errs
}

func volumeClasses(spec *corev1.PersistentVolumeSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if spec.StorageClassName != "" {
		errs = append(errs, objectName(spec.StorageClassName, at.Child("storageClassName"))...)
	}
	if spec.VolumeMode != nil {
		errs = append(errs, OneOf(*spec.VolumeMode, at.Child("volumeMode"), corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	}
	if class, own := spec.VolumeAttributesClassName, at.Child("volumeAttributesClassName"); class != nil {
		if *class == "" {
			errs = append(errs, field.Required(own, "an empty string is disallowed"))
		} else {
			errs = append(errs, objectName(*class, own)...)
		}
		if spec.CSI == nil {
			errs = append(errs, field.Required(at.Child("csi"), "has to be specified when using volumeAttributesClassName"))
		}
	}
	return errs
}

// persistentSource checks the first source that is there and refuses the others.
func persistentSource(spec *corev1.PersistentVolumeSpec, name string, inline bool, at *field.Path) field.ErrorList {
	rules := slices.Concat(localSources(spec, name, inline, at), removedSources(spec, at))
	// Their order decides which one of two is refused.
	order := []string{"hostPath", "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "flocker", "nfs", "rbd", "quobyte", "cephFS", "iscsi", "cinder", "fc",
		"flexVolume", "azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk", "scaleIO", "local", "storageos", "csi"}
	slices.SortFunc(rules, func(a, b sourceRule) int { return slices.Index(order, a.name) - slices.Index(order, b.name) })
	var errs field.ErrorList
	count := 0
	for _, rule := range rules {
		if !rule.set {
			continue
		}
		if count++; count > 1 {
			errs = append(errs, field.Forbidden(at.Child(rule.name), "may not specify more than 1 volume type"))
			continue
		}
		errs = append(errs, rule.check()...)
	}
	if count == 0 {
		errs = append(errs, field.Required(at, "must specify a volume type"))
	}
	return errs
}

func localSources(spec *corev1.PersistentVolumeSpec, name string, inline bool, at *field.Path) []sourceRule {
	return []sourceRule{
		{"hostPath", spec.HostPath != nil, func() field.ErrorList { return hostPath(spec.HostPath, at.Child("hostPath")) }},
		{"nfs", spec.NFS != nil, func() field.ErrorList { return nfs(spec.NFS, at.Child("nfs")) }},
		{"iscsi", spec.ISCSI != nil, func() field.ErrorList { return persistentISCSI(spec, name, at) }},
		{"fc", spec.FC != nil, func() field.ErrorList { return fibreChannel(spec.FC, at.Child("fc")) }},
		{"local", spec.Local != nil, func() field.ErrorList {
			errs := required(spec.Local.Path, at.Child("local", "path"))
			errs = append(errs, noBacksteps(spec.Local.Path, at.Child("local", "path"))...)
			if inline || spec.NodeAffinity == nil {
				errs = append(errs, field.Required(at.Child("nodeAffinity"), "Local volume requires node affinity"))
			}
			return errs
		}},
		{"csi", spec.CSI != nil, func() field.ErrorList { return persistentCSI(spec.CSI, at.Child("csi")) }},
	}
}

func persistentISCSI(spec *corev1.PersistentVolumeSpec, name string, at *field.Path) field.ErrorList {
	s := spec.ISCSI
	plain := &corev1.ISCSIVolumeSource{TargetPortal: s.TargetPortal, IQN: s.IQN, Lun: s.Lun, DiscoveryCHAPAuth: s.DiscoveryCHAPAuth,
		SessionCHAPAuth: s.SessionCHAPAuth, InitiatorName: s.InitiatorName}
	var errs field.ErrorList
	if s.SecretRef != nil {
		plain.SecretRef = &corev1.LocalObjectReference{Name: s.SecretRef.Name}
		errs = append(errs, required(s.SecretRef.Name, at.Child("iscsi", "secretRef", "name"))...)
	}
	return append(iscsiVolume(&corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{ISCSI: plain}}, at), errs...)
}

func persistentCSI(s *corev1.CSIPersistentVolumeSource, at *field.Path) field.ErrorList {
	errs := ValidateCSIDriverName(s.Driver, at.Child("driver"))
	errs = append(errs, required(s.VolumeHandle, at.Child("volumeHandle"))...)
	// As on Kubernetes, nodeStageSecretRef has no rules.
	for _, secret := range []struct {
		name string
		ref  *corev1.SecretReference
	}{
		{"controllerPublishSecretRef", s.ControllerPublishSecretRef}, {"nodePublishSecretRef", s.NodePublishSecretRef}, {"controllerExpandSecretRef", s.ControllerExpandSecretRef},
		{"nodeExpandSecretRef", s.NodeExpandSecretRef},
	} {
		if secret.ref != nil {
			errs = append(errs, secretReference(secret.ref, at.Child(secret.name))...)
		}
	}
	return errs
}

func secretReference(ref *corev1.SecretReference, at *field.Path) field.ErrorList {
	errs := required(ref.Name, at.Child("name"))
	if ref.Name != "" {
		errs = append(errs, objectName(ref.Name, at.Child("name"))...)
	}
	errs = append(errs, required(ref.Namespace, at.Child("namespace"))...)
	if ref.Namespace != "" {
		errs = append(errs, invalid(at.Child("namespace"), ref.Namespace, apivalidation.ValidateNamespaceName(ref.Namespace, false))...)
	}
	return errs
}

// removedSources are those whose drivers have left Kubernetes.
func removedSources(spec *corev1.PersistentVolumeSpec, at *field.Path) []sourceRule {
	return []sourceRule{
		{"gcePersistentDisk", spec.GCEPersistentDisk != nil, func() field.ErrorList { return gceDisk(spec.GCEPersistentDisk, at.Child("persistentDisk")) }},
		{"awsElasticBlockStore", spec.AWSElasticBlockStore != nil, func() field.ErrorList { return awsDisk(spec.AWSElasticBlockStore, at.Child("awsElasticBlockStore")) }},
		{"glusterfs", spec.Glusterfs != nil, func() field.ErrorList { return persistentGlusterfs(spec.Glusterfs, at.Child("glusterfs")) }},
		{"flocker", spec.Flocker != nil, func() field.ErrorList { return flocker(spec.Flocker, at.Child("flocker")) }},
		{"rbd", spec.RBD != nil, func() field.ErrorList {
			return append(monitors(spec.RBD.CephMonitors, at.Child("rbd")), required(spec.RBD.RBDImage, at.Child("rbd", "image"))...)
		}},
		{"quobyte", spec.Quobyte != nil, func() field.ErrorList { return quobyte(spec.Quobyte, at.Child("quobyte")) }},
		{"cephFS", spec.CephFS != nil, func() field.ErrorList { return monitors(spec.CephFS.Monitors, at.Child("cephfs")) }},
		{"cinder", spec.Cinder != nil, func() field.ErrorList {
			errs := required(spec.Cinder.VolumeID, at.Child("cinder", "volumeID"))
			if ref := spec.Cinder.SecretRef; ref != nil {
				errs = append(errs, required(ref.Name, at.Child("cinder", "secretRef", "name"))...)
				errs = append(errs, required(ref.Namespace, at.Child("cinder", "secretRef", "namespace"))...)
			}
			return errs
		}},
		{"flexVolume", spec.FlexVolume != nil, func() field.ErrorList {
			return persistentFlex(spec.FlexVolume, at.Child("flexVolume"))
		}},
		{"azureFile", spec.AzureFile != nil, func() field.ErrorList { return persistentAzureFile(spec.AzureFile, at.Child("azureFile")) }},
		{"vsphereVolume", spec.VsphereVolume != nil, func() field.ErrorList {
			return required(spec.VsphereVolume.VolumePath, at.Child("vsphereVolume", "volumePath"))
		}},
		{"photonPersistentDisk", spec.PhotonPersistentDisk != nil, func() field.ErrorList {
			return required(spec.PhotonPersistentDisk.PdID, at.Child("photonPersistentDisk", "pdID"))
		}},
		{"portworxVolume", spec.PortworxVolume != nil, func() field.ErrorList {
			return required(spec.PortworxVolume.VolumeID, at.Child("portworxVolume", "volumeID"))
		}},
		{"azureDisk", spec.AzureDisk != nil, func() field.ErrorList { return azureDisk(spec.AzureDisk, at.Child("azureDisk")) }},
		{"scaleIO", spec.ScaleIO != nil, func() field.ErrorList {
			s := spec.ScaleIO
			return scaleIO(&corev1.ScaleIOVolumeSource{Gateway: s.Gateway, System: s.System, VolumeName: s.VolumeName}, at.Child("scaleIO"))
		}},
		{"storageos", spec.StorageOS != nil, func() field.ErrorList { return persistentStorageOS(spec.StorageOS, at.Child("storageos")) }},
	}
}

func persistentGlusterfs(s *corev1.GlusterfsPersistentVolumeSource, at *field.Path) field.ErrorList {
	errs := glusterfs(&corev1.GlusterfsVolumeSource{EndpointsName: s.EndpointsName, Path: s.Path}, at)
	if s.EndpointsNamespace != nil {
		errs = append(errs, invalid(at.Child("endpointsNamespace"), *s.EndpointsNamespace, apivalidation.ValidateNamespaceName(*s.EndpointsNamespace, false))...)
	}
	return errs
}

func persistentFlex(s *corev1.FlexPersistentVolumeSource, at *field.Path) field.ErrorList {
	errs := flexVolume(&corev1.FlexVolumeSource{Driver: s.Driver, Options: s.Options}, at)
	if ref := s.SecretRef; ref != nil && ref.Name == "" {
		errs = append(errs, field.Required(at.Child("secretRef", "name"), ""))
	}
	return errs
}

func persistentAzureFile(s *corev1.AzureFilePersistentVolumeSource, at *field.Path) field.ErrorList {
	errs := azureFile(&corev1.AzureFileVolumeSource{SecretName: s.SecretName, ShareName: s.ShareName}, at)
	if s.SecretNamespace != nil && *s.SecretNamespace == "" {
		errs = append(errs, field.Required(at.Child("secretNamespace"), ""))
	}
	return errs
}

func persistentStorageOS(s *corev1.StorageOSPersistentVolumeSource, at *field.Path) field.ErrorList {
	errs := storageOS(&corev1.StorageOSVolumeSource{VolumeName: s.VolumeName, VolumeNamespace: s.VolumeNamespace}, at)
	if ref := s.SecretRef; ref != nil {
		errs = append(errs, required(ref.Name, at.Child("secretRef", "name"))...)
		errs = append(errs, required(ref.Namespace, at.Child("secretRef", "namespace"))...)
	}
	return errs
}

// PersistentVolumeWarnings says what a user should know about a volume that is accepted.
func PersistentVolumeWarnings(v *corev1.PersistentVolume) []string {
	w, spec := &warner{}, field.NewPath("spec")
	if _, ok := v.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		w.add("%s: deprecated since v1.8; use \"storageClassName\" attribute instead", field.NewPath("metadata", "annotations").Key(corev1.BetaStorageClassAnnotation))
	}
	if _, ok := v.Annotations[corev1.MountOptionAnnotation]; ok {
		w.add("%s: deprecated since v1.31; use \"mountOptions\" attribute instead", field.NewPath("metadata", "annotations").Key(corev1.MountOptionAnnotation))
	}
	if v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		w.add("%s: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.", spec.Child("persistentVolumeReclaimPolicy"))
	}
	if a := v.Spec.NodeAffinity; a != nil && a.Required != nil {
		for i := range a.Required.NodeSelectorTerms {
			w.nodeTerm(&a.Required.NodeSelectorTerms[i], spec.Child("nodeAffinity", "required", "nodeSelectorTerms").Index(i), false)
		}
	}
	for _, s := range []struct {
		set         bool
		name, since string
	}{
		{v.Spec.PhotonPersistentDisk != nil, "photonPersistentDisk", "v1.11, non-functional in v1.16+"},
		{v.Spec.ScaleIO != nil, "scaleIO", "v1.16, non-functional in v1.22+"},
		{v.Spec.StorageOS != nil, "storageOS", "v1.22, non-functional in v1.25+"},
		{v.Spec.Glusterfs != nil, "glusterfs", "v1.25, non-functional in v1.26+"},
		{v.Spec.RBD != nil, "rbd", "v1.28, non-functional in v1.31+"},
		{v.Spec.CephFS != nil, "cephfs", "v1.28, non-functional in v1.31+"},
	} {
		if s.set {
			w.add("%s: deprecated in %s", spec.Child(s.name), s.since)
		}
	}
	return w.out
}
