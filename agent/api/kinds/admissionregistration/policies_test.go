package admissionregistration_test

import (
	"testing"

	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
)

const (
	constraints = `matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}]}`
	checks      = constraints + `, validations: [{expression: "true"}]`
	changes     = constraints + `, reinvocationPolicy: Never, mutations: [{patchType: JSONPatch, jsonPatch: {expression: "[JSONPatch{op: 'remove', path: '/spec/x'}]"}}]`
)

func policy(base, fields string) string {
	return `{metadata: {name: p}, spec: ` + with(`{`+base+`}`, fields) + `}`
}

// matchRows are those of what a policy, or a binding, is for.
func matchRows(at string, base func(fields string) string) []Row {
	name := at[len("spec."):]
	match := func(fields string) string {
		return base(name + `: ` + with(`{resourceRules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}]}`, fields))
	}
	rows := []Row{
		{Field: at + ".matchPolicy", Class: Defaulted, Base: match(``), Want: `{spec: {` + name + `: {matchPolicy: Equivalent, namespaceSelector: {}, objectSelector: {}}}}`},
		{Field: at + ".matchPolicy", Class: Invalid, Base: match(`matchPolicy: x`), Error: "NotSupported " + at + ".matchPolicy"},
	}
	for _, selector := range []string{"namespaceSelector", "objectSelector"} {
		rows = append(rows,
			Row{Field: at + "." + selector + ".matchLabels", Class: Invalid, Base: match(selector + `: {matchLabels: {"a b": c}}`), Error: "Invalid " + at + "." + selector + ".matchLabels"},
			Row{Field: at + "." + selector + ".matchExpressions[].key", Class: Valid, Base: match(selector + `: {matchExpressions: [{key: a, operator: Exists}]}`)},
			Row{Field: at + "." + selector + ".matchExpressions[].operator", Class: Invalid, Base: match(selector + `: {matchExpressions: [{key: a, operator: x}]}`), Error: "Invalid " + at + "." + selector + ".matchExpressions[0].operator"},
			Row{Field: at + "." + selector + ".matchExpressions[].values", Class: Invalid, Base: match(selector + `: {matchExpressions: [{key: a, operator: In}]}`), Error: "Required " + at + "." + selector + ".matchExpressions[0].values"})
	}
	for _, rules := range []string{"resourceRules", "excludeResourceRules"} {
		rule := func(fields string) string {
			return match(rules + `: [` + with(`{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}`, fields) + `]`)
		}
		one, each := at+"."+rules+"[0]", at+"."+rules+"[]"
		rows = append(rows,
			Row{Field: each + ".resourceNames", Class: Valid, Base: rule(`resourceNames: [a, b]`)},
			Row{Field: each + ".resourceNames", Class: Invalid, Base: rule(`resourceNames: [a/b, c, c]`), Error: "Invalid " + one + ".resourceNames[0]; Duplicate " + one + ".resourceNames[2]"},
			Row{Field: each + ".operations", Class: Invalid, Base: rule(`operations: []`), Error: "Required " + one + ".operations"},
			Row{Field: each + ".apiGroups", Class: Invalid, Base: rule(`apiGroups: []`), Error: "Required " + one + ".apiGroups"},
			Row{Field: each + ".apiVersions", Class: Invalid, Base: rule(`apiVersions: []`), Error: "Required " + one + ".apiVersions"},
			Row{Field: each + ".resources", Class: Invalid, Base: rule(`resources: []`), Error: "Required " + one + ".resources"},
			Row{Field: each + ".scope", Class: Defaulted, Base: rule(``), Want: `{spec: {` + name + `: {` + rules + `: [{scope: "*"}]}}}`},
			Row{Field: each + ".scope", Class: Invalid, Base: rule(`scope: x`), Error: "NotSupported " + one + ".scope"})
	}
	return rows
}

// policyRows are those of both kinds of policies.
func policyRows(base string) []Row {
	with := func(fields string) string { return policy(base, fields) }
	return append(matchRows("spec.matchConstraints", with),
		Row{Field: "spec.matchConstraints", Class: Invalid, Base: with(`matchConstraints: null`), Error: "Required spec.matchConstraints"},
		Row{Field: "spec.matchConstraints.resourceRules", Class: Invalid, Base: with(`matchConstraints: {}`), Error: "Required spec.matchConstraints.resourceRules"},
		Row{Field: "spec.failurePolicy", Class: Defaulted, Want: `{spec: {failurePolicy: Fail}}`},
		Row{Field: "spec.failurePolicy", Class: Invalid, Base: with(`failurePolicy: x`), Error: "NotSupported spec.failurePolicy"},
		Row{Field: "spec.failurePolicy", Class: Mutable, Patch: `{spec: {failurePolicy: Ignore}}`, Want: `{metadata: {generation: 2}}`},
		Row{Field: "spec.paramKind.apiVersion", Class: Valid, Base: with(`paramKind: {apiVersion: a.example.com/v1, kind: Some}`)},
		Row{Field: "spec.paramKind.apiVersion", Class: Invalid, Base: with(`paramKind: {apiVersion: a/b/c, kind: Some}`), Error: "Invalid spec.paramKind.apiVersion"},
		Row{Field: "spec.paramKind.apiVersion", Class: Invalid, Base: with(`paramKind: {apiVersion: A_/v1, kind: Some}`), Error: "Invalid spec.paramKind.apiVersion"},
		Row{Field: "spec.paramKind.kind", Class: Invalid, Base: with(`paramKind: {}`), Error: "Required spec.paramKind.apiVersion; Required spec.paramKind.kind"},
		Row{Field: "spec.paramKind.kind", Class: Invalid, Base: with(`paramKind: {apiVersion: v1, kind: a_b}`), Error: "Invalid spec.paramKind.kind"},
		Row{Field: "spec.variables[].name", Class: Invalid, Base: with(`variables: [{name: a-b, expression: "1"}, {name: "in", expression: "1"}, {expression: "1"}]`),
			Error: "Invalid spec.variables[0].name; Invalid spec.variables[1].name; Required spec.variables[2].name"},
		Row{Field: "spec.variables[].expression", Class: Valid, Base: with(`variables: [{name: a, expression: "1"}, {name: b, expression: "variables.a + 1"}]`)},
		Row{Field: "spec.variables[].expression", Class: Invalid, Base: with(`variables: [{name: b, expression: "variables.a"}, {name: c}]`),
			Error: "Invalid spec.variables[0].expression; Required spec.variables[1].expression"},
		Row{Field: "spec.matchConditions[].name", Class: Invalid, Base: with(`matchConditions: [{name: "a b", expression: "true"}]`), Error: "Invalid spec.matchConditions[0].name"},
		Row{Field: "spec.matchConditions[].expression", Class: Valid, Base: with(`paramKind: {apiVersion: v1, kind: ConfigMap}, matchConditions: [{name: a, expression: "params.data.x == 'y'"}]`)},
		Row{Field: "spec.matchConditions[].expression", Class: Invalid, Base: with(`matchConditions: [{name: a, expression: "1 +"}]`), Error: "Invalid spec.matchConditions[0].expression"},
	)
}

func TestFieldsOfValidatingPolicies(t *testing.T) {
	with := func(fields string) string { return policy(checks, fields) }
	condition := `{type: Ready, status: "True", reason: Fine, lastTransitionTime: "2030-01-02T03:04:05Z", message: text, observedGeneration: 1}`
	Run(t, Table{Resource: resource(t, "validatingadmissionpolicies"), Base: with(``), Rows: append(policyRows(checks),
		Row{Field: "spec.validations", Class: Invalid, Base: with(`validations: null`), Error: "Required spec.validations; Required spec.auditAnnotations"},
		Row{Field: "spec.validations[].expression", Class: Invalid, Base: with(`validations: [{expression: " "}, {expression: "1"}, {expression: params.x}]`),
			Error: "Required spec.validations[0].expression; Invalid spec.validations[1].expression; Invalid spec.validations[2].expression"},
		Row{Field: "spec.validations[].expression", Class: Valid, Base: with(`variables: [{name: v, expression: object.metadata.name}], validations: [{expression: variables.v != 'x'}]`)},
		Row{Field: "spec.validations[].message", Class: Invalid, Base: with(`validations: [{expression: "true", message: " "}, {expression: "true", message: "a\nb"}]`),
			Error: "Invalid spec.validations[0].message; Invalid spec.validations[1].message"},
		Row{Field: "spec.validations[].reason", Class: Valid, Base: with(`validations: [{expression: "true", reason: Invalid}]`)},
		Row{Field: "spec.validations[].reason", Class: Invalid, Base: with(`validations: [{expression: "true", reason: Because}]`), Error: "NotSupported spec.validations[0].reason"},
		Row{Field: "spec.validations[].messageExpression", Class: Valid, Base: with(`validations: [{expression: "true", messageExpression: "'a' + object.metadata.name"}]`)},
		Row{Field: "spec.validations[].messageExpression", Class: Invalid, Base: with(`validations: [{expression: "true", messageExpression: " "}, {expression: "true", messageExpression: "authorizer.path('/').check('get').reason()"}, {expression: "true", messageExpression: "1"}]`),
			Error: "Invalid spec.validations[0].messageExpression; Invalid spec.validations[1].messageExpression; Invalid spec.validations[2].messageExpression"},
		Row{Field: "spec.auditAnnotations[].key", Class: Invalid, Base: with(`auditAnnotations: [{key: a, valueExpression: "'x'"}, {key: a, valueExpression: "'x'"}, {key: a b, valueExpression: "'x'"}]`),
			Error: "Duplicate spec.auditAnnotations[1].key; Invalid spec.auditAnnotations[2].key"},
		Row{Field: "spec.auditAnnotations[].valueExpression", Class: Valid, Base: with(`validations: null, auditAnnotations: [{key: a, valueExpression: "null"}]`)},
		Row{Field: "spec.auditAnnotations[].valueExpression", Class: Invalid, Base: with(`auditAnnotations: [{key: a}, {key: b, valueExpression: "1"}]`),
			Error: "Required spec.auditAnnotations[0].valueExpression; Invalid spec.auditAnnotations[1].valueExpression"},
		Row{Field: "status.observedGeneration", Class: Dropped, Patch: `{status: {observedGeneration: 3}}`},
		Row{Field: "status.observedGeneration", Class: Mutable, Status: true, Patch: `{status: {observedGeneration: 3}}`},
		Row{Field: "status.typeChecking.expressionWarnings[].fieldRef", Class: Mutable, Status: true, Patch: `{status: {typeChecking: {expressionWarnings: [{fieldRef: "spec.validations[0]", warning: w}]}}}`},
		Row{Field: "status.typeChecking.expressionWarnings[].fieldRef", Class: Immutable, Status: true, Patch: `{status: {typeChecking: {expressionWarnings: [{warning: w}]}}}`, Error: "Required status.typeChecking.expressionWarnings[0].fieldRef"},
		Row{Field: "status.typeChecking.expressionWarnings[].warning", Class: Immutable, Status: true, Patch: `{status: {typeChecking: {expressionWarnings: [{fieldRef: "spec.validations[0]"}]}}}`, Error: "Required status.typeChecking.expressionWarnings[0].warning"},
		Row{Field: "status.conditions[].type", Class: Mutable, Status: true, Patch: `{status: {conditions: [` + condition + `]}}`},
		Row{Field: "status.conditions[].status", Class: Immutable, Status: true, Patch: `{status: {conditions: [{type: Ready, status: x, reason: Fine, lastTransitionTime: "2030-01-02T03:04:05Z"}]}}`, Error: "NotSupported status.conditions[0].status"},
		Row{Field: "status.conditions[].reason", Class: Immutable, Status: true, Patch: `{status: {conditions: [{type: Ready, status: "True", lastTransitionTime: "2030-01-02T03:04:05Z"}]}}`, Error: "Required status.conditions[0].reason"},
		Row{Field: "status.conditions[].message", Class: Mutable, Status: true, Patch: `{status: {conditions: [` + condition + `]}}`},
		Row{Field: "status.conditions[].lastTransitionTime", Class: Immutable, Status: true, Patch: `{status: {conditions: [{type: Ready, status: "True", reason: Fine}]}}`, Error: "Required status.conditions[0].lastTransitionTime"},
		Row{Field: "status.conditions[].observedGeneration", Class: Immutable, Status: true, Patch: `{status: {conditions: [{type: Ready, status: "True", reason: Fine, lastTransitionTime: "2030-01-02T03:04:05Z", observedGeneration: -1}]}}`, Error: "Invalid status.conditions[0].observedGeneration"},
	)})
}

func TestFieldsOfMutatingPolicies(t *testing.T) {
	with := func(fields string) string { return policy(changes, fields) }
	Run(t, Table{Resource: resource(t, "mutatingadmissionpolicies"), Base: with(``), Rows: append(policyRows(changes),
		Row{Field: "spec.matchConstraints.resourceRules[].operations", Class: Invalid, Base: with(`matchConstraints: {resourceRules: [{operations: [DELETE], apiGroups: [""], apiVersions: [v1], resources: [pods]}]}`),
			Error: "NotSupported spec.matchConstraints.resourceRules.operations"},
		Row{Field: "spec.mutations", Class: Invalid, Base: with(`mutations: null`), Error: "Required spec.mutations"},
		Row{Field: "spec.mutations[].patchType", Class: Invalid, Base: with(`mutations: [{}, {patchType: x}]`), Error: "Required spec.mutations[0].patchType; NotSupported spec.mutations[1].patchType"},
		Row{Field: "spec.mutations[].applyConfiguration.expression", Class: Valid, Base: with(`mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{metadata: Object.metadata{labels: {'a': 'b'}}}"}}]`)},
		Row{Field: "spec.mutations[].applyConfiguration.expression", Class: Invalid, Base: with(`mutations: [{patchType: ApplyConfiguration}, {patchType: ApplyConfiguration, applyConfiguration: {}}, {patchType: ApplyConfiguration, applyConfiguration: {expression: "1"}, jsonPatch: {}}]`),
			Error: "Required spec.mutations[0].applyConfiguration; Required spec.mutations[1].applyConfiguration.expression; Invalid spec.mutations[2].applyConfiguration.expression; Invalid spec.mutations[2].jsonPatch"},
		Row{Field: "spec.mutations[].jsonPatch.expression", Class: Valid, Base: with(`mutations: [{patchType: JSONPatch, jsonPatch: {expression: "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}]"}}]`)},
		Row{Field: "spec.mutations[].jsonPatch.expression", Class: Invalid, Base: with(`mutations: [{patchType: JSONPatch}, {patchType: JSONPatch, jsonPatch: {}}, {patchType: JSONPatch, jsonPatch: {expression: "1"}, applyConfiguration: {}}]`),
			Error: "Required spec.mutations[0].jsonPatch; Required spec.mutations[1].jsonPatch.expression; Invalid spec.mutations[2].jsonPatch.expression; Invalid spec.mutations[2].applyConfiguration"},
		Row{Field: "spec.reinvocationPolicy", Class: Invalid, Base: with(`reinvocationPolicy: ""`), Error: "Required spec.reinvocationPolicy"},
		Row{Field: "spec.reinvocationPolicy", Class: Invalid, Base: with(`reinvocationPolicy: x`), Error: "NotSupported spec.reinvocationPolicy"},
		Row{Field: "spec.reinvocationPolicy", Class: Mutable, Patch: `{spec: {reinvocationPolicy: IfNeeded}}`},
	)})
}

// bindingRows are those of both kinds of bindings.
func bindingRows(base string) []Row {
	with := func(fields string) string { return policy(base, fields) }
	found := `parameterNotFoundAction: Allow`
	return append(matchRows("spec.matchResources", with),
		Row{Field: "spec.policyName", Class: Invalid, Base: with(`policyName: ""`), Error: "Required spec.policyName"},
		Row{Field: "spec.policyName", Class: Invalid, Base: with(`policyName: A`), Error: "Invalid spec.policyName"},
		Row{Field: "spec.policyName", Class: Mutable, Patch: `{spec: {policyName: q}}`, Want: `{metadata: {generation: 2}}`},
		Row{Field: "spec.paramRef.name", Class: Invalid, Base: with(`paramRef: {name: a/b, ` + found + `}`), Error: "Invalid spec.paramRef.name"},
		Row{Field: "spec.paramRef.name", Class: Invalid, Base: with(`paramRef: {` + found + `}`), Error: "Required spec.paramRef"},
		Row{Field: "spec.paramRef.namespace", Class: Valid, Base: with(`paramRef: {name: a, namespace: b, ` + found + `}`)},
		Row{Field: "spec.paramRef.selector.matchLabels", Class: Invalid, Base: with(`paramRef: {name: a, selector: {matchLabels: {a: "b c"}}, ` + found + `}`),
			Error: "Forbidden spec.paramRef.name; Forbidden spec.paramRef.selector; Invalid spec.paramRef.selector.matchLabels"},
		Row{Field: "spec.paramRef.selector.matchExpressions[].key", Class: Valid, Base: with(`paramRef: {selector: {matchExpressions: [{key: a, operator: Exists}]}, ` + found + `}`)},
		Row{Field: "spec.paramRef.selector.matchExpressions[].operator", Class: Invalid, Base: with(`paramRef: {selector: {matchExpressions: [{key: a, operator: x}]}, ` + found + `}`), Error: "Invalid spec.paramRef.selector.matchExpressions[0].operator"},
		Row{Field: "spec.paramRef.selector.matchExpressions[].values", Class: Invalid, Base: with(`paramRef: {selector: {matchExpressions: [{key: a, operator: In}]}, ` + found + `}`), Error: "Required spec.paramRef.selector.matchExpressions[0].values"},
		Row{Field: "spec.paramRef.parameterNotFoundAction", Class: Invalid, Base: with(`paramRef: {name: a}`), Error: "Required spec.paramRef.parameterNotFoundAction"},
		Row{Field: "spec.paramRef.parameterNotFoundAction", Class: Invalid, Base: with(`paramRef: {name: a, parameterNotFoundAction: x}`), Error: "NotSupported spec.paramRef.parameterNotFoundAction"},
	)
}

func TestFieldsOfValidatingBindings(t *testing.T) {
	base := `policyName: p, validationActions: [Deny, Audit]`
	Run(t, Table{Resource: resource(t, "validatingadmissionpolicybindings"), Base: policy(base, ``), Rows: append(bindingRows(base),
		Row{Field: "spec.validationActions", Class: Invalid, Base: policy(base, `validationActions: []`), Error: "Required spec.validationActions"},
		Row{Field: "spec.validationActions", Class: Invalid, Base: policy(base, `validationActions: [x, Warn, Warn]`), Error: "NotSupported spec.validationActions[0]; Duplicate spec.validationActions[2]"},
		Row{Field: "spec.validationActions", Class: Invalid, Base: policy(base, `validationActions: [Deny, Warn]`), Error: "Invalid spec.validationActions"},
	)})
}

func TestFieldsOfMutatingBindings(t *testing.T) {
	base := `policyName: p`
	Run(t, Table{Resource: resource(t, "mutatingadmissionpolicybindings"), Base: policy(base, ``), Rows: bindingRows(base)})
}
