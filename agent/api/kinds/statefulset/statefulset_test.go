package statefulset

import (
	"testing"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
)

const base = `{metadata: {name: s, namespace: ns}, spec: {replicas: 2, serviceName: svc, selector: {matchLabels: {app: s}},
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}],
  template: {metadata: {labels: {app: s}}, spec: {containers: [{name: c, image: example.com/app, volumeMounts: [{name: data, mountPath: /data}]}]}}},
  status: {replicas: 3, readyReplicas: 2, availableReplicas: 1, currentReplicas: 1, updatedReplicas: 2}}`

func TestFields(t *testing.T) {
	status := func(field string, class kindtest.Class, patch, err string) kindtest.Row {
		return kindtest.Row{Field: "status." + field, Class: class, Patch: `{"status":` + patch + `}`, Error: err, Status: true}
	}
	claim := func(patch string) string {
		return `{"spec":{"volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":` + patch + `}]}}`
	}
	kindtest.Run(t, kindtest.Table{
		Resource: Resource(),
		Base:     base,
		Elsewhere: map[string]string{"spec.template": "package pod", "spec.volumeClaimTemplates[].metadata": "not validated, as in Kubernetes",
			"spec.volumeClaimTemplates[].spec": "package persistentvolumeclaim", "spec.volumeClaimTemplates[].status": "means nothing in a template"},
		Rows: []kindtest.Row{
			{Field: "spec.replicas", Class: kindtest.Invalid, Patch: `{"spec":{"replicas":-1}}`, Error: "Invalid spec.replicas"},
			{Field: "spec.replicas", Class: kindtest.Defaulted, Patch: `{"spec":{"replicas":null}}`, Want: `{"spec":{"replicas":1}}`},
			{Field: "spec.replicas", Class: kindtest.Mutable, Patch: `{"spec":{"replicas":9}}`},
			{Field: "spec.selector", Class: kindtest.Invalid, Patch: `{"spec":{"selector":null}}`, Error: "Required spec.selector; Invalid spec.template.metadata.labels"},
			{Field: "spec.selector", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchLabels":null}}}`, Error: "Invalid spec.selector"},
			{Field: "spec.selector.matchLabels", Class: kindtest.Immutable, Patch: `{"spec":{"selector":{"matchLabels":{"b":"c"}},"template":{"metadata":{"labels":{"b":"c"}}}}}`, Error: "Invalid spec.selector"},
			{Field: "spec.selector.matchExpressions[].key", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchExpressions":[{"key":"a b","operator":"Exists"}]}}}`,
				Error: "Invalid spec.selector; Invalid spec.selector.matchExpressions[0].key"},
			{Field: "spec.selector.matchExpressions[].operator", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"Like"}]}}}`,
				Error: "Invalid spec.selector; Invalid spec.selector.matchExpressions[0].operator"},
			{Field: "spec.selector.matchExpressions[].values", Class: kindtest.Invalid, Patch: `{"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"In"}]}}}`,
				Error: "Invalid spec.selector; Required spec.selector.matchExpressions[0].values"},
			{Field: "spec.volumeClaimTemplates", Class: kindtest.Defaulted,
				Want: `{"spec":{"volumeClaimTemplates":[{"apiVersion":"v1","kind":"PersistentVolumeClaim","spec":{"volumeMode":"Filesystem"},"status":{"phase":"Pending"}}]}}`},
			{Field: "spec.volumeClaimTemplates[].apiVersion", Class: kindtest.Defaulted, Want: `{"spec":{"volumeClaimTemplates":[{"apiVersion":"v1"}]}}`},
			{Field: "spec.volumeClaimTemplates[].kind", Class: kindtest.Defaulted, Want: `{"spec":{"volumeClaimTemplates":[{"kind":"PersistentVolumeClaim"}]}}`},
			{Field: "spec.volumeClaimTemplates[].spec.accessModes", Class: kindtest.Invalid, Patch: claim(`{"resources":{"requests":{"storage":"1Gi"}}}`), Error: "Required spec.volumeClaimTemplates[0].spec.accessModes"},
			{Field: "spec.volumeClaimTemplates", Class: kindtest.Immutable, Patch: claim(`{"accessModes":["ReadWriteMany"],"resources":{"requests":{"storage":"1Gi"}}}`), Error: "Invalid spec.volumeClaimTemplates"},
			{Field: "spec.volumeClaimTemplates", Class: kindtest.Invalid, Patch: `{"spec":{"volumeClaimTemplates":null}}`, Error: "NotFound spec.template.spec.containers[0].volumeMounts[0].name"},
			{Field: "spec.serviceName", Class: kindtest.Invalid, Patch: `{"spec":{"serviceName":"a.b"}}`, Error: "Invalid spec.serviceName"},
			{Field: "spec.serviceName", Class: kindtest.Immutable, Patch: `{"spec":{"serviceName":"other"}}`, Error: "Invalid spec.serviceName"},
			{Field: "spec.podManagementPolicy", Class: kindtest.Defaulted, Want: `{"spec":{"podManagementPolicy":"OrderedReady"}}`},
			{Field: "spec.podManagementPolicy", Class: kindtest.Invalid, Patch: `{"spec":{"podManagementPolicy":"Any"}}`, Error: "Invalid spec.podManagementPolicy"},
			{Field: "spec.podManagementPolicy", Class: kindtest.Immutable, Patch: `{"spec":{"podManagementPolicy":"Parallel"}}`, Error: "Invalid spec.podManagementPolicy"},
			{Field: "spec.updateStrategy.type", Class: kindtest.Defaulted, Want: `{"spec":{"updateStrategy":{"type":"RollingUpdate","rollingUpdate":{"partition":0,"maxUnavailable":1}}}}`},
			{Field: "spec.updateStrategy.type", Class: kindtest.Invalid, Patch: `{"spec":{"updateStrategy":{"type":"Never"}}}`, Error: "Invalid spec.updateStrategy"},
			{Field: "spec.updateStrategy.rollingUpdate", Class: kindtest.Invalid, Patch: `{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":{}}}}`, Error: "Invalid spec.updateStrategy.rollingUpdate"},
			{Field: "spec.updateStrategy.rollingUpdate.partition", Class: kindtest.Invalid, Patch: `{"spec":{"updateStrategy":{"rollingUpdate":{"partition":-1}}}}`, Error: "Invalid spec.updateStrategy.rollingUpdate.partition"},
			{Field: "spec.updateStrategy.rollingUpdate.maxUnavailable", Class: kindtest.Invalid, Patch: `{"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":0}}}}`, Error: "Invalid spec.updateStrategy.rollingUpdate.maxUnavailable"},
			{Field: "spec.updateStrategy.rollingUpdate.maxUnavailable", Class: kindtest.Invalid, Patch: `{"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":"101%"}}}}`, Error: "Invalid spec.updateStrategy.rollingUpdate.maxUnavailable"},
			{Field: "spec.revisionHistoryLimit", Class: kindtest.Defaulted, Want: `{"spec":{"revisionHistoryLimit":10}}`},
			{Field: "spec.revisionHistoryLimit", Class: kindtest.Valid, Patch: `{"spec":{"revisionHistoryLimit":-1}}`},
			{Field: "spec.minReadySeconds", Class: kindtest.Invalid, Patch: `{"spec":{"minReadySeconds":-1}}`, Error: "Invalid spec.minReadySeconds"},
			{Field: "spec.persistentVolumeClaimRetentionPolicy.whenDeleted", Class: kindtest.Defaulted, Want: `{"spec":{"persistentVolumeClaimRetentionPolicy":{"whenDeleted":"Retain"}}}`},
			{Field: "spec.persistentVolumeClaimRetentionPolicy.whenDeleted", Class: kindtest.Invalid, Patch: `{"spec":{"persistentVolumeClaimRetentionPolicy":{"whenDeleted":"Keep"}}}`,
				Error: "NotSupported spec.persistentVolumeClaimRetentionPolicy.whenDeleted"},
			{Field: "spec.persistentVolumeClaimRetentionPolicy.whenScaled", Class: kindtest.Mutable, Patch: `{"spec":{"persistentVolumeClaimRetentionPolicy":{"whenScaled":"Delete"}}}`},
			{Field: "spec.ordinals.start", Class: kindtest.Invalid, Patch: `{"spec":{"ordinals":{"start":-1}}}`, Error: "Invalid spec.ordinals.start"},
			{Field: "spec.ordinals.start", Class: kindtest.Mutable, Patch: `{"spec":{"ordinals":{"start":5}}}`},
			status("observedGeneration", kindtest.Immutable, `{"observedGeneration":-1}`, "Invalid status.observedGeneration"),
			status("replicas", kindtest.Immutable, `{"replicas":1,"currentReplicas":0}`, "Invalid status.readyReplicas; Invalid status.updatedReplicas"),
			status("readyReplicas", kindtest.Immutable, `{"readyReplicas":4}`, "Invalid status.readyReplicas"),
			status("currentReplicas", kindtest.Immutable, `{"currentReplicas":4}`, "Invalid status.currentReplicas"),
			status("updatedReplicas", kindtest.Immutable, `{"updatedReplicas":4}`, "Invalid status.updatedReplicas"),
			status("availableReplicas", kindtest.Immutable, `{"availableReplicas":3}`, "Invalid status.availableReplicas"),
			status("currentRevision", kindtest.Mutable, `{"currentRevision":"a"}`, ""),
			status("updateRevision", kindtest.Mutable, `{"updateRevision":"b"}`, ""),
			status("collisionCount", kindtest.Immutable, `{"collisionCount":-1}`, "Invalid status.collisionCount"),
			status("conditions[].type", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True"}]}`, ""),
			status("conditions[].status", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True"}]}`, ""),
			status("conditions[].lastTransitionTime", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`, ""),
			status("conditions[].reason", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True","reason":"R"}]}`, ""),
			status("conditions[].message", kindtest.Mutable, `{"conditions":[{"type":"A","status":"True","message":"m"}]}`, ""),
		},
	})
}
