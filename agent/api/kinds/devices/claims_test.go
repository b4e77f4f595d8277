package devices_test

import (
	"strings"
	"testing"

	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
)

const asked = `deviceClassName: c, selectors: [{cel: {expression: "true"}}], allocationMode: ExactCount, count: 2,
  tolerations: [{key: k, operator: Equal, value: v, effect: NoExecute, tolerationSeconds: 5}], capacity: {requests: {memory: 1Gi}}`

// claimed is what a claim with everything asks for.
const claimed = `devices: {
  requests: [{name: one, exactly: {` + asked + `, adminAccess: false}}, {name: two, firstAvailable: [{name: big, ` + asked + `}]}],
  constraints: [{requests: [one, two/big], matchAttribute: d.example.com/model}, {distinctAttribute: d.example.com/numa}],
  config: [{requests: [one], opaque: {driver: d.example.com, parameters: {a: b}}}]}`

// claimRows show the fields of what is asked for, below that prefix. Everything is kept as it is written.
func claimRows(prefix string) []Row {
	nest := func(text string) string {
		path := strings.Split(strings.TrimSuffix(prefix, "."), ".")
		return "{" + strings.Join(path, ": {") + ": {" + text + "}" + strings.Repeat("}", len(path))
	}
	first := func(text string) string {
		return nest("devices: {constraints: null, config: null, requests: [{name: one, exactly: {deviceClassName: c, " + text + "}}]}")
	}
	at := prefix + "devices."
	exactly := at + "requests[0].exactly."
	rows := []Row{
		{Field: at + "requests[].name", Class: Invalid, Patch: nest("devices: {constraints: null, config: null, requests: [{name: a.b, exactly: {deviceClassName: c}}]}"), Error: "Invalid " + at + "requests[0].name"},
		{Field: at + "requests", Class: Invalid, Patch: nest("devices: {constraints: null, config: null, requests: [{name: a}]}"), Error: "Required " + at + "requests[0]"},
		{Field: at + "requests", Class: Invalid, Patch: nest("devices: {constraints: null, config: null, requests: [{name: a, exactly: {deviceClassName: c}}, {name: a, exactly: {deviceClassName: c}}]}"), Error: "Duplicate " + at + "requests[1].name"},
		{Field: at + "requests", Class: Invalid, Patch: nest("devices: {constraints: null, config: null, requests: [{name: a, exactly: {deviceClassName: c}, firstAvailable: [{name: b, deviceClassName: c}]}]}"), Error: "Invalid " + at + "requests[0]"},
		{Field: at + "requests[].exactly.deviceClassName", Class: Invalid, Patch: first("deviceClassName: ''"), Error: "Required " + exactly + "deviceClassName"},
		{Field: at + "requests[].exactly.selectors", Class: Invalid, Patch: first("selectors: [{}]"), Error: "Required " + exactly + "selectors[0].cel"},
		{Field: at + "requests[].exactly.selectors[].cel.expression", Class: Invalid, Patch: first("selectors: [{cel: {expression: 1 +}}]"), Error: "Invalid " + exactly + "selectors[0].cel.expression"},
		{Field: at + "requests[].exactly.allocationMode", Class: Defaulted, Patch: first(""), Want: nest("devices: {constraints: null, config: null, requests: [{exactly: {allocationMode: ExactCount, count: 1}}]}")},
		{Field: at + "requests[].exactly.allocationMode", Class: Invalid, Patch: first("allocationMode: Odd"), Error: "NotSupported " + exactly + "allocationMode"},
		{Field: at + "requests[].exactly.count", Class: Invalid, Patch: first("count: -1"), Error: "Invalid " + exactly + "count"},
		{Field: at + "requests[].exactly.count", Class: Invalid, Patch: first("allocationMode: All, count: 1"), Error: "Invalid " + exactly + "count"},
		{Field: at + "requests[].exactly.tolerations[].key", Class: Invalid, Patch: first("tolerations: [{key: 'a b', operator: Exists}]"), Error: "Invalid " + exactly + "tolerations[0].key"},
		{Field: at + "requests[].exactly.tolerations[].operator", Class: Invalid, Patch: first("tolerations: [{operator: Odd}]"), Error: "NotSupported " + exactly + "tolerations[0].operator"},
		{Field: at + "requests[].exactly.tolerations[].value", Class: Invalid, Patch: first("tolerations: [{operator: Exists, value: v}]"), Error: "Invalid " + exactly + "tolerations[0].value"},
		{Field: at + "requests[].exactly.tolerations[].effect", Class: Invalid, Patch: first("tolerations: [{operator: Exists, effect: Odd}]"), Error: "NotSupported " + exactly + "tolerations[0].effect"},
		{Field: at + "requests[].exactly.capacity.requests", Class: Invalid, Patch: first("capacity: {requests: {a-b: 1}}"), Error: "Invalid " + exactly + "capacity.requests[a-b]"},
		{Field: at + "requests[].exactly.derivedAttributes", Class: Dropped, Patch: first("derivedAttributes: [{name: d.example.com/a, expression: '1'}]")},
		{Field: at + "requests[].firstAvailable[].name", Class: Invalid, Patch: nest("devices: {constraints: null, config: null, requests: [{name: a, firstAvailable: [{name: b.c, deviceClassName: c}]}]}"), Error: "Invalid " + at + "requests[0].firstAvailable[0].name"},
		{Field: at + "constraints", Class: Invalid, Patch: nest("devices: {constraints: [{requests: [one]}]}"), Error: "Required " + at + "constraints[0]"},
		{Field: at + "constraints[].requests", Class: Invalid, Patch: nest("devices: {constraints: [{requests: [three], matchAttribute: d/a}]}"), Error: "Invalid " + at + "constraints[0].requests[0]"},
		{Field: at + "constraints[].requests", Class: Invalid, Patch: nest("devices: {constraints: [{requests: [one, one], matchAttribute: d/a}]}"), Error: "Duplicate " + at + "constraints[0].requests[1]"},
		{Field: at + "constraints[].matchAttribute", Class: Invalid, Patch: nest("devices: {constraints: [{matchAttribute: model}]}"), Error: "Invalid " + at + "constraints[0].matchAttribute"},
		{Field: at + "constraints[].distinctAttribute", Class: Invalid, Patch: nest("devices: {constraints: [{distinctAttribute: d/a-b}]}"), Error: "Invalid " + at + "constraints[0].distinctAttribute"},
		{Field: at + "config", Class: Invalid, Patch: nest("devices: {config: [{requests: [one]}]}"), Error: "Required " + at + "config[0].opaque"},
		{Field: at + "config[].requests", Class: Invalid, Patch: nest("devices: {config: [{requests: [two/small], opaque: {driver: d, parameters: {}}}]}"), Error: "Invalid " + at + "config[0].requests[0]"},
		{Field: at + "config[].opaque.driver", Class: Invalid, Patch: nest("devices: {config: [{opaque: {parameters: {}}}]}"), Error: "Required " + at + "config[0].opaque.driver"},
		{Field: at + "config[].opaque.parameters", Class: Invalid, Patch: nest("devices: {config: [{opaque: {driver: d}}]}"), Error: "Required " + at + "config[0].opaque.parameters"},
	}
	for _, field := range []string{"requests[].exactly.tolerations[].tolerationSeconds", "requests[].exactly.adminAccess"} {
		rows = append(rows, Row{Field: at + field, Class: Valid, Patch: nest(claimed)})
	}
	return rows
}

func TestFieldsOfClaims(t *testing.T) {
	spec := "spec: {" + claimed + "}"
	const result = `request: one, driver: d.example.com, pool: p, device: dev-0`
	status := func(text string) string { return `{status: {` + text + `}}` }
	allocated := func(text string) string {
		return status(`allocation: {devices: {results: [{` + result + `, ` + text + `}]}}`)
	}
	device := func(text string) string {
		return status(`allocation: {devices: {results: [{` + result + `}]}}, devices: [{driver: d.example.com, pool: p, device: dev-0, ` + text + `}]`)
	}
	const at, all = "status.allocation.devices.results[0].", "status.allocation.devices.results[]."
	update := func(field string, class Class, patch, errors string) Row {
		return Row{Field: field, Class: class, Status: true, Patch: patch, Error: errors}
	}
	rows := append(claimRows("spec."), []Row{
		{Field: "spec.devices", Class: Immutable, Patch: `{spec: {devices: {config: null}}}`, Error: "Invalid spec"},
		{Field: "status.allocation", Class: Dropped, Patch: allocated("")},
		update(all+"request", Immutable, allocated("request: three"), "Invalid "+at+"request"),
		update(all+"driver", Immutable, allocated("driver: ''"), "Required "+at+"driver"),
		update(all+"pool", Immutable, allocated("pool: a//b"), "Invalid "+at+"pool"),
		update(all+"device", Immutable, allocated("device: A"), "Invalid "+at+"device"),
		update(all+"adminAccess", Mutable, allocated("adminAccess: true"), ""),
		update(all+"bindingConditions", Immutable, allocated("bindingConditions: [a]"), "Invalid "+at+"bindingFailureConditions"),
		update(all+"bindingFailureConditions", Immutable, allocated("bindingFailureConditions: [a]"), "Invalid "+at+"bindingConditions"),
		update(all+"shareID", Immutable, allocated("shareID: x"), "Invalid "+at+"shareID"),
		update(all+"consumedCapacity", Immutable, allocated("consumedCapacity: {a-b: 1}"), "Invalid "+at+"consumedCapacity[a-b]"),
		update(all+"tolerations[].operator", Immutable, allocated("tolerations: [{operator: Odd}]"), "NotSupported "+at+"tolerations[0].operator"),
		update("status.allocation.devices.config[].source", Immutable, status("allocation: {devices: {config: [{opaque: {driver: d, parameters: {}}}]}}"), "Required status.allocation.devices.config[0].source"),
		update("status.allocation.devices.config[].requests", Immutable, status("allocation: {devices: {config: [{source: FromClass, requests: [x], opaque: {driver: d, parameters: {}}}]}}"), "Invalid status.allocation.devices.config[0].requests[0]"),
		update("status.allocation.devices.config[].opaque", Immutable, status("allocation: {devices: {config: [{source: FromClaim}]}}"), "Required status.allocation.devices.config[0].opaque"),
		update("status.allocation.nodeSelector", Immutable, status("allocation: {nodeSelector: {nodeSelectorTerms: []}}"), "Required status.allocation.nodeSelector.nodeSelectorTerms"),
		update("status.allocation.allocationTimestamp", Mutable, status(`allocation: {allocationTimestamp: "2030-01-02T03:04:05Z"}`), ""),
		update("status.reservedFor", Immutable, status("reservedFor: [{resource: pods, name: p, uid: u}]"), "Forbidden status.reservedFor"),
		update("status.reservedFor[].apiGroup", Mutable, status("allocation: {}, reservedFor: [{apiGroup: apps, resource: pods, name: p, uid: u}]"), ""),
		update("status.reservedFor[].resource", Immutable, status("allocation: {}, reservedFor: [{name: p, uid: u}]"), "Required status.reservedFor[0].resource"),
		update("status.reservedFor[].name", Immutable, status("allocation: {}, reservedFor: [{resource: pods, uid: u}]"), "Required status.reservedFor[0].name"),
		update("status.reservedFor[].uid", Immutable, status("allocation: {}, reservedFor: [{resource: pods, name: p}]"), "Required status.reservedFor[0].uid"),
		update("status.devices[].driver", Immutable, status("devices: [{pool: p, device: d}]"), "Required status.devices[0].driver; Invalid status.devices[0]"),
		update("status.devices[].pool", Immutable, status("devices: [{driver: d, device: d}]"), "Required status.devices[0].pool; Invalid status.devices[0]"),
		update("status.devices[].device", Immutable, status("devices: [{driver: d, pool: p}]"), "Invalid status.devices[0].device; Invalid status.devices[0]"),
		update("status.devices[].shareID", Immutable, device("shareID: x"), "Invalid status.devices[0].shareID; Invalid status.devices[0]"),
		update("status.devices[].conditions", Immutable, device("conditions: [{type: T}]"), "Required status.devices[0].conditions[0].status; Required status.devices[0].conditions[0].lastTransitionTime; Required status.devices[0].conditions[0].reason"),
		update("status.devices[].data", Immutable, device("data: text"), "Invalid status.devices[0].data"),
		update("status.devices[].networkData.interfaceName", Immutable, device("networkData: {interfaceName: "+strings.Repeat("a", 257)+"}"), "TooLong status.devices[0].networkData.interfaceName"),
		update("status.devices[].networkData.hardwareAddress", Immutable, device("networkData: {hardwareAddress: "+strings.Repeat("a", 129)+"}"), "TooLong status.devices[0].networkData.hardwareAddress"),
		update("status.devices[].networkData.ips", Immutable, device("networkData: {ips: [192.0.2.1]}"), "Invalid status.devices[0].networkData.ips[0]"),
	}...)
	Run(t, Table{Resource: resource(t, "ResourceClaim"), Base: `{metadata: {name: c, namespace: ns}, ` + spec + `}`, Rows: rows, Elsewhere: map[string]string{
		"spec.devices.requests[].firstAvailable[]":               "as of requests[].exactly",
		"spec.devices.requests[].exactly.derivedAttributes[]":    "dropped as a whole",
		"status.allocation.nodeSelector":                         "node selectors are tested in podspec",
		"status.devices[].conditions":                            "conditions are the library's",
		"status.allocation.devices.config[].opaque":              "as of spec.devices.config",
		"status.allocation.devices.results[].tolerations[]":      "as of spec.devices.requests",
		"status.allocation.devices.results[].skipNodeOperations": "dropped, as in Kubernetes",
	}})
}

func TestFieldsOfClaimTemplates(t *testing.T) {
	rows := append(claimRows("spec.spec."), []Row{
		{Field: "spec.spec.devices", Class: Immutable, Patch: `{spec: {spec: {devices: {config: null}}}}`, Error: "Invalid spec"},
		{Field: "spec.metadata.labels", Class: Invalid, Patch: `{spec: {metadata: {labels: {a b: c}}}}`, Error: "Invalid spec.metadata.labels"},
		{Field: "spec.metadata.annotations", Class: Invalid, Patch: `{spec: {metadata: {annotations: {a b: c}}}}`, Error: "Invalid spec.metadata.annotations"},
		{Field: "spec.metadata.name", Class: Invalid, Patch: `{spec: {metadata: {name: x}}}`, Error: "Forbidden spec.metadata.name"},
	}...)
	Run(t, Table{Resource: resource(t, "ResourceClaimTemplate"), Base: `{metadata: {name: c, namespace: ns}, spec: {spec: {` + claimed + `}}}`, Rows: rows, Elsewhere: map[string]string{
		"spec.metadata": "all but labels and annotations as its name",
		"spec.spec.devices.requests[].firstAvailable[]":            "as of requests[].exactly",
		"spec.spec.devices.requests[].exactly.derivedAttributes[]": "dropped as a whole",
	}})
}

// The helpers of the tables of slices: a patch of spec, one of a device, and a row that is refused.
func sliceSpec(text string) string   { return `{spec: {` + text + `}}` }
func sliceDevice(text string) string { return sliceSpec(`devices: [{name: dev-0, ` + text + `}]`) }
func refused(field, patch, errors string) Row {
	return Row{Field: field, Class: Invalid, Patch: patch, Error: errors}
}

// sliceRows show the fields of a slice.
func sliceRows() []Row {
	return []Row{
		{Field: "spec.driver", Class: Immutable, Patch: sliceSpec("driver: e"), Error: "Invalid spec.driver"},
		{Field: "spec.pool.name", Class: Immutable, Patch: sliceSpec("pool: {name: q}"), Error: "Invalid spec.pool.name"},
		{Field: "spec.nodeName", Class: Immutable, Patch: sliceSpec("nodeName: n2"), Error: "Invalid spec.nodeName"},
		refused("spec.nodeName", sliceSpec("nodeName: ''"), "Invalid spec.nodeName; Required spec"),
		{Field: "spec.pool.generation", Class: Mutable, Patch: sliceSpec("pool: {generation: 2}")},
		refused("spec.pool.generation", sliceSpec("pool: {generation: -1}"), "Invalid spec.pool.generation"),
		refused("spec.pool.resourceSliceCount", sliceSpec("pool: {resourceSliceCount: 0}"), "Invalid spec.pool.resourceSliceCount"),
		refused("spec.nodeSelector", sliceSpec("nodeSelector: {nodeSelectorTerms: []}"), "Invalid spec; Required spec.nodeSelector.nodeSelectorTerms; Invalid spec.nodeSelector.nodeSelectorTerms"),
		refused("spec.allNodes", sliceSpec("allNodes: true"), "Invalid spec"),
		refused("spec.allNodes", sliceSpec("allNodes: false"), "Invalid spec.allNodes"),
		refused("spec.perDeviceNodeSelection", sliceSpec("perDeviceNodeSelection: false"), "Invalid spec.perDeviceNodeSelection"),
		refused("spec.perDeviceNodeSelection", sliceSpec("nodeName: null, perDeviceNodeSelection: true, devices: [{name: a}]"), "Required spec.devices[0]"),
		{Field: "spec.partitionTypeAttribute", Class: Dropped, Patch: sliceSpec("partitionTypeAttribute: d/a")},
		{Field: "spec.skipNodeOperations", Class: Dropped, Patch: sliceSpec("skipNodeOperations: ['*']")},
		refused("spec.sharedCounters[].name", sliceSpec("sharedCounters: [{counters: {a: {value: '1'}}}]"), "Required spec.sharedCounters[0].name"),
		refused("spec.sharedCounters[].counters", sliceSpec("sharedCounters: [{name: a}]"), "Required spec.sharedCounters[0].counters"),
		refused("spec.sharedCounters", sliceSpec("devices: [{name: a}], sharedCounters: [{name: a, counters: {a: {value: '1'}}}]"), "Invalid spec"),
		{Field: "spec.sharedCounters[].counters{}.value", Class: Mutable, Patch: sliceSpec("sharedCounters: [{name: a, counters: {a: {value: '1'}}}]")},
	}
}

// deviceRows show those of a device.
func deviceRows() []Row {
	const at, all = "spec.devices[0].", "spec.devices[]."
	return []Row{
		{Field: "spec.devices", Class: Mutable, Patch: sliceDevice("")},
		refused(all+"name", sliceSpec("devices: [{name: A}]"), "Invalid "+at+"name"),
		refused(all+"name", sliceSpec("devices: [{name: a}, {name: a}]"), "Duplicate spec.devices[1].name"),
		refused(all+"attributes", sliceDevice("attributes: {a-b: {int: 1}}"), "Invalid "+at+"attributes[a-b]"),
		refused(all+"attributes", sliceDevice("attributes: {a: {}}"), "Invalid "+at+"attributes[a]"),
		{Field: all + "attributes{}.int", Class: Mutable, Patch: sliceDevice("attributes: {a: {int: 1}}")},
		{Field: all + "attributes{}.bool", Class: Mutable, Patch: sliceDevice("attributes: {d.example.com/a: {bool: false}}")},
		refused(all+"attributes{}.string", sliceDevice("attributes: {a: {string: "+strings.Repeat("s", 65)+"}}"), "TooLong "+at+"attributes[a].string"),
		refused(all+"attributes{}.version", sliceDevice("attributes: {a: {version: v1}}"), "Invalid "+at+"attributes[a].version"),
		refused(all+"attributes{}.version", sliceDevice("attributes: {a: {version: 1.2.3, int: 1}}"), "Invalid "+at+"attributes[a]"),
		{Field: all + "attributes{}.ints", Class: Dropped, Patch: sliceDevice("attributes: {a: {int: 1, ints: [1]}}")},
		{Field: all + "attributes{}.bools", Class: Dropped, Patch: sliceDevice("attributes: {a: {int: 1, bools: [true]}}")},
		{Field: all + "attributes{}.strings", Class: Dropped, Patch: sliceDevice("attributes: {a: {int: 1, strings: [a]}}")},
		{Field: all + "attributes{}.versions", Class: Dropped, Patch: sliceDevice("attributes: {a: {int: 1, versions: [a]}}")},
		{Field: all + "capacity{}.value", Class: Mutable, Patch: sliceDevice("capacity: {a: {value: 1Gi}}")},
		refused(all+"capacity{}.requestPolicy", sliceDevice("capacity: {a: {value: 1, requestPolicy: {}}}"), "Forbidden "+at+"capacity[a].requestPolicy"),
		refused(all+"capacity{}.requestPolicy.default", sliceDevice("allowMultipleAllocations: true, capacity: {a: {value: 1, requestPolicy: {default: 2}}}"), "Invalid "+at+"capacity[a].requestPolicy.default"),
		refused(all+"capacity{}.requestPolicy.validValues", sliceDevice("allowMultipleAllocations: true, capacity: {a: {value: 9, requestPolicy: {validValues: [1]}}}"), "Required "+at+"capacity[a].requestPolicy.default"),
		refused(all+"capacity{}.requestPolicy.validRange.min", sliceDevice("allowMultipleAllocations: true, capacity: {a: {value: 9, requestPolicy: {default: 1, validRange: {}}}}"), "Required "+at+"capacity[a].requestPolicy.validRange.min"),
		refused(all+"capacity{}.requestPolicy.validRange.max", sliceDevice("allowMultipleAllocations: true, capacity: {a: {value: 9, requestPolicy: {default: 1, validRange: {min: 1, max: 10}}}}"), "Invalid "+at+"capacity[a].requestPolicy.validRange.max"),
		{Field: all + "capacity{}.requestPolicy.validRange.step", Class: Mutable, Patch: sliceDevice("allowMultipleAllocations: true, capacity: {a: {value: '9', requestPolicy: {default: '1', validRange: {min: '1', max: '9', step: '1'}}}}")},
		refused(all+"consumesCounters[].counterSet", sliceDevice("consumesCounters: [{counters: {a: {value: '1'}}}]"), "Required "+at+"consumesCounters[0].counterSet"),
		refused(all+"consumesCounters[].counters", sliceDevice("consumesCounters: [{counterSet: a}]"), "Required "+at+"consumesCounters[0].counters"),
		{Field: all + "consumesCounters[].counters{}.value", Class: Mutable, Patch: sliceDevice("consumesCounters: [{counterSet: a, counters: {a: {value: '1'}}}]")},
		{Field: all + "consumesCounters[].compatibilityGroups", Class: Dropped, Patch: sliceDevice("consumesCounters: [{counterSet: a, counters: {a: {value: '1'}}, compatibilityGroups: [a]}]")},
		refused(all+"nodeName", sliceDevice("nodeName: n1"), "Invalid spec.devices[0]"),
		refused(all+"allNodes", sliceDevice("allNodes: true"), "Invalid spec.devices[0]"),
		refused(all+"nodeSelector", sliceDevice("nodeSelector: {nodeSelectorTerms: []}"), "Invalid spec.devices[0]"),
		refused(all+"taints[].key", sliceDevice("taints: [{key: a b, effect: NoExecute}]"), "Invalid "+at+"taints[0].key"),
		refused(all+"taints[].value", sliceDevice("taints: [{key: a, value: b c, effect: NoExecute}]"), "Invalid "+at+"taints[0].value"),
		refused(all+"taints[].effect", sliceDevice("taints: [{key: a}]"), "Required "+at+"taints[0].effect"),
		{Field: all + "taints[].timeAdded", Class: Mutable, Patch: sliceDevice(`taints: [{key: a, effect: None, timeAdded: "2030-01-02T03:04:05Z"}]`)},
		{Field: all + "bindsToNode", Class: Mutable, Patch: sliceDevice("bindsToNode: true")},
		refused(all+"bindingConditions", sliceDevice("bindingConditions: [a]"), "Invalid "+at+"bindingFailureConditions"),
		refused(all+"bindingFailureConditions", sliceDevice("bindingFailureConditions: [a]"), "Invalid "+at+"bindingConditions"),
		{Field: all + "allowMultipleAllocations", Class: Mutable, Patch: sliceDevice("allowMultipleAllocations: true")},
		{Field: all + "nodeAllocatableResources", Class: Dropped, Patch: sliceDevice("nodeAllocatableResources: {cpu: {}}")},
	}
}

func TestFieldsOfSlices(t *testing.T) {
	const all = "spec.devices[]."
	Run(t, Table{
		Resource: resource(t, "ResourceSlice"),
		Base:     `{metadata: {name: s}, spec: {driver: d.example.com, pool: {name: p, generation: 1, resourceSliceCount: 1}, nodeName: n1}}`,
		Rows:     append(sliceRows(), deviceRows()...),
		Elsewhere: map[string]string{
			"spec.nodeSelector":              "node selectors are tested in podspec",
			all + "nodeSelector":             "node selectors are tested in podspec",
			all + "nodeAllocatableResources": "dropped as a whole",
		},
	})
}
