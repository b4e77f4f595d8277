package admissionregistration_test

import (
	"encoding/json"
	"errors"
	"maps"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/admissionregistration"
	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
)

// resource is the kind with that name.
func resource(t *testing.T, name string) kinds.Resource {
	t.Helper()
	for _, r := range admissionregistration.Resources() {
		if r.GVR().Resource == name {
			return r
		}
	}
	t.Fatalf("no kind %s", name)
	return nil
}

const hook = `{name: a.example.com, clientConfig: {service: {namespace: ns, name: s}}, sideEffects: None, admissionReviewVersions: [v1],
  rules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}]}`

// with is an object with fields of another in place of its own.
func with(base, fields string) string {
	var merged, changes map[string]any
	if err := errors.Join(yaml.Unmarshal([]byte(base), &merged), yaml.Unmarshal([]byte("{"+fields+"}"), &changes)); err != nil {
		panic(err)
	}
	maps.Copy(merged, changes)
	text, err := json.Marshal(merged)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// hooks is a configuration with one webhook.
func hooks(fields string) string {
	return `{metadata: {name: c}, webhooks: [` + with(hook, fields) + `]}`
}

// hookRows are those of both kinds of webhooks.
func hookRows() []Row {
	return []Row{
		{Field: "webhooks", Class: Valid, Patch: `{webhooks: null}`},
		{Field: "webhooks[].name", Class: Invalid, Base: `{metadata: {name: c}}`, Patch: `{webhooks: [` + hook + `, ` + hook + `]}`, Error: "Duplicate webhooks[1].name"},
		{Field: "webhooks[].name", Class: Invalid, Base: hooks(`timeoutSeconds: 31`), Error: "Invalid webhooks[0].timeoutSeconds"},
		{Field: "webhooks[].name", Class: Invalid, Base: hooks(`name: ab, clientConfig: {url: "https://h/"}`), Error: "Invalid webhooks[0].name"},
		{Field: "webhooks[].clientConfig.url", Class: Valid, Base: hooks(`name: a.b.c, clientConfig: {url: "https://h/"}`)},
		{Field: "webhooks[].clientConfig.url", Class: Invalid, Base: hooks(`name: a.b.c, clientConfig: {url: "http://h/"}`), Error: "Invalid webhooks[0].clientConfig.url"},
		{Field: "webhooks[].clientConfig.url", Class: Invalid, Base: hooks(`name: a.b.c, clientConfig: {}`), Error: "Required webhooks[0].clientConfig"},
		{Field: "webhooks[].clientConfig.service.namespace", Class: Invalid, Base: hooks(`name: a.b.c, clientConfig: {service: {}}`),
			Error: "Required webhooks[0].clientConfig.service.name; Required webhooks[0].clientConfig.service.namespace"},
		{Field: "webhooks[].clientConfig.service.name", Class: Valid, Want: `{webhooks: [{clientConfig: {service: {name: s, namespace: ns}}}]}`},
		{Field: "webhooks[].clientConfig.service.port", Class: Defaulted, Want: `{webhooks: [{clientConfig: {service: {port: 443}}}]}`},
		{Field: "webhooks[].clientConfig.service.port", Class: Invalid, Base: hooks(`name: a.b.c, clientConfig: {service: {name: s, namespace: m, port: 0}}`), Error: "Invalid webhooks[0].clientConfig.service.port"},
		{Field: "webhooks[].clientConfig.service.path", Class: Invalid, Base: hooks(`name: a.b.c, clientConfig: {service: {name: s, namespace: m, path: x}}`), Error: "Invalid webhooks[0].clientConfig.service.path"},
		{Field: "webhooks[].clientConfig.caBundle", Class: Valid, Base: hooks(`name: a.b.c, clientConfig: {url: "https://h/", caBundle: YQ==}`)},
		{Field: "webhooks[].rules[].operations", Class: Invalid, Base: hooks(`rules: [{}]`),
			Error: "Required webhooks[0].rules[0].operations; Required webhooks[0].rules[0].apiGroups; Required webhooks[0].rules[0].apiVersions; Required webhooks[0].rules[0].resources"},
		{Field: "webhooks[].rules[].operations", Class: Invalid, Base: hooks(`rules: [{operations: [x], apiGroups: [""], apiVersions: [v1], resources: [pods]}]`), Error: "NotSupported webhooks[0].rules[0].operations[0]"},
		{Field: "webhooks[].rules[].operations", Class: Invalid, Base: hooks(`rules: [{operations: ["*", CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}]`), Error: "Invalid webhooks[0].rules[0].operations"},
		{Field: "webhooks[].rules[].apiGroups", Class: Invalid, Base: hooks(`rules: [{operations: ["*"], apiGroups: ["", "*"], apiVersions: [v1], resources: [pods]}]`), Error: "Invalid webhooks[0].rules[0].apiGroups"},
		{Field: "webhooks[].rules[].apiVersions", Class: Invalid, Base: hooks(`rules: [{operations: ["*"], apiGroups: [""], apiVersions: [""], resources: [pods]}]`), Error: "Required webhooks[0].rules[0].apiVersions[0]"},
		{Field: "webhooks[].rules[].resources", Class: Invalid, Base: hooks(`rules: [{operations: ["*"], apiGroups: [""], apiVersions: [v1], resources: ["pods/*", pods/log]}]`), Error: "Invalid webhooks[0].rules[0].resources[1]"},
		{Field: "webhooks[].rules[].resources", Class: Invalid, Base: hooks(`rules: [{operations: ["*"], apiGroups: [""], apiVersions: [v1], resources: ["*/log", pods/log]}]`), Error: "Invalid webhooks[0].rules[0].resources[1]"},
		{Field: "webhooks[].rules[].resources", Class: Invalid, Base: hooks(`rules: [{operations: ["*"], apiGroups: [""], apiVersions: [v1], resources: ["*/*", nodes]}]`), Error: "Invalid webhooks[0].rules[0].resources"},
		{Field: "webhooks[].rules[].resources", Class: Invalid, Base: hooks(`rules: [{operations: ["*"], apiGroups: [""], apiVersions: [v1], resources: ["*", nodes]}]`), Error: "Invalid webhooks[0].rules[0].resources"},
		{Field: "webhooks[].rules[].scope", Class: Defaulted, Want: `{webhooks: [{rules: [{scope: "*"}]}]}`},
		{Field: "webhooks[].rules[].scope", Class: Invalid, Base: hooks(`rules: [{operations: ["*"], apiGroups: [""], apiVersions: [v1], resources: ["*"], scope: x}]`), Error: "NotSupported webhooks[0].rules[0].scope"},
		{Field: "webhooks[].failurePolicy", Class: Defaulted, Want: `{webhooks: [{failurePolicy: Fail}]}`},
		{Field: "webhooks[].failurePolicy", Class: Invalid, Base: hooks(`failurePolicy: x`), Error: "NotSupported webhooks[0].failurePolicy"},
		{Field: "webhooks[].matchPolicy", Class: Defaulted, Want: `{webhooks: [{matchPolicy: Equivalent}]}`},
		{Field: "webhooks[].matchPolicy", Class: Invalid, Base: hooks(`matchPolicy: x`), Error: "NotSupported webhooks[0].matchPolicy"},
		{Field: "webhooks[].namespaceSelector.matchLabels", Class: Invalid, Base: hooks(`namespaceSelector: {matchLabels: {"a b": c}}`), Error: "Invalid webhooks[0].namespaceSelector.matchLabels"},
		{Field: "webhooks[].namespaceSelector.matchExpressions[].key", Class: Valid, Base: hooks(`namespaceSelector: {matchExpressions: [{key: a, operator: In, values: [b]}]}`)},
		{Field: "webhooks[].namespaceSelector.matchExpressions[].operator", Class: Invalid, Base: hooks(`namespaceSelector: {matchExpressions: [{key: a, operator: x}]}`), Error: "Invalid webhooks[0].namespaceSelector.matchExpressions[0].operator"},
		{Field: "webhooks[].namespaceSelector.matchExpressions[].values", Class: Invalid, Base: hooks(`namespaceSelector: {matchExpressions: [{key: a, operator: In}]}`), Error: "Required webhooks[0].namespaceSelector.matchExpressions[0].values"},
		{Field: "webhooks[].objectSelector.matchLabels", Class: Invalid, Base: hooks(`objectSelector: {matchLabels: {a: "b c"}}`), Error: "Invalid webhooks[0].objectSelector.matchLabels"},
		{Field: "webhooks[].objectSelector.matchExpressions[].key", Class: Valid, Base: hooks(`objectSelector: {matchExpressions: [{key: a, operator: Exists}]}`)},
		{Field: "webhooks[].objectSelector.matchExpressions[].operator", Class: Invalid, Base: hooks(`objectSelector: {matchExpressions: [{key: a, operator: x}]}`), Error: "Invalid webhooks[0].objectSelector.matchExpressions[0].operator"},
		{Field: "webhooks[].objectSelector.matchExpressions[].values", Class: Invalid, Base: hooks(`objectSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}`), Error: "Forbidden webhooks[0].objectSelector.matchExpressions[0].values"},
		{Field: "webhooks[].sideEffects", Class: Invalid, Base: hooks(`sideEffects: Some`), Error: "NotSupported webhooks[0].sideEffects"},
		{Field: "webhooks[].sideEffects", Class: Invalid, Base: hooks(`sideEffects: null`), Error: "Required webhooks[0].sideEffects"},
		{Field: "webhooks[].timeoutSeconds", Class: Defaulted, Want: `{webhooks: [{timeoutSeconds: 10}]}`},
		{Field: "webhooks[].timeoutSeconds", Class: Valid, Base: hooks(`timeoutSeconds: 30`)},
		{Field: "webhooks[].timeoutSeconds", Class: Invalid, Base: hooks(`timeoutSeconds: 0`), Error: "Invalid webhooks[0].timeoutSeconds"},
		{Field: "webhooks[].admissionReviewVersions", Class: Invalid, Base: hooks(`admissionReviewVersions: []`), Error: "Required webhooks[0].admissionReviewVersions"},
		{Field: "webhooks[].admissionReviewVersions", Class: Invalid, Base: hooks(`admissionReviewVersions: [v2, v2]`), Error: "Invalid webhooks[0].admissionReviewVersions[1]; Invalid webhooks[0].admissionReviewVersions"},
		{Field: "webhooks[].matchConditions[].name", Class: Invalid, Base: hooks(`matchConditions: [{name: a, expression: "true"}, {name: a, expression: "true"}, {}]`),
			Error: "Duplicate webhooks[0].matchConditions[1].name; Required webhooks[0].matchConditions[2].expression; Required webhooks[0].matchConditions[2].name"},
		{Field: "webhooks[].matchConditions[].expression", Class: Valid, Base: hooks(`matchConditions: [{name: a, expression: "request.userInfo.username != 'x' && authorizer.group('').resource('pods').check('get').allowed()"}]`)},
		{Field: "webhooks[].matchConditions[].expression", Class: Invalid, Base: hooks(`matchConditions: [{name: a, expression: "'text'"}, {name: b, expression: "request.nothing"}, {name: c, expression: "params.x"}]`),
			Error: "Invalid webhooks[0].matchConditions[0].expression; Invalid webhooks[0].matchConditions[1].expression; Invalid webhooks[0].matchConditions[2].expression"},
		{Field: "webhooks", Class: Mutable, Patch: `{webhooks: null}`, Want: `{metadata: {generation: 2}}`},
	}
}

func TestFieldsOfValidatingWebhooks(t *testing.T) {
	Run(t, Table{Resource: resource(t, "validatingwebhookconfigurations"), Base: hooks(``), Rows: hookRows()})
}

func TestFieldsOfMutatingWebhooks(t *testing.T) {
	Run(t, Table{Resource: resource(t, "mutatingwebhookconfigurations"), Base: hooks(``), Rows: append(hookRows(),
		Row{Field: "webhooks[].reinvocationPolicy", Class: Defaulted, Want: `{webhooks: [{reinvocationPolicy: Never}]}`},
		Row{Field: "webhooks[].reinvocationPolicy", Class: Invalid, Base: hooks(`reinvocationPolicy: x`), Error: "NotSupported webhooks[0].reinvocationPolicy"},
	)})
}
