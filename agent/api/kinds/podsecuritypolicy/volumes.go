package podsecuritypolicy

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Kinds of volumes of which a policy says more.
const (
	HostPath   FSType = "hostPath"
	FlexVolume FSType = "flexVolume"
	CSI        FSType = "csi"
	Secret     FSType = "secret"
	Projected  FSType = "projected"
)

// volumeTypes are the kinds that a policy can name, in the order in which errors do.
func volumeTypes() []FSType {
	return []FSType{
		"awsElasticBlockStore", "azureDisk", "azureFile", "cephFS", "cinder", "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "fc",
		"flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "glusterfs", "hostPath", "iscsi", "nfs", "persistentVolumeClaim",
		"photonPersistentDisk", "portworxVolume", "projected", "quobyte", "rbd", "scaleIO", "secret", "storageos", "vsphereVolume",
	}
}

// TypeOfVolume returns the kind of a volume: the name of the one field that is set, but for CephFS, which policies write
// otherwise. A kind that Kubernetes got later is one that no policy names, so only "*" allows it.
func TypeOfVolume(v *corev1.Volume) FSType {
	source := reflect.ValueOf(v.VolumeSource)
	for i := range source.NumField() {
		if source.Field(i).IsNil() {
			continue
		}
		name, _, _ := strings.Cut(source.Type().Field(i).Tag.Get("json"), ",")
		if name == "cephfs" {
			name = "cephFS"
		}
		return FSType(name)
	}
	return ""
}
