package node_test

import (
	"testing"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/node"
)

// statusRows are the fields of status that are taken as they come, with a value of each.
func statusRows() []kindtest.Row {
	values := map[string]string{
		"phase":                                              `{phase: Running}`,
		"conditions[].type":                                  `{conditions: [{type: Ready}]}`,
		"conditions[].status":                                `{conditions: [{status: "True"}]}`,
		"conditions[].lastHeartbeatTime":                     `{conditions: [{lastHeartbeatTime: "2030-01-02T03:04:05Z"}]}`,
		"conditions[].lastTransitionTime":                    `{conditions: [{lastTransitionTime: "2030-01-02T03:04:05Z"}]}`,
		"conditions[].reason":                                `{conditions: [{reason: R}]}`,
		"conditions[].message":                               `{conditions: [{message: m}]}`,
		"addresses[].type":                                   `{addresses: [{type: InternalIP}]}`,
		"addresses[].address":                                `{addresses: [{address: 192.0.2.7}]}`,
		"daemonEndpoints.kubeletEndpoint.Port":               `{daemonEndpoints: {kubeletEndpoint: {Port: 10250}}}`,
		"nodeInfo.machineID":                                 `{nodeInfo: {machineID: m}}`,
		"nodeInfo.systemUUID":                                `{nodeInfo: {systemUUID: s}}`,
		"nodeInfo.bootID":                                    `{nodeInfo: {bootID: b}}`,
		"nodeInfo.kernelVersion":                             `{nodeInfo: {kernelVersion: 6.1.0}}`,
		"nodeInfo.osImage":                                   `{nodeInfo: {osImage: o}}`,
		"nodeInfo.containerRuntimeVersion":                   `{nodeInfo: {containerRuntimeVersion: c}}`,
		"nodeInfo.kubeletVersion":                            `{nodeInfo: {kubeletVersion: v1}}`,
		"nodeInfo.kubeProxyVersion":                          `{nodeInfo: {kubeProxyVersion: v1}}`,
		"nodeInfo.operatingSystem":                           `{nodeInfo: {operatingSystem: linux}}`,
		"nodeInfo.architecture":                              `{nodeInfo: {architecture: amd64}}`,
		"nodeInfo.swap.capacity":                             `{nodeInfo: {swap: {capacity: 1}}}`,
		"nodeInfo.runningInUserNamespace":                    `{nodeInfo: {runningInUserNamespace: true}}`,
		"images[].names":                                     `{images: [{names: [a]}]}`,
		"images[].sizeBytes":                                 `{images: [{sizeBytes: 1}]}`,
		"volumesInUse":                                       `{volumesInUse: [v]}`,
		"volumesAttached[].name":                             `{volumesAttached: [{name: v}]}`,
		"volumesAttached[].devicePath":                       `{volumesAttached: [{devicePath: /dev/x}]}`,
		"runtimeHandlers[].name":                             `{runtimeHandlers: [{name: r}]}`,
		"runtimeHandlers[].features.recursiveReadOnlyMounts": `{runtimeHandlers: [{features: {recursiveReadOnlyMounts: true}}]}`,
		"runtimeHandlers[].features.userNamespaces":          `{runtimeHandlers: [{features: {userNamespaces: true}}]}`,
		"features.supplementalGroupsPolicy":                  `{features: {supplementalGroupsPolicy: true}}`,
	}
	var rows []kindtest.Row
	for field, value := range values {
		patch := `{status: ` + value + `}`
		rows = append(rows,
			kindtest.Row{Field: "status." + field, Class: kindtest.Valid, Patch: patch},
			kindtest.Row{Field: "status." + field, Class: kindtest.Mutable, Status: true, Patch: patch},
			kindtest.Row{Field: "status." + field, Class: kindtest.Kept, Patch: patch, Want: `{metadata: {name: h1}}`})
	}
	return append(rows, removedRows()...)
}

// removedRows are the fields of features that Kubernetes removed or does not serve by default.
func removedRows() []kindtest.Row {
	rows := []kindtest.Row{
		{Field: "status.config.error", Class: kindtest.Dropped, Patch: `{status: {config: {error: e}}}`},
		{Field: "spec.podPreemptionPolicy.disableResizePreemption", Class: kindtest.Dropped, Patch: `{spec: {podPreemptionPolicy: {disableResizePreemption: [a]}}}`},
	}
	for _, name := range []string{"namespace", "name", "uid", "resourceVersion", "kubeletConfigKey"} {
		source := `{configMap: {` + name + `: x}}`
		rows = append(rows, kindtest.Row{Field: "spec.configSource.configMap." + name, Class: kindtest.Dropped, Patch: `{spec: {configSource: ` + source + `}}`})
		for _, which := range []string{"assigned", "active", "lastKnownGood"} {
			rows = append(rows, kindtest.Row{Field: "status.config." + which + ".configMap." + name, Class: kindtest.Dropped,
				Patch: `{status: {config: {` + which + `: ` + source + `}}}`})
		}
	}
	return rows
}

func TestFields(t *testing.T) {
	const ranged = `{metadata: {name: h1}, spec: {podCIDRs: [10.244.0.0/24, "fd00::/64"], providerID: a, externalID: e}}`
	taint := func(t string) string { return `{spec: {taints: [` + t + `]}}` }
	rows := []kindtest.Row{
		{Field: "metadata.name", Class: kindtest.Valid, Patch: `{metadata: {name: a.b}}`},
		{Field: "metadata.name", Class: kindtest.Invalid, Patch: `{metadata: {name: Upper}}`, Error: "Invalid metadata.name"},
		{Field: "metadata.annotations", Class: kindtest.Invalid, Patch: `{metadata: {annotations: {scheduler.alpha.kubernetes.io/preferAvoidPods: "{\"preferAvoidPods\":[{}]}"}}}`,
			Error: "Required metadata.annotations.scheduler.alpha.kubernetes.io/preferAvoidPods[0].podSignature"},
		{Field: "spec.podCIDR", Class: kindtest.Defaulted, Patch: `{spec: {podCIDRs: [10.244.0.0/24]}}`, Want: `{spec: {podCIDR: 10.244.0.0/24}}`},
		{Field: "spec.podCIDR", Class: kindtest.Immutable, Base: ranged, Patch: `{spec: {podCIDR: 10.245.0.0/24}}`, Error: "Forbidden spec.podCIDRs"},
		{Field: "spec.podCIDR", Class: kindtest.Mutable, Patch: `{spec: {podCIDR: 10.245.0.0/24}}`},
		{Field: "spec.podCIDRs", Class: kindtest.Defaulted, Patch: `{spec: {podCIDR: 10.244.0.0/24}}`, Want: `{spec: {podCIDRs: [10.244.0.0/24]}}`},
		{Field: "spec.podCIDRs", Class: kindtest.Defaulted, Patch: `{spec: {podCIDR: 10.244.0.0/24, podCIDRs: [10.1.0.0/24, "fd00::/64"]}}`, Want: `{spec: {podCIDRs: [10.244.0.0/24]}}`},
		{Field: "spec.podCIDRs", Class: kindtest.Invalid, Patch: `{spec: {podCIDRs: [10.244.0.1/24]}}`, Error: "Invalid spec.podCIDRs[0]"},
		{Field: "spec.podCIDRs", Class: kindtest.Invalid, Patch: `{spec: {podCIDRs: [10.244.0.0/24, 10.245.0.0/24]}}`, Error: "Invalid spec.podCIDRs"},
		{Field: "spec.podCIDRs", Class: kindtest.Invalid, Patch: `{spec: {podCIDRs: [10.244.0.0/24, x]}}`, Error: "Internal spec.podCIDRs; Invalid spec.podCIDRs; Invalid spec.podCIDRs[1]"},
		{Field: "spec.podCIDRs", Class: kindtest.Immutable, Base: ranged, Patch: `{spec: {podCIDRs: [10.244.0.0/24]}}`, Error: "Forbidden spec.podCIDRs"},
		{Field: "spec.providerID", Class: kindtest.Mutable, Patch: `{spec: {providerID: a}}`},
		{Field: "spec.providerID", Class: kindtest.Immutable, Base: ranged, Patch: `{spec: {providerID: b}}`, Error: "Invalid spec.providerID"},
		{Field: "spec.unschedulable", Class: kindtest.Mutable, Patch: `{spec: {unschedulable: true}}`},
		{Field: "spec.unschedulable", Class: kindtest.Kept, Status: true, Patch: `{spec: {unschedulable: true}}`, Want: `{spec: {taints: [{key: node.kubernetes.io/not-ready}]}}`},
		{Field: "spec.taints", Class: kindtest.Defaulted, Patch: taint(`{key: k, effect: NoExecute}`), Want: taint(`{key: k}, {key: node.kubernetes.io/not-ready, effect: NoSchedule}`)},
		{Field: "spec.taints", Class: kindtest.Mutable, Patch: `{spec: {taints: null}}`, Want: `{metadata: {name: h1}}`},
		{Field: "spec.taints", Class: kindtest.Invalid, Patch: taint(`{key: k, effect: NoExecute}, {key: k, value: v, effect: NoExecute}`), Error: "Duplicate metadata.taints[1]"},
		{Field: "spec.taints[].key", Class: kindtest.Invalid, Patch: taint(`{key: "", effect: NoExecute}`), Error: "Invalid metadata.taints[0].key"},
		{Field: "spec.taints[].key", Class: kindtest.Immutable, Patch: taint(`{key: "a b", effect: NoExecute}`), Error: "Invalid metadata.taints[0].key"},
		{Field: "spec.taints[].value", Class: kindtest.Valid, Patch: taint(`{key: k, value: v, effect: NoExecute}`), Want: `{metadata: {name: h1}}`},
		{Field: "spec.taints[].value", Class: kindtest.Invalid, Patch: taint(`{key: k, value: "a b", effect: NoExecute}`), Error: "Invalid metadata.taints[0].value"},
		{Field: "spec.taints[].effect", Class: kindtest.Invalid, Patch: taint(`{key: k}`), Error: "Required metadata.taints[0].effect"},
		{Field: "spec.taints[].effect", Class: kindtest.Invalid, Patch: taint(`{key: k, effect: Never}`), Error: "NotSupported metadata.taints[0].effect"},
		{Field: "spec.taints[].timeAdded", Class: kindtest.Mutable, Patch: taint(`{key: k, effect: NoExecute, timeAdded: "2030-01-02T03:04:05Z"}`)},
		{Field: "spec.externalID", Class: kindtest.Valid, Patch: `{spec: {externalID: e}}`},
		{Field: "spec.externalID", Class: kindtest.Immutable, Base: ranged, Patch: `{spec: {externalID: f}}`, Error: "Forbidden spec"},
		{Field: "status.capacity", Class: kindtest.Valid, Patch: `{status: {capacity: {cpu: "4", example.com/gpu: "2"}}}`},
		{Field: "status.capacity", Class: kindtest.Invalid, Patch: `{status: {capacity: {cpu: "-1"}}}`, Error: "Invalid status.allocatable.cpu; Invalid status.capacity.cpu"},
		{Field: "status.capacity", Class: kindtest.Immutable, Status: true, Patch: `{status: {capacity: {pods: 1500m}, allocatable: {}}}`, Error: "Invalid status.capacity.pods"},
		{Field: "status.allocatable", Class: kindtest.Defaulted, Patch: `{status: {capacity: {cpu: "4"}}}`, Want: `{status: {allocatable: {cpu: "4"}}}`},
		{Field: "status.allocatable", Class: kindtest.Mutable, Status: true, Patch: `{status: {allocatable: {memory: 1Gi}}}`},
		{Field: "status.addresses", Class: kindtest.Immutable, Status: true, Patch: `{status: {addresses: [{type: InternalIP, address: a}, {type: InternalIP, address: a}]}}`, Error: "Duplicate status.addresses[1]"},
		{Field: "status.declaredFeatures", Class: kindtest.Valid, Patch: `{status: {declaredFeatures: [A]}}`},
	}
	kindtest.Run(t, kindtest.Table{
		Resource: node.Resource(),
		Base:     `{metadata: {name: h1}}`,
		Rows:     append(rows, statusRows()...),
	})
}
