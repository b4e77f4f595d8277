package podsecuritypolicy_test

import (
	"testing"

	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/podsecuritypolicy"
)

// field makes rows of a field of the specification: one that is accepted, and, by their errors, those that are not.
func field(name, valid string, invalid ...[2]string) []Row {
	rows := []Row{{Field: "spec." + name, Class: Valid, Patch: "{spec: {" + valid + "}}"}, {Field: "spec." + name, Class: Mutable, Patch: "{spec: {" + valid + "}}"}}
	for _, i := range invalid {
		rows = append(rows, Row{Field: "spec." + name, Class: Invalid, Patch: "{spec: {" + i[0] + "}}", Error: i[1]})
	}
	return rows
}

func TestFields(t *testing.T) {
	annotated := func(key, value, err string) Row {
		row := Row{Field: "metadata.annotations", Class: Valid, Patch: "{metadata: {annotations: {" + key + ": '" + value + "'}}}"}
		if err != "" {
			row.Class, row.Error = Invalid, err+" metadata.annotations["+key+"]"
		}
		return row
	}
	rows := []Row{
		{Field: "metadata.name", Class: Invalid, Patch: `{metadata: {name: a_b}}`, Error: "Invalid metadata.name"},
		annotated(podsecuritypolicy.AppArmorDefault, "runtime/default", ""),
		annotated(podsecuritypolicy.AppArmorDefault, "runtime/default,unconfined", "Invalid"),
		annotated(podsecuritypolicy.AppArmorAllowed, "runtime/default,localhost/mine", ""),
		annotated(podsecuritypolicy.AppArmorAllowed, "runtime/default,mine", "Invalid"),
		annotated(podsecuritypolicy.SeccompDefault, "docker/default", ""),
		annotated(podsecuritypolicy.SeccompDefault, "*", "Invalid"),
		annotated(podsecuritypolicy.SeccompDefault, "localhost/../up", "Invalid"),
		annotated(podsecuritypolicy.SeccompAllowed, "*", ""),
		annotated(podsecuritypolicy.SeccompAllowed, "unconfined,mine", "Invalid"),
		{Field: "spec.allowPrivilegeEscalation", Class: Defaulted, Patch: `{}`, Want: `{"spec": {"allowPrivilegeEscalation": true}}`},
	}
	for _, more := range [][]Row{
		field("privileged", "privileged: true"), field("hostNetwork", "hostNetwork: true"), field("hostPID", "hostPID: true"), field("hostIPC", "hostIPC: true"),
		field("readOnlyRootFilesystem", "readOnlyRootFilesystem: true"), field("allowPrivilegeEscalation", "allowPrivilegeEscalation: false"),
		field("defaultAllowPrivilegeEscalation", "defaultAllowPrivilegeEscalation: true",
			[2]string{"allowPrivilegeEscalation: false, defaultAllowPrivilegeEscalation: true", "Invalid spec.defaultAllowPrivilegeEscalation"}),
		field("defaultAddCapabilities", "defaultAddCapabilities: [CHOWN]",
			[2]string{"defaultAddCapabilities: [CHOWN], requiredDropCapabilities: [CHOWN]", "Invalid defaultAddCapabilities"}),
		field("requiredDropCapabilities", "requiredDropCapabilities: [ALL]",
			[2]string{"allowedCapabilities: ['*'], requiredDropCapabilities: [CHOWN]", "Invalid requiredDropCapabilities"}),
		field("allowedCapabilities", "allowedCapabilities: ['*']",
			[2]string{"allowedCapabilities: [CHOWN], requiredDropCapabilities: [CHOWN]", "Invalid allowedCapabilities"}),
		field("volumes", "volumes: [cephFS, ephemeral, '*']", [2]string{"volumes: [cephfs]", "NotSupported spec.volumes"}),
		field("hostPorts[].min", "hostPorts: [{min: 1, max: 2}]"), field("hostPorts[].max", "hostPorts: [{min: 7, max: 7}]"),
		field("allowedHostPaths[].pathPrefix", "allowedHostPaths: [{pathPrefix: /var}]",
			[2]string{"allowedHostPaths: [{}]", "Required spec.allowedHostPaths[0]"}, [2]string{"allowedHostPaths: [{pathPrefix: /a/../b}]", "Invalid spec.allowedHostPaths[0]"}),
		field("allowedHostPaths[].readOnly", "allowedHostPaths: [{pathPrefix: /var, readOnly: true}]"),
		field("allowedFlexVolumes[].driver", "allowedFlexVolumes: [{driver: a/b}]",
			[2]string{"allowedFlexVolumes: [{driver: ''}]", "Required spec.allowedFlexVolumes.allowedFlexVolumes[0].driver"}),
		field("allowedCSIDrivers[].name", "allowedCSIDrivers: [{name: csi.example.com}]",
			[2]string{"allowedCSIDrivers: [{name: a_b}]", "Invalid spec.allowedCSIDrivers.allowedCSIDriver[0].name"}),
		field("allowedUnsafeSysctls", "allowedUnsafeSysctls: [kernel.msg*]",
			[2]string{"allowedUnsafeSysctls: ['']", "Invalid spec.allowedUnsafeSysctls[0]"}, [2]string{"allowedUnsafeSysctls: [A]", "Invalid spec.allowedUnsafeSysctls[0]"},
			[2]string{"allowedUnsafeSysctls: ['*', a.b]", "Forbidden spec.allowedUnsafeSysctls.items"},
			[2]string{"allowedUnsafeSysctls: [a.b], forbiddenSysctls: [a.b]", "Invalid spec.allowedUnsafeSysctls[0]"},
			[2]string{"allowedUnsafeSysctls: [a.b.c], forbiddenSysctls: [a.*]", "Invalid spec.allowedUnsafeSysctls[0]"},
			[2]string{"allowedUnsafeSysctls: ['a.b.*'], forbiddenSysctls: ['a.*']", "Invalid spec.allowedUnsafeSysctls[0]"}),
		field("forbiddenSysctls", "forbiddenSysctls: ['*']", [2]string{"forbiddenSysctls: [a.b/c]", "Invalid spec.forbiddenSysctls[0]"},
			[2]string{"allowedUnsafeSysctls: ['a.*'], forbiddenSysctls: [a.b]", "Invalid spec.forbiddenSysctls[0]"},
			[2]string{"allowedUnsafeSysctls: ['a.*'], forbiddenSysctls: ['a.b.*']", "Invalid spec.forbiddenSysctls[0]"}),
		field("allowedProcMountTypes", "allowedProcMountTypes: [Default, Unmasked]", [2]string{"allowedProcMountTypes: [Open]", "NotSupported spec.allowedProcMountTypes[0]"}),
		field("runtimeClass.allowedRuntimeClassNames", "runtimeClass: {allowedRuntimeClassNames: ['*']}",
			[2]string{"runtimeClass: {allowedRuntimeClassNames: [a, a]}", "Duplicate spec.runtimeClass.allowedRuntimeClassNames[1]"},
			[2]string{"runtimeClass: {allowedRuntimeClassNames: [a_b]}", "Invalid spec.runtimeClass.allowedRuntimeClassNames[0]"},
			[2]string{"runtimeClass: {allowedRuntimeClassNames: [a, '*']}", "Invalid spec.runtimeClass.allowedRuntimeClassNames"}),
		field("runtimeClass.defaultRuntimeClassName", "runtimeClass: {allowedRuntimeClassNames: [a], defaultRuntimeClassName: a}",
			[2]string{"runtimeClass: {allowedRuntimeClassNames: [a], defaultRuntimeClassName: b}", "Required spec.runtimeClass.allowedRuntimeClassNames"}),
		strategies(),
	} {
		rows = append(rows, more...)
	}
	Run(t, Table{
		Resource:  podsecuritypolicy.Resource(),
		Base:      `{metadata: {name: p}, spec: {seLinux: {rule: RunAsAny}, runAsUser: {rule: RunAsAny}, supplementalGroups: {rule: RunAsAny}, fsGroup: {rule: RunAsAny}}}`,
		Rows:      rows,
		Elsewhere: map[string]string{"spec.seLinux.seLinuxOptions": "any text is accepted"},
	})
}

// strategies are the rows of those that name users and groups.
func strategies() []Row {
	rows := field("seLinux.rule", "seLinux: {rule: MustRunAs, seLinuxOptions: {level: s0}}", [2]string{"seLinux: {rule: MayRunAs}", "NotSupported spec.seLinux.rule"})
	rows = append(rows, field("runAsGroup.rule", "runAsGroup: {rule: RunAsAny}", [2]string{"runAsGroup: {rule: Never}", "NotSupported spec.runAsGroup.rule"},
		[2]string{"runAsGroup: {rule: MayRunAs}", "Invalid spec.runAsGroup.ranges"},
		[2]string{"runAsGroup: {rule: RunAsAny, ranges: [{min: 1, max: 2}]}", "Invalid spec.runAsGroup.ranges"})...)
	rows = append(rows, field("runAsUser.rule", "runAsUser: {rule: MustRunAsNonRoot}", [2]string{"runAsUser: {rule: MayRunAs}", "NotSupported spec.runAsUser.rule"})...)
	for _, group := range []string{"supplementalGroups", "fsGroup"} {
		rows = append(rows, field(group+".rule", group+": {rule: MayRunAs, ranges: [{min: 1, max: 2}]}",
			[2]string{group + ": {rule: MustRunAsNonRoot}", "NotSupported spec." + group + ".rule"})...)
	}
	for _, all := range []string{"runAsUser", "runAsGroup", "supplementalGroups", "fsGroup"} {
		ranges := func(min, max string) string {
			return all + ": {rule: MustRunAs, ranges: [{min: " + min + ", max: " + max + "}]}"
		}
		at := "Invalid spec." + all + ".ranges[0]."
		rows = append(rows, field(all+".ranges[].min", ranges("0", "5"), [2]string{ranges("-1", "5"), at + "min"}, [2]string{ranges("6", "5"), at + "min"})...)
		rows = append(rows, field(all+".ranges[].max", ranges("5", "5"), [2]string{ranges("-2", "-1"), at + "min; " + at + "max"})...)
	}
	return rows
}
