package podspec

import (
	"net"
	"path"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Rules of the volumes that another machine, or the cloud, provides. The drivers of most have left Kubernetes.

const (
	maxPartition        = 255
	maxLUN              = 255
	maxISCSINameBytes   = 64
	maxQuobyteTenant    = 64
	managedDiskURIForm  = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
	blobDiskURIForm     = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
	iscsiNameMessage    = "must be valid format starting with iqn, eui, or naa"
	iscsiInvalidMessage = "must be valid format"
)

var (
	iqnForm = regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`)
	euiForm = regexp.MustCompile(`^eui.[[:alnum:]]{16}$`)
	naaForm = regexp.MustCompile(`^naa.[[:alnum:]]{32}$`)
)

func lower(s string) string { return strings.ToLower(s) }

func gitRepo(s *corev1.GitRepoVolumeSource, at *field.Path) field.ErrorList {
	errs := required(s.Repository, at.Child("repository"))
	return append(errs, volumeFilePath(s.Directory, at.Child("directory"))...)
}

func partition(n int32, at *field.Path) field.ErrorList {
	if n < 0 || n > maxPartition {
		return field.ErrorList{field.Invalid(at.Child("partition"), n, validation.InclusiveRangeError(0, maxPartition))}
	}
	return nil
}

func gceDisk(s *corev1.GCEPersistentDiskVolumeSource, at *field.Path) field.ErrorList {
	return append(required(s.PDName, at.Child("pdName")), partition(s.Partition, at)...)
}

func awsDisk(s *corev1.AWSElasticBlockStoreVolumeSource, at *field.Path) field.ErrorList {
	return append(required(s.VolumeID, at.Child("volumeID")), partition(s.Partition, at)...)
}

func nfs(s *corev1.NFSVolumeSource, at *field.Path) field.ErrorList {
	errs := required(s.Server, at.Child("server"))
	errs = append(errs, required(s.Path, at.Child("path"))...)
	if !path.IsAbs(s.Path) {
		errs = append(errs, field.Invalid(at.Child("path"), s.Path, "must be an absolute path"))
	}
	return errs
}

// iscsiName checks an iSCSI qualified name, or one of the two other forms.
func iscsiName(name string, at *field.Path) field.ErrorList {
	for prefix, form := range map[string]*regexp.Regexp{"iqn": iqnForm, "eui": euiForm, "naa": naaForm} {
		if strings.HasPrefix(name, prefix) {
			if form.MatchString(name) {
				return nil
			}
			return field.ErrorList{field.Invalid(at, name, iscsiInvalidMessage)}
		}
	}
	return field.ErrorList{field.Invalid(at, name, iscsiNameMessage)}
}

func iscsiVolume(v *corev1.Volume, at *field.Path) field.ErrorList {
	s, own := v.ISCSI, at.Child("iscsi")
	errs := required(s.TargetPortal, own.Child("targetPortal"))
	if s.IQN == "" {
		errs = append(errs, field.Required(own.Child("iqn"), ""))
	} else {
		errs = append(errs, iscsiName(s.IQN, own.Child("iqn"))...)
	}
	if s.Lun < 0 || s.Lun > maxLUN {
		errs = append(errs, field.Invalid(own.Child("lun"), s.Lun, validation.InclusiveRangeError(0, maxLUN)))
	}
	if (s.DiscoveryCHAPAuth || s.SessionCHAPAuth) && s.SecretRef == nil {
		errs = append(errs, field.Required(own.Child("secretRef"), ""))
	}
	if s.InitiatorName != nil {
		errs = append(errs, iscsiName(*s.InitiatorName, own.Child("initiatorname"))...)
		if len(v.Name+":"+s.TargetPortal) > maxISCSINameBytes {
			errs = append(errs, field.Invalid(at.Child("name"), v.Name, "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."))
		}
	}
	return errs
}

func glusterfs(s *corev1.GlusterfsVolumeSource, at *field.Path) field.ErrorList {
	return append(required(s.EndpointsName, at.Child("endpoints")), required(s.Path, at.Child("path"))...)
}

func flocker(s *corev1.FlockerVolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.DatasetName == "" && s.DatasetUUID == "" {
		errs = append(errs, field.Required(at, "one of datasetName and datasetUUID is required"))
	}
	if s.DatasetName != "" && s.DatasetUUID != "" {
		errs = append(errs, field.Invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously"))
	}
	if strings.Contains(s.DatasetName, "/") {
		errs = append(errs, field.Invalid(at.Child("datasetName"), s.DatasetName, "must not contain '/'"))
	}
	return errs
}

func monitors(list []string, at *field.Path) field.ErrorList {
	if len(list) == 0 {
		return field.ErrorList{field.Required(at.Child("monitors"), "")}
	}
	return nil
}

func rbd(s *corev1.RBDVolumeSource, at *field.Path) field.ErrorList {
	return append(monitors(s.CephMonitors, at), required(s.RBDImage, at.Child("image"))...)
}

func cinder(s *corev1.CinderVolumeSource, at *field.Path) field.ErrorList {
	errs := required(s.VolumeID, at.Child("volumeID"))
	if s.SecretRef != nil {
		errs = append(errs, required(s.SecretRef.Name, at.Child("secretRef", "name"))...)
	}
	return errs
}

func quobyte(s *corev1.QuobyteVolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Registry == "" {
		errs = append(errs, field.Required(at.Child("registry"), "must be a host:port pair or multiple pairs separated by commas"))
	} else if len(s.Tenant) > maxQuobyteTenant {
		errs = append(errs, field.Required(at.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters"))
	} else {
		for _, pair := range strings.Split(s.Registry, ",") {
			if _, _, err := net.SplitHostPort(pair); err != nil {
				errs = append(errs, field.Invalid(at.Child("registry"), s.Registry, "must be a host:port pair or multiple pairs separated by commas"))
			}
		}
	}
	return append(errs, required(s.Volume, at.Child("volume"))...)
}

func fibreChannel(s *corev1.FCVolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(s.TargetWWNs) == 0 && len(s.WWIDs) == 0 {
		errs = append(errs, field.Required(at.Child("targetWWNs"), "must specify either targetWWNs or wwids, but not both"))
	}
	if len(s.TargetWWNs) > 0 && len(s.WWIDs) > 0 {
		errs = append(errs, field.Invalid(at.Child("targetWWNs"), s.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously"))
	}
	if len(s.TargetWWNs) == 0 {
		return errs
	}
	if s.Lun == nil {
		return append(errs, field.Required(at.Child("lun"), "lun is required if targetWWNs is specified"))
	}
	if *s.Lun < 0 || *s.Lun > maxLUN {
		errs = append(errs, field.Invalid(at.Child("lun"), s.Lun, validation.InclusiveRangeError(0, maxLUN)))
	}
	return errs
}

func flexVolume(s *corev1.FlexVolumeSource, at *field.Path) field.ErrorList {
	errs := required(s.Driver, at.Child("driver"))
	for _, key := range sets.List(sets.KeySet(s.Options)) {
		domain, _, ok := strings.Cut(key, "/")
		domain = "." + lower(domain)
		if ok && (strings.HasSuffix(domain, ".kubernetes.io") || strings.HasSuffix(domain, ".k8s.io")) {
			errs = append(errs, field.Invalid(at.Child("options").Key(key), key, "kubernetes.io and k8s.io namespaces are reserved"))
		}
	}
	return errs
}

func azureFile(s *corev1.AzureFileVolumeSource, at *field.Path) field.ErrorList {
	return append(required(s.SecretName, at.Child("secretName")), required(s.ShareName, at.Child("shareName"))...)
}

func azureDisk(s *corev1.AzureDiskVolumeSource, at *field.Path) field.ErrorList {
	errs := required(s.DiskName, at.Child("diskName"))
	errs = append(errs, required(s.DataDiskURI, at.Child("diskURI"))...)
	if s.CachingMode != nil {
		errs = append(errs, OneOf(*s.CachingMode, at.Child("cachingMode"), corev1.AzureDataDiskCachingNone, corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)...)
	}
	if s.Kind == nil {
		return errs
	}
	errs = append(errs, OneOf(*s.Kind, at.Child("kind"), corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk, corev1.AzureSharedBlobDisk)...)
	if *s.Kind == corev1.AzureManagedDisk && !strings.HasPrefix(s.DataDiskURI, "/subscriptions/") {
		errs = append(errs, field.NotSupported(at.Child("diskURI"), s.DataDiskURI, []string{managedDiskURIForm}))
	}
	if *s.Kind != corev1.AzureManagedDisk && !strings.HasPrefix(s.DataDiskURI, "https://") {
		errs = append(errs, field.NotSupported(at.Child("diskURI"), s.DataDiskURI, []string{blobDiskURIForm}))
	}
	return errs
}

func storageOS(s *corev1.StorageOSVolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.VolumeName == "" {
		errs = append(errs, field.Required(at.Child("volumeName"), ""))
	} else {
		errs = append(errs, dnsLabel(s.VolumeName, at.Child("volumeName"))...)
	}
	if s.VolumeNamespace != "" {
		errs = append(errs, dnsLabel(s.VolumeNamespace, at.Child("volumeNamespace"))...)
	}
	if s.SecretRef != nil {
		errs = append(errs, required(s.SecretRef.Name, at.Child("secretRef", "name"))...)
	}
	return errs
}

func scaleIO(s *corev1.ScaleIOVolumeSource, at *field.Path) field.ErrorList {
	errs := required(s.Gateway, at.Child("gateway"))
	errs = append(errs, required(s.System, at.Child("system"))...)
	return append(errs, required(s.VolumeName, at.Child("volumeName"))...)
}
