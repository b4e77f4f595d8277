package persistentvolume_test

import (
	"strings"
	"testing"

	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/persistentvolume"
)

const (
	base     = `{metadata: {name: v}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], nfs: {server: s, path: /p}}}`
	affinity = `{required: {nodeSelectorTerms: [{matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [a]}]}]}}`
	older    = `{required: {nodeSelectorTerms: [{matchExpressions: [{key: failure-domain.beta.kubernetes.io/zone, operator: In, values: [a]}]}]}}`
)

func spec(text string) string { return `{spec: {` + text + `}}` }

func TestFields(t *testing.T) {
	csi := func(text string) string {
		return spec(`nfs: null, csi: {driver: d, volumeHandle: h, ` + text + `}`)
	}
	rows := []Row{
		{Field: "metadata.finalizers", Class: Defaulted, Want: `{metadata: {finalizers: [kubernetes.io/pv-protection]}}`},
		{Field: "spec.capacity", Class: Mutable, Patch: spec("capacity: {storage: 2Gi}")},
		{Field: "spec.capacity", Class: Invalid, Patch: spec("capacity: null"), Error: "NotSupported spec.capacity; Required spec.capacity"},
		{Field: "spec.capacity", Class: Invalid, Patch: spec("capacity: {cpu: 1}"), Error: "NotSupported spec.capacity"},
		{Field: "spec.capacity", Class: Invalid, Patch: spec("capacity: {storage: 0}"), Error: "Invalid spec.capacity[storage]"},
		{Field: "spec.accessModes", Class: Invalid, Patch: spec("accessModes: null"), Error: "Required spec.accessModes"},
		{Field: "spec.accessModes", Class: Invalid, Patch: spec("accessModes: [Odd]"), Error: "NotSupported spec.accessModes"},
		{Field: "spec.accessModes", Class: Invalid, Patch: spec("accessModes: [ReadWriteOncePod, ReadWriteOnce]"), Error: "Forbidden spec.accessModes"},
		{Field: "spec.claimRef", Class: Mutable, Patch: spec("claimRef: {namespace: ns, name: c}")},
		{Field: "spec.persistentVolumeReclaimPolicy", Class: Defaulted, Want: spec("persistentVolumeReclaimPolicy: Retain")},
		{Field: "spec.persistentVolumeReclaimPolicy", Class: Invalid, Patch: spec("persistentVolumeReclaimPolicy: Odd"), Error: "NotSupported spec.persistentVolumeReclaimPolicy"},
		{Field: "spec.persistentVolumeReclaimPolicy", Class: Invalid, Patch: spec("persistentVolumeReclaimPolicy: Recycle, nfs: null, hostPath: {path: /a/..}"),
			Error: "Forbidden spec.persistentVolumeReclaimPolicy; Invalid spec.hostPath.path"},
		{Field: "spec.storageClassName", Class: Invalid, Patch: spec("storageClassName: A_B"), Error: "Invalid spec.storageClassName"},
		{Field: "spec.mountOptions", Class: Mutable, Patch: spec("mountOptions: [ro]")},
		{Field: "spec.volumeMode", Class: Defaulted, Want: spec("volumeMode: Filesystem")},
		{Field: "spec.volumeMode", Class: Invalid, Patch: spec("volumeMode: Odd"), Error: "NotSupported spec.volumeMode"},
		{Field: "spec.volumeMode", Class: Immutable, Patch: spec("volumeMode: Block"), Error: "Invalid volumeMode"},
		{Field: "spec.nodeAffinity", Class: Mutable, Patch: spec("nodeAffinity: " + affinity)},
		{Field: "spec.nodeAffinity", Class: Invalid, Patch: spec("nodeAffinity: {}"), Error: "Required spec.nodeAffinity.required"},
		{Field: "spec.nodeAffinity", Class: Invalid, Patch: spec("nodeAffinity: {required: {nodeSelectorTerms: []}}"), Error: "Required spec.nodeAffinity.required.nodeSelectorTerms"},
		{Field: "spec.nodeAffinity", Class: Immutable, Base: withAffinity(affinity), Patch: spec("nodeAffinity: null"), Error: "Invalid nodeAffinity"},
		{Field: "spec.nodeAffinity", Class: Mutable, Base: withAffinity(older), Patch: spec("nodeAffinity: " + affinity)},
		{Field: "spec.volumeAttributesClassName", Class: Valid, Patch: spec(`volumeAttributesClassName: c, nfs: null, csi: {driver: d, volumeHandle: h}`), Want: spec("volumeAttributesClassName: c")},
		{Field: "spec.volumeAttributesClassName", Class: Invalid, Patch: spec(`volumeAttributesClassName: ""`), Error: "Required spec.csi; Required spec.volumeAttributesClassName"},
		{Field: "spec.nfs.server", Class: Invalid, Patch: spec("nfs: {server: null}"), Error: "Required spec.nfs.server"},
		{Field: "spec.nfs.path", Class: Invalid, Patch: spec("nfs: {path: x}"), Error: "Invalid spec.nfs.path"},
		{Field: "spec.nfs.readOnly", Class: Immutable, Patch: spec("nfs: {readOnly: true}"), Error: "Forbidden spec.persistentvolumesource"},
		{Field: "spec.hostPath.path", Class: Invalid, Patch: spec("hostPath: {path: /a}"), Error: "Forbidden spec.nfs"},
		{Field: "spec.hostPath.type", Class: Defaulted, Patch: spec("nfs: null, hostPath: {path: /a}"), Want: spec(`hostPath: {type: ""}`)},
		{Field: "spec.local.path", Class: Invalid, Patch: spec("nfs: null, local: {path: a/..}"), Error: "Invalid spec.local.path; Required spec.nodeAffinity"},
		{Field: "spec.local.fsType", Class: Valid, Patch: spec("nfs: null, local: {path: /a, fsType: ext4}, nodeAffinity: " + affinity), Want: spec("local: {fsType: ext4}")},
		{Field: "spec.csi.driver", Class: Invalid, Patch: csi(`driver: ""`), Error: "Required spec.csi.driver"},
		{Field: "spec.csi.volumeHandle", Class: Invalid, Patch: csi(`volumeHandle: ""`), Error: "Required spec.csi.volumeHandle"},
		{Field: "spec.csi.nodeStageSecretRef", Class: Valid, Patch: csi(`nodeStageSecretRef: {}`), Want: spec("csi: {nodeStageSecretRef: {}}")},
		{Field: "status.phase", Class: Mutable, Status: true, Patch: `{status: {phase: Bound}}`},
		{Field: "status.message", Class: Mutable, Status: true, Patch: `{status: {message: m}}`},
		{Field: "status.reason", Class: Dropped, Patch: `{status: {reason: R}}`},
		{Field: "status.lastPhaseTransitionTime", Class: Mutable, Status: true, Patch: `{status: {phase: Bound, lastPhaseTransitionTime: "2030-01-02T03:04:05Z"}}`},
	}
	for _, name := range []string{"readOnly: true", "fsType: ext4", "volumeAttributes: {a: b}"} {
		field, _, _ := strings.Cut(name, ":")
		rows = append(rows, Row{Field: "spec.csi." + field, Class: Valid, Patch: csi(name), Want: spec("csi: {" + name + "}")})
	}
	for _, name := range []string{"controllerPublishSecretRef", "nodePublishSecretRef", "controllerExpandSecretRef", "nodeExpandSecretRef"} {
		at := "spec.csi." + name
		rows = append(rows, Row{Field: at + ".name", Class: Invalid, Patch: csi(name + ": {name: A_B}"), Error: "Invalid " + at + ".name; Required " + at + ".namespace"},
			Row{Field: at + ".namespace", Class: Invalid, Patch: csi(name + ": {namespace: a.b}"), Error: "Invalid " + at + ".namespace; Required " + at + ".name"})
	}
	elsewhere := map[string]string{"spec.claimRef": "references have no rules here", "spec.nodeAffinity": "selectors are those of pods", "spec.csi.nodeStageSecretRef": "has no rules"}
	for _, s := range sources() {
		elsewhere["spec."+s.name] = "TestSources"
	}
	Run(t, Table{Resource: persistentvolume.Resource(), Base: base, Rows: rows, Elsewhere: elsewhere})
}

func withAffinity(a string) string {
	return `{metadata: {name: v}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], nfs: {server: s, path: /p}, nodeAffinity: ` + a + `}}`
}

type source struct{ name, good, bad, errors string }

// sources are those whose drivers have left Kubernetes, or that have the rules of a pod's volume.
func sources() []source {
	return []source{
		{"gcePersistentDisk", "{pdName: a}", "{partition: 256}", "Required spec.persistentDisk.pdName; Invalid spec.persistentDisk.partition"},
		{"awsElasticBlockStore", "{volumeID: a}", "{partition: -1}", "Required spec.awsElasticBlockStore.volumeID; Invalid spec.awsElasticBlockStore.partition"},
		{"glusterfs", "{endpoints: e, path: p}", "{path: p, endpointsNamespace: A}", "Required spec.glusterfs.endpoints; Invalid spec.glusterfs.endpointsNamespace"},
		{"rbd", "{monitors: [m], image: i}", "{}", "Required spec.rbd.monitors; Required spec.rbd.image"},
		{"iscsi", "{targetPortal: p, iqn: iqn.2001-04.com.example:x, lun: 1}", "{iqn: x, lun: 256}", "Required spec.iscsi.targetPortal; Invalid spec.iscsi.iqn; Invalid spec.iscsi.lun"},
		{"cinder", "{volumeID: a}", "{secretRef: {}}", "Required spec.cinder.volumeID; Required spec.cinder.secretRef.name; Required spec.cinder.secretRef.namespace"},
		{"cephfs", "{monitors: [m]}", "{}", "Required spec.cephfs.monitors"},
		{"fc", "{wwids: [a]}", "{}", "Required spec.fc.targetWWNs"},
		{"flocker", "{datasetName: a}", "{}", "Required spec.flocker"},
		{"flexVolume", "{driver: d}", "{secretRef: {}}", "Required spec.flexVolume.driver; Required spec.flexVolume.secretRef.name"},
		{"azureFile", "{secretName: a, shareName: b}", `{secretNamespace: ""}`,
			"Required spec.azureFile.secretName; Required spec.azureFile.shareName; Required spec.azureFile.secretNamespace"},
		{"vsphereVolume", "{volumePath: a}", "{}", "Required spec.vsphereVolume.volumePath"},
		{"quobyte", "{registry: 'h:1', volume: v}", "{registry: h}", "Invalid spec.quobyte.registry; Required spec.quobyte.volume"},
		{"azureDisk", "{diskName: a, diskURI: 'https://b'}", "{diskName: a, diskURI: b}", "NotSupported spec.azureDisk.diskURI"},
		{"photonPersistentDisk", "{pdID: a}", "{}", "Required spec.photonPersistentDisk.pdID"},
		{"portworxVolume", "{volumeID: a}", "{}", "Required spec.portworxVolume.volumeID"},
		{"scaleIO", "{gateway: g, system: s, volumeName: v, secretRef: {name: a}}", "{secretRef: null}",
			"Required spec.scaleIO.gateway; Required spec.scaleIO.system; Required spec.scaleIO.volumeName"},
		{"storageos", "{volumeName: a}", "{volumeName: A, secretRef: {name: a}}", "Invalid spec.storageos.volumeName; Required spec.storageos.secretRef.namespace"},
	}
}

func TestSources(t *testing.T) {
	var rows []Row
	for _, s := range sources() {
		field := "spec." + s.name
		rows = append(rows,
			Row{Field: field, Class: Valid, Patch: spec("nfs: null, " + s.name + ": " + s.good), Want: spec(s.name + ": " + s.good)},
			Row{Field: field, Class: Invalid, Patch: spec("nfs: null, " + s.name + ": " + s.bad), Error: s.errors},
			Row{Field: field, Class: Immutable, Base: `{metadata: {name: v}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], ` + s.name + `: ` + s.good + `}}`,
				Patch: spec(s.name + ": null, hostPath: {path: /a}"), Error: "Forbidden spec.persistentvolumesource"})
	}
	rows = append(rows, Row{Field: "spec.rbd.pool", Class: Defaulted, Patch: spec("nfs: null, rbd: {monitors: [m], image: i}"), Want: spec("rbd: {pool: rbd, user: admin, keyring: /etc/ceph/keyring}")},
		Row{Field: "spec.scaleIO.storageMode", Class: Defaulted, Patch: spec("nfs: null, scaleIO: {gateway: g, system: s, volumeName: v, secretRef: {name: a}}"),
			Want: spec("scaleIO: {storageMode: ThinProvisioned, fsType: xfs}")})
	Run(t, Table{Resource: persistentvolume.Resource(), Base: base, Rows: rows, Elsewhere: map[string]string{"spec": "TestFields", "status": "TestFields"}})
}
