package coverage

import "slices"

// What becomes of a pod that asks for what cannot be given.
const (
	staysPending = "the pod stays Pending and an event says why"
	notStarted   = "the container is not started and an event says why"
)

// templated are the kinds with a template of pods: what is said of a pod's specification holds for theirs.
func templated() []string {
	return []string{"CronJob", "DaemonSet", "Deployment", "Job", "PodTemplate", "ReplicaSet", "ReplicationController", "StatefulSet"}
}

// templatePath is where a kind has the template.
func templatePath(kind string) string {
	switch kind {
	case "PodTemplate":
		return "template."
	case "CronJob":
		return "spec.jobTemplate.spec.template."
	}
	return "spec.template."
}

// Gaps is the table of all gaps.
func Gaps() []Gap {
	all := slices.Concat(podGaps(), volumeGaps())
	for _, kind := range templated() {
		for _, gap := range slices.Concat(podGaps(), volumeGaps()) {
			gap.Kind, gap.Field = kind, templatePath(kind)+gap.Field
			all = append(all, gap)
		}
	}
	return slices.Concat(all, subresourceGaps(), storageGaps(), otherGaps())
}

// podGaps are those of a pod's specification, volumes aside.
func podGaps() []Gap {
	gaps := []Gap{
		{Field: "spec.resourceClaims", Effect: staysPending},
		{Field: "spec.securityContext.appArmorProfile.type", Values: []string{"Localhost"}, Effect: staysPending},
		{Field: "spec.securityContext.seLinuxOptions", Effect: "no SELinux label is set"},
		{Field: "spec.securityContext.fsGroupChangePolicy", Values: []string{"OnRootMismatch"}, Effect: "the group of volumes is set at each start"},
	}
	for _, list := range []string{"spec.initContainers[].", "spec.containers[]."} {
		gaps = append(gaps,
			Gap{Field: list + "securityContext.appArmorProfile.type", Values: []string{"Localhost"}, Effect: staysPending},
			Gap{Field: list + "securityContext.seLinuxOptions", Effect: "no SELinux label is set"},
			Gap{Field: list + "volumeDevices", Effect: "the container sees no such device"},
			Gap{Field: list + "env[].valueFrom.fileKeyRef", Effect: notStarted},
			Gap{Field: list + "ports[].hostPort", Values: []string{"of protocol SCTP"}, Quiet: true, Effect: staysPending},
		)
	}
	for i := range gaps {
		gaps[i].Kind = "Pod"
	}
	return gaps
}

// volumeGaps are the kinds of volumes that a node cannot set up.
func volumeGaps() []Gap {
	var gaps []Gap
	for _, source := range []string{
		"persistentVolumeClaim", "ephemeral", "csi", "image", "nfs", "iscsi", "fc", "flexVolume", "gitRepo", "awsElasticBlockStore",
		"azureDisk", "azureFile", "cephfs", "cinder", "flocker", "gcePersistentDisk", "glusterfs", "photonPersistentDisk", "portworxVolume",
		"quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
	} {
		gaps = append(gaps, Gap{Kind: "Pod", Field: "spec.volumes[]." + source, Effect: staysPending})
	}
	return append(gaps,
		Gap{Kind: "Pod", Field: "spec.volumes[].projected.sources[].clusterTrustBundle", Effect: staysPending},
		Gap{Kind: "Pod", Field: "spec.volumes[].projected.sources[].podCertificate", Effect: staysPending},
	)
}

// subresourceGaps are those of what is set through a sub-resource.
func subresourceGaps() []Gap {
	return []Gap{
		{Kind: "Pod", Subresource: "ephemeralcontainers", Field: "spec.ephemeralContainers[].securityContext.appArmorProfile.type",
			Values: []string{"Localhost"}, Effect: notStarted},
		{Kind: "Pod", Subresource: "ephemeralcontainers", Field: "spec.ephemeralContainers[].securityContext.seLinuxOptions", Effect: "no SELinux label is set"},
	}
}

// storageGaps are those of the kinds of storage: nothing binds, provisions or attaches volumes.
func storageGaps() []Gap {
	return []Gap{
		{Kind: "StatefulSet", Field: "spec.volumeClaimTemplates", Effect: "claims are made but bound to no volume, and the pods stay Pending"},
		{Kind: "PersistentVolumeClaim", Field: "spec.accessModes", Effect: "the claim is bound to no volume and stays Pending"},
		{Kind: "PersistentVolume", Field: "spec.accessModes", Effect: "the volume is bound to no claim and stays Pending"},
		{Kind: "StorageClass", Field: "provisioner", Effect: "no volume is made for claims of the class"},
		{Kind: "VolumeAttributesClass", Field: "driverName", Effect: "no volume is changed"},
		{Kind: "CSIDriver", Field: "spec.volumeLifecycleModes", Effect: "volumes of the driver are not mounted"},
		{Kind: "CSINode", Field: "spec.drivers", Effect: "no volume is placed by what a node can attach"},
		{Kind: "CSIStorageCapacity", Field: "storageClassName", Effect: "no pod is placed by what capacity there is"},
		{Kind: "VolumeAttachment", Field: "spec.attacher", Effect: "nothing waits for the volume to be attached"},
	}
}

// otherGaps are those of kinds without pods.
func otherGaps() []Gap {
	return []Gap{
		{Kind: "Service", Field: "spec.type", Values: []string{"LoadBalancer"}, Effect: "nothing assigns an address; its node ports are served"},
		{Kind: "Service", Field: "spec.ports[].protocol", Values: []string{"SCTP"}, Effect: "the port is not served"},
		{Kind: "Secret", Field: "data{usage-bootstrap-signing}", Effect: "the token signs no ConfigMap `kube-public/cluster-info`: there is none"},
		{Kind: "StorageVersionMigration", Field: "spec.resource.resource", Effect: "no object is written anew"},
		{Kind: "DeviceTaintRule", Field: "spec.taint.key", Effect: "no device is tainted"},
		{Kind: "DeviceClass", Field: "spec.selectors", Effect: "no device is allocated"},
		{Kind: "ResourceClaim", Field: "spec.devices", Effect: "no device is allocated"},
		{Kind: "ResourceClaimTemplate", Field: "spec.spec.devices", Effect: "no claims are made and no device is allocated"},
		{Kind: "ResourceSlice", Field: "spec.driver", Effect: "no device is allocated"},
		{Kind: "HorizontalPodAutoscaler", Field: "spec.maxReplicas", Effect: "nothing is scaled"},
		{Kind: "NetworkPolicy", Field: "spec.policyTypes", Effect: "no traffic is refused"},
	}
}
