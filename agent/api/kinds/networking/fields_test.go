package networking_test

import (
	"testing"

	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/networking"
)

func TestFieldsOfIngresses(t *testing.T) {
	path := func(text string) string {
		return `{spec: {rules: [{host: a.example.com, http: {paths: [{` + text + `}]}}]}}`
	}
	service := func(text string) string { return `{spec: {defaultBackend: {service: {` + text + `}}}}` }
	const (
		good   = `backend: {service: {name: s, port: {name: http}}}`
		at     = "spec.rules[0].http.paths[0]."
		object = `{spec: {defaultBackend: {service: null, resource: {apiGroup: example.com, kind: Bucket, name: b}}}}`
		status = `{status: {loadBalancer: {ingress: [{ip: 198.51.100.1, hostname: lb.example.com, ports: [{port: 80, protocol: TCP, error: Example}]}]}}}`
		ports  = "status.loadBalancer.ingress[].ports[]."
	)
	Run(t, Table{
		Resource: networking.Ingresses(),
		Base:     `{metadata: {name: i, namespace: ns}, spec: {defaultBackend: {service: {name: s, port: {number: 80}}}}}`,
		Rows: []Row{
			{Field: "spec", Class: Invalid, Patch: `{spec: {defaultBackend: null}}`, Error: "Invalid spec"},
			{Field: "spec.ingressClassName", Class: Mutable, Patch: `{spec: {ingressClassName: c}}`},
			{Field: "spec.ingressClassName", Class: Invalid, Patch: `{spec: {ingressClassName: ""}}`, Error: "Invalid spec.ingressClassName"},
			{Field: "spec.ingressClassName", Class: Invalid, Patch: `{metadata: {annotations: {kubernetes.io/ingress.class: d}}, spec: {ingressClassName: c}}`,
				Error: "Invalid annotations.kubernetes.io/ingress.class"},
			{Field: "spec.defaultBackend", Class: Invalid, Patch: `{spec: {defaultBackend: {resource: {}}}}`, Error: "Invalid spec.defaultBackend"},
			{Field: "spec.defaultBackend.service.name", Class: Invalid, Patch: service(`name: ""`), Error: "Required spec.defaultBackend.service.name"},
			{Field: "spec.defaultBackend.service.port.name", Class: Invalid, Patch: service(`port: {name: http}`), Error: "Invalid spec.defaultBackend"},
			{Field: "spec.defaultBackend.service.port.number", Class: Invalid, Patch: service(`port: {number: 65536}`), Error: "Invalid spec.defaultBackend.service.port.number"},
			{Field: "spec.defaultBackend.service.port.number", Class: Invalid, Patch: service(`port: null`), Error: "Required spec.defaultBackend"},
			{Field: "spec.defaultBackend.resource", Class: Mutable, Patch: object, Want: `{spec: {defaultBackend: {resource: {kind: Bucket}}}}`},
			{Field: "spec.defaultBackend.resource.apiGroup", Class: Invalid, Patch: `{spec: {defaultBackend: {service: null, resource: {apiGroup: A_B, kind: B, name: b}}}}`,
				Error: "Invalid spec.defaultBackend.resource.apiGroup"},
			{Field: "spec.defaultBackend.resource.kind", Class: Invalid, Patch: `{spec: {defaultBackend: {service: null, resource: {kind: a/b, name: b}}}}`,
				Error: "Invalid spec.defaultBackend.resource.kind"},
			{Field: "spec.defaultBackend.resource.name", Class: Invalid, Patch: `{spec: {defaultBackend: {service: null, resource: {kind: a}}}}`,
				Error: "Required spec.defaultBackend.resource.name"},
			{Field: "spec.tls[].hosts", Class: Valid, Patch: `{spec: {tls: [{hosts: ["*.example.com", b.example.com]}]}}`},
			{Field: "spec.tls[].hosts", Class: Invalid, Patch: `{spec: {tls: [{hosts: ["*"]}]}}`, Error: "Invalid spec.tls[0].hosts[0]"},
			{Field: "spec.tls[].secretName", Class: Invalid, Patch: `{spec: {tls: [{secretName: A_B}]}}`, Error: "Invalid spec.tls[0].secretName"},
			{Field: "spec.rules[].host", Class: Invalid, Patch: `{spec: {rules: [{host: 192.0.2.1}]}}`, Error: "Invalid spec.rules[0].host"},
			{Field: "spec.rules[].host", Class: Invalid, Patch: `{spec: {rules: [{host: "a.*.b"}]}}`, Error: "Invalid spec.rules[0].host"},
			{Field: "spec.rules[].http.paths", Class: Invalid, Patch: `{spec: {rules: [{http: {paths: []}}]}}`, Error: "Required spec.rules[0].http.paths"},
			{Field: "spec.rules[].http.paths[].path", Class: Mutable, Patch: path(`path: /x, pathType: Prefix, ` + good)},
			{Field: "spec.rules[].http.paths[].path", Class: Invalid, Patch: path(`path: x//y/./z/../.., pathType: Exact, ` + good), Error: "Invalid " + at + "path"},
			{Field: "spec.rules[].http.paths[].path", Class: Invalid, Patch: path(`path: x, pathType: ImplementationSpecific, ` + good), Error: "Invalid " + at + "path"},
			{Field: "spec.rules[].http.paths[].pathType", Class: Invalid, Patch: path(good), Error: "Required " + at + "pathType"},
			{Field: "spec.rules[].http.paths[].pathType", Class: Invalid, Patch: path(`pathType: Odd, ` + good), Error: "NotSupported " + at + "pathType"},
			{Field: "spec.rules[].http.paths[].backend", Class: Invalid, Patch: path(`path: /, pathType: Exact, backend: {}`), Error: "Invalid " + at + "backend"},
			{Field: "status.loadBalancer.ingress", Class: Dropped, Patch: status},
			{Field: "status.loadBalancer.ingress[].ip", Class: Mutable, Status: true, Patch: status},
			{Field: "status.loadBalancer.ingress[].ip", Class: Immutable, Status: true, Patch: `{status: {loadBalancer: {ingress: [{ip: x}]}}}`, Error: "Invalid status.loadBalancer.ingress[0].ip"},
			{Field: "status.loadBalancer.ingress[].hostname", Class: Immutable, Status: true, Patch: `{status: {loadBalancer: {ingress: [{hostname: 192.0.2.1}]}}}`,
				Error: "Invalid status.loadBalancer.ingress[0].hostname"},
			{Field: ports + "port", Class: Mutable, Status: true, Patch: status},
			{Field: ports + "protocol", Class: Mutable, Status: true, Patch: status},
			{Field: ports + "error", Class: Mutable, Status: true, Patch: status},
		},
		Elsewhere: map[string]string{
			"spec.rules[].http.paths[].backend.service": "spec.defaultBackend, by the same code", "spec.rules[].http.paths[].backend.resource": "spec.defaultBackend, by the same code",
		},
	})
}

func TestFieldsOfIngressClasses(t *testing.T) {
	parameters := func(text string) string { return `{spec: {parameters: {kind: P, name: p, ` + text + `}}}` }
	const at = "spec.parameters."
	Run(t, Table{
		Resource: networking.IngressClasses(),
		Base:     `{metadata: {name: c}, spec: {controller: example.com/c}}`,
		Rows: []Row{
			{Field: "spec.controller", Class: Invalid, Patch: `{spec: {controller: plain}}`, Error: "Invalid spec.controller"},
			{Field: "spec.controller", Class: Invalid, Patch: `{spec: {controller: null}}`, Error: "Required spec.controller"},
			{Field: "spec.controller", Class: Immutable, Patch: `{spec: {controller: example.com/d}}`, Error: "Invalid spec.controller"},
			{Field: at + "apiGroup", Class: Invalid, Patch: parameters("apiGroup: A_B"), Error: "Invalid " + at + "apiGroup"},
			{Field: at + "kind", Class: Invalid, Patch: parameters("kind: null"), Error: "Required " + at + "kind"},
			{Field: at + "name", Class: Invalid, Patch: parameters("name: a/b"), Error: "Invalid " + at + "name"},
			{Field: at + "scope", Class: Defaulted, Patch: parameters(""), Want: `{spec: {parameters: {scope: Cluster}}}`},
			{Field: at + "scope", Class: Invalid, Patch: parameters("scope: Odd"), Error: "NotSupported " + at + "scope"},
			{Field: at + "namespace", Class: Mutable, Patch: parameters("scope: Namespace, namespace: ns")},
			{Field: at + "namespace", Class: Invalid, Patch: parameters("scope: Namespace"), Error: "Required " + at + "namespace"},
			{Field: at + "namespace", Class: Invalid, Patch: parameters("scope: Namespace, namespace: A_B"), Error: "Invalid " + at + "namespace"},
			{Field: at + "namespace", Class: Invalid, Patch: parameters("namespace: ns"), Error: "Forbidden " + at + "namespace"},
		},
	})
}

func TestFieldsOfNetworkPolicies(t *testing.T) {
	in := func(text string) string { return `{spec: {ingress: [{` + text + `}]}}` }
	port := func(text string) string { return in(`ports: [{` + text + `}]`) }
	from := func(text string) string { return in(`from: [{` + text + `}]`) }
	const (
		ports    = "spec.ingress[].ports[]."
		peers    = "spec.ingress[].from[]."
		selector = `{matchLabels: {a: b}, matchExpressions: [{key: c, operator: In, values: [d]}]}`
		bad      = `{matchExpressions: [{key: c, operator: Odd}]}`
	)
	rows := []Row{
		{Field: "spec.podSelector", Class: Mutable, Patch: `{spec: {podSelector: ` + selector + `}}`},
		{Field: "spec.podSelector", Class: Invalid, Patch: `{spec: {podSelector: ` + bad + `}}`, Error: "Invalid spec.podSelector.matchExpressions[0].operator"},
		{Field: "spec.policyTypes", Class: Defaulted, Want: `{spec: {policyTypes: [Ingress]}}`},
		{Field: "spec.policyTypes", Class: Defaulted, Patch: `{spec: {egress: [{}]}}`, Want: `{spec: {policyTypes: [Ingress, Egress]}}`},
		{Field: "spec.policyTypes", Class: Invalid, Patch: `{spec: {policyTypes: [Odd]}}`, Error: "NotSupported spec.policyTypes[0]"},
		{Field: "spec.policyTypes", Class: Invalid, Patch: `{spec: {policyTypes: [Ingress, Egress, Ingress]}}`, Error: "Invalid spec.policyTypes"},
		{Field: ports + "protocol", Class: Defaulted, Patch: port(""), Want: port("protocol: TCP")},
		{Field: ports + "protocol", Class: Invalid, Patch: port("protocol: ICMP"), Error: "NotSupported spec.ingress[0].ports[0].protocol"},
		{Field: ports + "port", Class: Mutable, Patch: port("port: http")},
		{Field: ports + "port", Class: Invalid, Patch: port(`port: "80%"`), Error: "Invalid spec.ingress[0].ports[0].port"},
		{Field: ports + "port", Class: Invalid, Patch: port("port: 0"), Error: "Invalid spec.ingress[0].ports[0].port"},
		{Field: ports + "endPort", Class: Mutable, Patch: port("port: 1, endPort: 2")},
		{Field: ports + "endPort", Class: Invalid, Patch: port("port: 2, endPort: 1"), Error: "Invalid spec.ingress[0].ports[0].endPort"},
		{Field: ports + "endPort", Class: Invalid, Patch: port("endPort: 1"), Error: "Invalid spec.ingress[0].ports[0].endPort"},
		{Field: ports + "endPort", Class: Invalid, Patch: port("port: http, endPort: 1"), Error: "Invalid spec.ingress[0].ports[0].endPort"},
		{Field: "spec.ingress[].from", Class: Invalid, Patch: from(""), Error: "Required spec.ingress[0].from[0]"},
		{Field: peers + "podSelector", Class: Mutable, Patch: from("podSelector: " + selector)},
		{Field: peers + "podSelector", Class: Invalid, Patch: from("podSelector: " + bad), Error: "Invalid spec.ingress[0].from[0].podSelector.matchExpressions[0].operator"},
		{Field: peers + "namespaceSelector", Class: Mutable, Patch: from("podSelector: {}, namespaceSelector: " + selector)},
		{Field: peers + "namespaceSelector", Class: Invalid, Patch: from("namespaceSelector: " + bad), Error: "Invalid spec.ingress[0].from[0].namespaceSelector.matchExpressions[0].operator"},
		{Field: peers + "ipBlock.cidr", Class: Mutable, Patch: from("ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}")},
		{Field: peers + "ipBlock.cidr", Class: Invalid, Patch: from("ipBlock: {}"), Error: "Required spec.ingress[0].from[0].ipBlock.cidr"},
		{Field: peers + "ipBlock.cidr", Class: Invalid, Patch: from("ipBlock: {cidr: 10.0.0.1/8}"), Error: "Invalid spec.ingress[0].from[0].ipBlock.cidr"},
		{Field: peers + "ipBlock.cidr", Class: Invalid, Patch: from("podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}"), Error: "Forbidden spec.ingress[0].from[0]"},
		{Field: peers + "ipBlock.except", Class: Invalid, Patch: from("ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8, x]}"),
			Error: "Invalid spec.ingress[0].from[0].ipBlock.except[0]; Invalid spec.ingress[0].from[0].ipBlock.except[1]"},
		{Field: "spec.egress", Class: Invalid, Patch: `{spec: {egress: [{ports: [{port: 0}], to: [{}]}]}}`, Error: "Invalid spec.egress[0].ports[0].port; Required spec.egress[0].to[0]"},
	}
	Run(t, Table{
		Resource: networking.NetworkPolicies(),
		Base:     `{metadata: {name: p, namespace: ns}, spec: {podSelector: {}}}`,
		Rows:     rows,
		Elsewhere: map[string]string{
			"spec.podSelector": "selectors are the library's", peers + "podSelector": "selectors are the library's", peers + "namespaceSelector": "selectors are the library's",
			"spec.egress[]": "spec.ingress, by the same code",
		},
	})
}
