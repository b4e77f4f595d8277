package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

const (
	defaultFileMode           = 0o644
	defaultTokenSeconds       = 60 * 60
	defaultCertificateSeconds = 24 * 60 * 60
	defaultISCSIInterface     = "default"
	defaultRBDPool            = "rbd"
	defaultRBDUser            = "admin"
	defaultRBDKeyring         = "/etc/ceph/keyring"
	defaultAzureDiskFSType    = "ext4"
	defaultScaleIOStorageMode = "ThinProvisioned"
	defaultScaleIOFSType      = "xfs"
	defaultFilesystem         = corev1.PersistentVolumeFilesystem
	defaultHostPathType       = corev1.HostPathUnset
	defaultAzureDiskCaching   = corev1.AzureDataDiskCachingReadWrite
	defaultAzureDiskKind      = corev1.AzureSharedBlobDisk
)

func defaultVolume(v *corev1.Volume) {
	if v.VolumeSource == (corev1.VolumeSource{}) {
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
		return
	}
	if v.HostPath != nil {
		setPointer(&v.HostPath.Type, defaultHostPathType)
	}
	if v.Secret != nil {
		setPointer(&v.Secret.DefaultMode, defaultFileMode)
	}
	if v.ConfigMap != nil {
		setPointer(&v.ConfigMap.DefaultMode, defaultFileMode)
	}
	if v.DownwardAPI != nil {
		setPointer(&v.DownwardAPI.DefaultMode, defaultFileMode)
		defaultDownwardItems(v.DownwardAPI.Items)
	}
	if v.Projected != nil {
		defaultProjected(v.Projected)
	}
	if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
		DefaultClaimSpec(&v.Ephemeral.VolumeClaimTemplate.Spec)
	}
	if v.Image != nil {
		setIfZero(&v.Image.PullPolicy, pullPolicy(v.Image.Reference))
	}
	defaultNetworkDisk(v)
}

// DefaultClaimSpec fills the unset fields of a persistent volume claim's specification.
func DefaultClaimSpec(spec *corev1.PersistentVolumeClaimSpec) {
	setPointer(&spec.VolumeMode, defaultFilesystem)
	RoundUp(spec.Resources.Limits)
	RoundUp(spec.Resources.Requests)
}

func defaultProjected(p *corev1.ProjectedVolumeSource) {
	setPointer(&p.DefaultMode, defaultFileMode)
	if len(p.Sources) == 0 {
		p.Sources = nil
	}
	for i := range p.Sources {
		s := &p.Sources[i]
		if s.ServiceAccountToken != nil {
			setPointer(&s.ServiceAccountToken.ExpirationSeconds, defaultTokenSeconds)
		}
		if s.DownwardAPI != nil {
			defaultDownwardItems(s.DownwardAPI.Items)
		}
		if s.PodCertificate != nil {
			setPointer(&s.PodCertificate.MaxExpirationSeconds, defaultCertificateSeconds)
		}
	}
}

func defaultDownwardItems(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		defaultFieldRef(items[i].FieldRef)
	}
}

// defaultNetworkDisk is about the sources whose drivers have left Kubernetes; their fields are still kept.
func defaultNetworkDisk(v *corev1.Volume) {
	if v.ISCSI != nil {
		setIfZero(&v.ISCSI.ISCSIInterface, defaultISCSIInterface)
	}
	if v.RBD != nil {
		setIfZero(&v.RBD.RBDPool, defaultRBDPool)
		setIfZero(&v.RBD.RadosUser, defaultRBDUser)
		setIfZero(&v.RBD.Keyring, defaultRBDKeyring)
	}
	defaultAzureDisk(v.AzureDisk)
	if v.ScaleIO != nil {
		setIfZero(&v.ScaleIO.StorageMode, defaultScaleIOStorageMode)
		setIfZero(&v.ScaleIO.FSType, defaultScaleIOFSType)
	}
}

func defaultAzureDisk(d *corev1.AzureDiskVolumeSource) {
	if d == nil {
		return
	}
	setPointer(&d.CachingMode, defaultAzureDiskCaching)
	setPointer(&d.Kind, defaultAzureDiskKind)
	setPointer(&d.FSType, defaultAzureDiskFSType)
	setPointer(&d.ReadOnly, false)
}

func setPointer[T any](field **T, value T) {
	if *field == nil {
		*field = ptr.To(value)
	}
}
