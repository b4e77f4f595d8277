package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// checkVolumes checks all volumes and remembers the good ones: a mount of another one finds nothing.
func (c *checker) checkVolumes(path *field.Path) field.ErrorList {
	c.volumes = map[string]corev1.VolumeSource{}
	named := c.meta != nil && c.meta.Name != ""
	made := sets.New[string]() // claims that will be made for ephemeral volumes
	for i := range c.spec.Volumes {
		if v := &c.spec.Volumes[i]; v.Ephemeral != nil && named {
			made.Insert(c.meta.Name + "-" + v.Name)
		}
	}
	var errs field.ErrorList
	for i := range c.spec.Volumes {
		v, at := &c.spec.Volumes[i], path.Index(i)
		own := c.volumeSource(v, at)
		if v.Name == "" {
			own = append(own, field.Required(at.Child("name"), ""))
		} else {
			own = append(own, dnsLabel(v.Name, at.Child("name"))...)
		}
		if _, ok := c.volumes[v.Name]; ok {
			own = append(own, field.Duplicate(at.Child("name"), v.Name))
		}
		if len(own) == 0 {
			c.volumes[v.Name] = v.VolumeSource
		}
		errs = append(errs, own...)
		if p := v.PersistentVolumeClaim; p != nil && made.Has(p.ClaimName) {
			errs = append(errs, field.Invalid(at.Child("persistentVolumeClaim", "claimName"), p.ClaimName, "must not reference a PVC that gets created for an ephemeral volume"))
		}
	}
	return errs
}

// sourceRule is one kind of volume: whether it is there, and its rules.
type sourceRule struct {
	name  string
	set   bool
	check func() field.ErrorList
}

// volumeSource checks the first source that is there and refuses the others.
func (c *checker) volumeSource(v *corev1.Volume, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	count := 0
	for _, rule := range c.sourceRules(v, path) {
		if !rule.set {
			continue
		}
		if count++; count > 1 {
			errs = append(errs, field.Forbidden(path.Child(rule.name), "may not specify more than 1 volume type"))
			continue
		}
		errs = append(errs, rule.check()...)
	}
	if count == 0 {
		errs = append(errs, field.Required(path, "must specify a volume type"))
	}
	return errs
}

func (c *checker) sourceRules(v *corev1.Volume, path *field.Path) []sourceRule {
	return []sourceRule{
		{"emptyDir", v.EmptyDir != nil, func() field.ErrorList { return emptyDir(v.EmptyDir, path.Child("emptyDir")) }},
		{"hostPath", v.HostPath != nil, func() field.ErrorList { return hostPath(v.HostPath, path.Child("hostPath")) }},
		{"gitRepo", v.GitRepo != nil, func() field.ErrorList { return gitRepo(v.GitRepo, path.Child("gitRepo")) }},
		{"gcePersistentDisk", v.GCEPersistentDisk != nil, func() field.ErrorList { return gceDisk(v.GCEPersistentDisk, path.Child("persistentDisk")) }},
		{"awsElasticBlockStore", v.AWSElasticBlockStore != nil, func() field.ErrorList { return awsDisk(v.AWSElasticBlockStore, path.Child("awsElasticBlockStore")) }},
		{"secret", v.Secret != nil, func() field.ErrorList { return secretVolume(v.Secret, path.Child("secret")) }},
		{"nfs", v.NFS != nil, func() field.ErrorList { return nfs(v.NFS, path.Child("nfs")) }},
		{"iscsi", v.ISCSI != nil, func() field.ErrorList { return iscsiVolume(v, path) }},
		{"glusterfs", v.Glusterfs != nil, func() field.ErrorList { return glusterfs(v.Glusterfs, path.Child("glusterfs")) }},
		{"flocker", v.Flocker != nil, func() field.ErrorList { return flocker(v.Flocker, path.Child("flocker")) }},
		{"persistentVolumeClaim", v.PersistentVolumeClaim != nil, func() field.ErrorList {
			return required(v.PersistentVolumeClaim.ClaimName, path.Child("persistentVolumeClaim", "claimName"))
		}},
		{"rbd", v.RBD != nil, func() field.ErrorList { return rbd(v.RBD, path.Child("rbd")) }},
		{"cinder", v.Cinder != nil, func() field.ErrorList { return cinder(v.Cinder, path.Child("cinder")) }},
		{"cephfs", v.CephFS != nil, func() field.ErrorList { return monitors(v.CephFS.Monitors, path.Child("cephfs")) }},
		{"quobyte", v.Quobyte != nil, func() field.ErrorList { return quobyte(v.Quobyte, path.Child("quobyte")) }},
		{"downwardAPI", v.DownwardAPI != nil, func() field.ErrorList { return downwardVolume(v.DownwardAPI, path.Child("downwardAPI")) }},
		{"fc", v.FC != nil, func() field.ErrorList { return fibreChannel(v.FC, path.Child("fc")) }},
		{"flexVolume", v.FlexVolume != nil, func() field.ErrorList { return flexVolume(v.FlexVolume, path.Child("flexVolume")) }},
		{"configMap", v.ConfigMap != nil, func() field.ErrorList { return configMapVolume(v.ConfigMap, path.Child("configMap")) }},
		{"azureFile", v.AzureFile != nil, func() field.ErrorList { return azureFile(v.AzureFile, path.Child("azureFile")) }},
		{"vsphereVolume", v.VsphereVolume != nil, func() field.ErrorList {
			return required(v.VsphereVolume.VolumePath, path.Child("vsphereVolume", "volumePath"))
		}},
		{"photonPersistentDisk", v.PhotonPersistentDisk != nil, func() field.ErrorList {
			return required(v.PhotonPersistentDisk.PdID, path.Child("photonPersistentDisk", "pdID"))
		}},
		{"portworxVolume", v.PortworxVolume != nil, func() field.ErrorList {
			return required(v.PortworxVolume.VolumeID, path.Child("portworxVolume", "volumeID"))
		}},
		{"azureDisk", v.AzureDisk != nil, func() field.ErrorList { return azureDisk(v.AzureDisk, path.Child("azureDisk")) }},
		{"storageos", v.StorageOS != nil, func() field.ErrorList { return storageOS(v.StorageOS, path.Child("storageos")) }},
		{"projected", v.Projected != nil, func() field.ErrorList { return c.projected(v.Projected, path.Child("projected")) }},
		{"scaleIO", v.ScaleIO != nil, func() field.ErrorList { return scaleIO(v.ScaleIO, path.Child("scaleIO")) }},
		{"csi", v.CSI != nil, func() field.ErrorList { return csi(v.CSI, path.Child("csi")) }},
		{"ephemeral", v.Ephemeral != nil, func() field.ErrorList { return c.ephemeralVolume(v, path) }},
		{"image", v.Image != nil, func() field.ErrorList { return c.imageVolume(v.Image, path.Child("image")) }},
	}
}

func emptyDir(d *corev1.EmptyDirVolumeSource, path *field.Path) field.ErrorList {
	if d.SizeLimit != nil && d.SizeLimit.Sign() < 0 {
		return field.ErrorList{field.Forbidden(path.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity")}
	}
	return nil
}

func hostPath(h *corev1.HostPathVolumeSource, path *field.Path) field.ErrorList {
	if h.Path == "" {
		return field.ErrorList{field.Required(path.Child("path"), "")}
	}
	errs := noBacksteps(h.Path, path.Child("path"))
	if h.Type != nil {
		errs = append(errs, OneOf(*h.Type, path.Child("type"), corev1.HostPathUnset, corev1.HostPathBlockDev, corev1.HostPathCharDev, corev1.HostPathDirectory,
			corev1.HostPathDirectoryOrCreate, corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)...)
	}
	return errs
}

func csi(s *corev1.CSIVolumeSource, path *field.Path) field.ErrorList {
	errs := ValidateCSIDriverName(s.Driver, path.Child("driver"))
	if ref := s.NodePublishSecretRef; ref != nil {
		if ref.Name == "" {
			errs = append(errs, field.Required(path.Child("nodePublishSecretRef", "name"), ""))
		} else {
			errs = append(errs, objectName(ref.Name, path.Child("name"))...)
		}
	}
	return errs
}

// maxCSIDriverNameBytes is what the CSI specification allows.
const maxCSIDriverNameBytes = 63

// ValidateCSIDriverName reports what is wrong with the name of a CSI driver.
func ValidateCSIDriverName(name string, path *field.Path) field.ErrorList {
	errs := required(name, path)
	if len(name) > maxCSIDriverNameBytes {
		errs = append(errs, field.TooLong(path, name, maxCSIDriverNameBytes))
	}
	if name != "" {
		errs = append(errs, invalid(path, name, validation.IsDNS1123Subdomain(lower(name)))...)
	}
	return errs
}

func (c *checker) ephemeralVolume(v *corev1.Volume, path *field.Path) field.ErrorList {
	template, at := v.Ephemeral.VolumeClaimTemplate, path.Child("ephemeral", "volumeClaimTemplate")
	var errs field.ErrorList
	if template == nil {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, claimTemplate(template, at)...)
	}
	if c.meta != nil && c.meta.Name != "" && v.Name != "" {
		name := c.meta.Name + "-" + v.Name
		for _, m := range validation.IsDNS1123Subdomain(name) {
			errs = append(errs, field.Invalid(path.Child("name"), v.Name, fmt.Sprintf("PVC name %q: %v", name, m)))
		}
	}
	return errs
}

func (c *checker) imageVolume(s *corev1.ImageVolumeSource, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if c.opts.Pod {
		errs = append(errs, required(s.Reference, path.Child("reference"))...)
	}
	return append(errs, requiredOneOf(s.PullPolicy, path.Child("pullPolicy"), corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
}
