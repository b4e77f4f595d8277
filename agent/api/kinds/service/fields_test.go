package service_test

import (
	"testing"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/service"
)

// Services as they are when addresses and ports have been chosen.
const (
	clusterIP = `{metadata: {name: web, namespace: ns}, spec: {clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, ports: [{port: 80}]}}`
	nodePort  = `{metadata: {name: web, namespace: ns}, spec: {type: NodePort, clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], ipFamilies: [IPv4], ports: [{port: 80, nodePort: 30001}]}}`
	balanced  = `{metadata: {name: web, namespace: ns}, spec: {type: LoadBalancer, clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], ipFamilies: [IPv4], externalTrafficPolicy: Local,
		healthCheckNodePort: 30002, loadBalancerClass: example.com/lb, ports: [{port: 80, nodePort: 30001}]}}`
	headless = `{metadata: {name: web, namespace: ns}, spec: {clusterIP: None, clusterIPs: [None], ipFamilies: [IPv4]}}`
	external = `{metadata: {name: web, namespace: ns}, spec: {type: ExternalName, externalName: db.example.com}}`
	dual     = `{metadata: {name: web, namespace: ns}, spec: {clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9, "fd00::9"], ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]}}`
)

func TestFields(t *testing.T) {
	var rows []kindtest.Row
	for _, part := range [][]kindtest.Row{portRows(), addressRows(), typeRows(), trafficRows(), balancerRows(), statusRows()} {
		rows = append(rows, part...)
	}
	kindtest.Run(t, kindtest.Table{Resource: service.Resource(), Base: clusterIP, Rows: rows})
}

func ports(p string) string { return `{spec: {ports: [` + p + `]}}` }

func portRows() []kindtest.Row {
	return []kindtest.Row{
		{Field: "metadata.name", Class: kindtest.Valid, Patch: `{metadata: {name: 1a}}`},
		{Field: "metadata.name", Class: kindtest.Invalid, Patch: `{metadata: {name: a.b}}`, Error: "Invalid metadata.name"},
		{Field: "spec.ports", Class: kindtest.Invalid, Patch: `{spec: {ports: []}}`, Error: "Required spec.ports"},
		{Field: "spec.ports", Class: kindtest.Valid, Base: headless, Want: `{spec: {clusterIP: None}}`},
		{Field: "spec.ports", Class: kindtest.Invalid, Patch: ports(`{name: a, port: 80}, {name: b, port: 80}`), Error: "Duplicate spec.ports[1]"},
		{Field: "spec.ports", Class: kindtest.Valid, Patch: ports(`{name: a, port: 80}, {name: b, port: 80, protocol: UDP}`)},
		{Field: "spec.ports[].name", Class: kindtest.Invalid, Patch: ports(`{port: 80}, {name: b, port: 81}`), Error: "Required spec.ports[0].name"},
		{Field: "spec.ports[].name", Class: kindtest.Invalid, Patch: ports(`{name: a, port: 80}, {name: a, port: 81}`), Error: "Duplicate spec.ports[1].name"},
		{Field: "spec.ports[].name", Class: kindtest.Invalid, Patch: ports(`{name: a.b, port: 80}`), Error: "Invalid spec.ports[0].name"},
		{Field: "spec.ports[].name", Class: kindtest.Mutable, Patch: ports(`{name: a, port: 80}`)},
		{Field: "spec.ports[].protocol", Class: kindtest.Defaulted, Patch: ports(`{port: 80}`), Want: ports(`{protocol: TCP}`)},
		{Field: "spec.ports[].protocol", Class: kindtest.Invalid, Patch: ports(`{port: 80, protocol: ICMP}`), Error: "NotSupported spec.ports[0].protocol"},
		{Field: "spec.ports[].appProtocol", Class: kindtest.Valid, Patch: ports(`{port: 80, appProtocol: kubernetes.io/h2c}`)},
		{Field: "spec.ports[].appProtocol", Class: kindtest.Invalid, Patch: ports(`{port: 80, appProtocol: "a b"}`), Error: "Invalid spec.ports[0].appProtocol"},
		{Field: "spec.ports[].port", Class: kindtest.Valid, Patch: ports(`{port: 65535}`)},
		{Field: "spec.ports[].port", Class: kindtest.Invalid, Patch: ports(`{port: 0, targetPort: 1}`), Error: "Invalid spec.ports[0].port"},
		{Field: "spec.ports[].port", Class: kindtest.Immutable, Patch: ports(`{port: 65536, targetPort: 1}`), Error: "Invalid spec.ports[0].port"},
		{Field: "spec.ports[].targetPort", Class: kindtest.Defaulted, Patch: ports(`{port: 80}`), Want: ports(`{targetPort: 80}`)},
		{Field: "spec.ports[].targetPort", Class: kindtest.Defaulted, Patch: ports(`{port: 80, targetPort: ""}`), Want: ports(`{targetPort: 80}`)},
		{Field: "spec.ports[].targetPort", Class: kindtest.Valid, Patch: ports(`{port: 80, targetPort: http-alt}`)},
		{Field: "spec.ports[].targetPort", Class: kindtest.Invalid, Patch: ports(`{port: 80, targetPort: -1}`), Error: "Invalid spec.ports[0].targetPort"},
		{Field: "spec.ports[].targetPort", Class: kindtest.Invalid, Patch: ports(`{port: 80, targetPort: UPPER}`), Error: "Invalid spec.ports[0].targetPort"},
		{Field: "spec.ports[].nodePort", Class: kindtest.Invalid, Patch: ports(`{port: 80, nodePort: 30001}`), Error: "Forbidden spec.ports[0].nodePort"},
		{Field: "spec.ports[].nodePort", Class: kindtest.Valid, Base: nodePort, Patch: ports(`{name: a, port: 80, nodePort: 30001}, {name: b, port: 80, protocol: UDP, nodePort: 30001}`)},
		{Field: "spec.ports[].nodePort", Class: kindtest.Invalid, Base: nodePort, Patch: ports(`{name: a, port: 80, nodePort: 30001}, {name: b, port: 81, nodePort: 30001}`), Error: "Duplicate spec.ports[1].nodePort"},
		{Field: "spec.ports[].nodePort", Class: kindtest.Kept, Base: nodePort, Patch: `{spec: {type: ClusterIP}}`, Want: `{spec: {type: ClusterIP, ports: [{port: 80}]}}`},
	}
}

func addressRows() []kindtest.Row {
	return []kindtest.Row{
		{Field: "spec.clusterIP", Class: kindtest.Invalid, Patch: `{spec: {clusterIP: 10.96.0.8}}`, Error: "Invalid spec.clusterIPs"},
		{Field: "spec.clusterIP", Class: kindtest.Invalid, Patch: `{spec: {clusterIP: null}}`, Error: "Invalid spec.clusterIPs"},
		{Field: "spec.clusterIP", Class: kindtest.Immutable, Patch: `{spec: {clusterIP: 10.96.0.8, clusterIPs: [10.96.0.8]}}`, Error: "Invalid spec.clusterIPs[0]"},
		{Field: "spec.clusterIP", Class: kindtest.Invalid, Base: nodePort, Patch: `{spec: {clusterIP: None, clusterIPs: [None]}}`, Error: "Invalid spec.clusterIPs[0]"},
		{Field: "spec.clusterIPs", Class: kindtest.Invalid, Patch: `{spec: {clusterIPs: null}}`, Error: "Required spec.clusterIPs"},
		{Field: "spec.clusterIPs", Class: kindtest.Invalid, Patch: `{spec: {clusterIP: x, clusterIPs: [x]}}`, Error: "Invalid spec.clusterIPs[0]"},
		{Field: "spec.clusterIPs", Class: kindtest.Invalid, Patch: `{spec: {clusterIP: 010.0.0.1, clusterIPs: [010.0.0.1]}}`, Error: "Invalid spec.clusterIPs[0]"},
		{Field: "spec.clusterIPs", Class: kindtest.Invalid, Patch: `{spec: {clusterIPs: [10.96.0.9, 10.96.0.8]}}`, Error: "Invalid spec.clusterIPs"},
		{Field: "spec.clusterIPs", Class: kindtest.Invalid, Patch: `{spec: {clusterIPs: [10.96.0.9, "fd00::1", "fd00::2"]}}`, Error: "Invalid spec.clusterIPs"},
		{Field: "spec.clusterIPs", Class: kindtest.Invalid, Base: headless, Patch: `{spec: {clusterIPs: [None, 10.96.0.9]}}`, Error: "Invalid spec.clusterIPs"},
		{Field: "spec.clusterIPs", Class: kindtest.Invalid, Patch: `{spec: {ipFamilies: [IPv6]}}`, Error: "Invalid spec.clusterIPs[0]"},
		{Field: "spec.clusterIPs", Class: kindtest.Mutable, Patch: `{spec: {ipFamilyPolicy: RequireDualStack, clusterIPs: [10.96.0.9, "fd00::9"], ipFamilies: [IPv4, IPv6]}}`},
		{Field: "spec.clusterIPs", Class: kindtest.Mutable, Base: dual, Patch: `{spec: {ipFamilyPolicy: SingleStack, clusterIPs: [10.96.0.9], ipFamilies: [IPv4]}}`},
		{Field: "spec.clusterIPs", Class: kindtest.Immutable, Base: dual, Patch: `{spec: {clusterIPs: [10.96.0.9], ipFamilies: [IPv4]}}`, Error: "Invalid spec.ipFamilyPolicy"},
		{Field: "spec.clusterIPs", Class: kindtest.Immutable, Base: dual, Patch: `{spec: {clusterIPs: [10.96.0.9, "fd00::8"]}}`, Error: "Invalid spec.clusterIPs[1]"},
		{Field: "spec.ipFamilies", Class: kindtest.Invalid, Patch: `{spec: {ipFamilies: [IPX]}}`, Error: "NotSupported spec.ipFamilies[0]"},
		{Field: "spec.ipFamilies", Class: kindtest.Invalid, Patch: `{spec: {ipFamilies: [IPv4, IPv4]}}`, Error: "Duplicate spec.ipFamilies[1]"},
		{Field: "spec.ipFamilies", Class: kindtest.Immutable, Base: dual, Patch: `{spec: {ipFamilies: [IPv6, IPv4]}}`, Error: "Invalid spec.clusterIPs[0]; Invalid spec.clusterIPs[1]; Invalid spec.ipFamilies[0]; Invalid spec.ipFamilies[1]"},
		{Field: "spec.ipFamilies", Class: kindtest.Invalid, Base: external, Patch: `{spec: {ipFamilies: [IPv4]}}`, Error: "Forbidden spec.ipFamilies"},
		{Field: "spec.ipFamilyPolicy", Class: kindtest.Valid, Patch: `{spec: {ipFamilyPolicy: PreferDualStack}}`},
		{Field: "spec.ipFamilyPolicy", Class: kindtest.Invalid, Patch: `{spec: {ipFamilyPolicy: Any}}`, Error: "NotSupported spec.ipFamilyPolicy"},
		{Field: "spec.ipFamilyPolicy", Class: kindtest.Invalid, Base: external, Patch: `{spec: {ipFamilyPolicy: SingleStack}}`, Error: "Forbidden spec.ipFamilyPolicy"},
		{Field: "spec.externalIPs", Class: kindtest.Mutable, Patch: `{spec: {externalIPs: [198.51.100.9, "2001:db8::9"]}}`},
		{Field: "spec.externalIPs", Class: kindtest.Invalid, Patch: `{spec: {externalIPs: [x]}}`, Error: "Invalid spec.externalIPs[0]"},
		{Field: "spec.externalIPs", Class: kindtest.Invalid, Patch: `{spec: {externalIPs: [127.0.0.1, 0.0.0.0, 169.254.1.1, 224.0.0.1]}}`,
			Error: "Invalid spec.externalIPs[0]; Invalid spec.externalIPs[1]; Invalid spec.externalIPs[2]; Invalid spec.externalIPs[3]"},
	}
}

func typeRows() []kindtest.Row {
	return []kindtest.Row{
		{Field: "spec.type", Class: kindtest.Defaulted, Patch: `{spec: {type: null}}`, Want: `{spec: {type: ClusterIP}}`},
		{Field: "spec.type", Class: kindtest.Invalid, Patch: `{spec: {type: Bogus}}`, Error: "NotSupported spec.type"},
		{Field: "spec.type", Class: kindtest.Mutable, Patch: `{spec: {type: ExternalName, externalName: a.example.com}}`},
		{Field: "spec.type", Class: kindtest.Mutable, Base: balanced, Patch: `{spec: {type: ClusterIP}}`},
		{Field: "spec.selector", Class: kindtest.Mutable, Patch: `{spec: {selector: {app: web}}}`},
		{Field: "spec.selector", Class: kindtest.Invalid, Patch: `{spec: {selector: {"a b": web}}}`, Error: "Invalid spec.selector"},
		{Field: "spec.externalName", Class: kindtest.Valid, Base: external, Patch: `{spec: {externalName: a.example.com.}}`},
		{Field: "spec.externalName", Class: kindtest.Invalid, Base: external, Patch: `{spec: {externalName: ""}}`, Error: "Required spec.externalName"},
		{Field: "spec.externalName", Class: kindtest.Invalid, Base: external, Patch: `{spec: {externalName: a..b}}`, Error: "Invalid spec.externalName"},
		{Field: "spec.externalName", Class: kindtest.Invalid, Base: external, Patch: `{spec: {clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9]}}`, Error: "Forbidden spec.clusterIPs"},
		{Field: "spec.publishNotReadyAddresses", Class: kindtest.Mutable, Patch: `{spec: {publishNotReadyAddresses: true}}`},
		{Field: "spec.sessionAffinity", Class: kindtest.Defaulted, Want: `{spec: {sessionAffinity: None}}`},
		{Field: "spec.sessionAffinity", Class: kindtest.Invalid, Patch: `{spec: {sessionAffinity: Cookie}}`, Error: "NotSupported spec.sessionAffinity"},
		{Field: "spec.sessionAffinityConfig.clientIP.timeoutSeconds", Class: kindtest.Defaulted, Patch: `{spec: {sessionAffinity: ClientIP}}`,
			Want: `{spec: {sessionAffinityConfig: {clientIP: {timeoutSeconds: 10800}}}}`},
		{Field: "spec.sessionAffinityConfig.clientIP.timeoutSeconds", Class: kindtest.Dropped, Patch: `{spec: {sessionAffinityConfig: {clientIP: {timeoutSeconds: 9}}}}`},
		{Field: "spec.sessionAffinityConfig.clientIP.timeoutSeconds", Class: kindtest.Valid, Patch: `{spec: {sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86400}}}}`},
		{Field: "spec.sessionAffinityConfig.clientIP.timeoutSeconds", Class: kindtest.Invalid, Patch: `{spec: {sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}}}`,
			Error: "Invalid spec.sessionAffinityConfig.clientIP.timeoutSeconds"},
		{Field: "spec.sessionAffinityConfig.clientIP.timeoutSeconds", Class: kindtest.Invalid, Patch: `{spec: {sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}}}`,
			Error: "Invalid spec.sessionAffinityConfig.clientIP.timeoutSeconds"},
	}
}

func trafficRows() []kindtest.Row {
	return []kindtest.Row{
		{Field: "spec.externalTrafficPolicy", Class: kindtest.Defaulted, Base: nodePort, Want: `{spec: {externalTrafficPolicy: Cluster}}`},
		{Field: "spec.externalTrafficPolicy", Class: kindtest.Defaulted, Patch: `{spec: {externalIPs: [198.51.100.9]}}`, Want: `{spec: {externalTrafficPolicy: Cluster}}`},
		{Field: "spec.externalTrafficPolicy", Class: kindtest.Invalid, Patch: `{spec: {externalTrafficPolicy: Cluster}}`, Error: "Invalid spec.externalTrafficPolicy"},
		{Field: "spec.externalTrafficPolicy", Class: kindtest.Invalid, Base: nodePort, Patch: `{spec: {externalTrafficPolicy: Near}}`, Error: "NotSupported spec.externalTrafficPolicy"},
		{Field: "spec.externalTrafficPolicy", Class: kindtest.Kept, Base: balanced, Patch: `{spec: {type: ClusterIP}}`, Want: `{spec: {type: ClusterIP}}`},
		{Field: "spec.internalTrafficPolicy", Class: kindtest.Defaulted, Want: `{spec: {internalTrafficPolicy: Cluster}}`},
		{Field: "spec.internalTrafficPolicy", Class: kindtest.Mutable, Patch: `{spec: {internalTrafficPolicy: Local}}`},
		{Field: "spec.internalTrafficPolicy", Class: kindtest.Invalid, Patch: `{spec: {internalTrafficPolicy: Near}}`, Error: "NotSupported spec.internalTrafficPolicy"},
		{Field: "spec.trafficDistribution", Class: kindtest.Mutable, Patch: `{spec: {trafficDistribution: PreferSameNode}}`},
		{Field: "spec.trafficDistribution", Class: kindtest.Invalid, Patch: `{spec: {trafficDistribution: Near}}`, Error: "NotSupported spec.trafficDistribution"},
		{Field: "spec.healthCheckNodePort", Class: kindtest.Invalid, Patch: `{spec: {healthCheckNodePort: 30002}}`, Error: "Invalid spec.healthCheckNodePort"},
		{Field: "spec.healthCheckNodePort", Class: kindtest.Invalid, Base: balanced, Patch: `{spec: {healthCheckNodePort: 65536}}`, Error: "Invalid spec.healthCheckNodePort"},
		{Field: "spec.healthCheckNodePort", Class: kindtest.Immutable, Base: balanced, Patch: `{spec: {healthCheckNodePort: 30003}}`, Error: "Forbidden spec.healthCheckNodePort"},
		{Field: "spec.healthCheckNodePort", Class: kindtest.Valid, Base: balanced, Patch: `{spec: {healthCheckNodePort: 30003}}`},
	}
}

func balancerRows() []kindtest.Row {
	return []kindtest.Row{
		{Field: "spec.loadBalancerIP", Class: kindtest.Mutable, Base: balanced, Patch: `{spec: {loadBalancerIP: any text}}`},
		{Field: "spec.loadBalancerSourceRanges", Class: kindtest.Mutable, Base: balanced, Patch: `{spec: {loadBalancerSourceRanges: [10.0.0.0/8, " 192.0.2.0/24 "]}}`},
		{Field: "spec.loadBalancerSourceRanges", Class: kindtest.Invalid, Base: balanced, Patch: `{spec: {loadBalancerSourceRanges: [x]}}`, Error: "Invalid spec.LoadBalancerSourceRanges[0]"},
		{Field: "spec.loadBalancerSourceRanges", Class: kindtest.Invalid, Patch: `{spec: {loadBalancerSourceRanges: [10.0.0.0/8]}}`, Error: "Forbidden spec.LoadBalancerSourceRanges"},
		{Field: "metadata.annotations", Class: kindtest.Invalid, Base: balanced, Patch: `{metadata: {annotations: {service.beta.kubernetes.io/load-balancer-source-ranges: "10.0.0.0/8, x"}}}`,
			Error: "Invalid metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]"},
		{Field: "metadata.annotations", Class: kindtest.Invalid, Patch: `{metadata: {annotations: {service.beta.kubernetes.io/load-balancer-source-ranges: ""}}}`,
			Error: "Forbidden metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]"},
		{Field: "spec.allocateLoadBalancerNodePorts", Class: kindtest.Defaulted, Base: balanced, Want: `{spec: {allocateLoadBalancerNodePorts: true}}`},
		{Field: "spec.allocateLoadBalancerNodePorts", Class: kindtest.Mutable, Base: balanced, Patch: `{spec: {allocateLoadBalancerNodePorts: false}}`},
		{Field: "spec.allocateLoadBalancerNodePorts", Class: kindtest.Invalid, Patch: `{spec: {allocateLoadBalancerNodePorts: true}}`, Error: "Forbidden spec.allocateLoadBalancerNodePorts"},
		{Field: "spec.loadBalancerClass", Class: kindtest.Invalid, Patch: `{spec: {loadBalancerClass: example.com/lb}}`, Error: "Forbidden spec.loadBalancerClass"},
		{Field: "spec.loadBalancerClass", Class: kindtest.Invalid, Base: balanced, Patch: `{spec: {loadBalancerClass: "a b"}}`, Error: "Invalid spec.loadBalancerClass"},
		{Field: "spec.loadBalancerClass", Class: kindtest.Immutable, Base: balanced, Patch: `{spec: {loadBalancerClass: example.com/other}}`, Error: "Invalid spec.loadBalancerClass"},
		{Field: "spec.loadBalancerClass", Class: kindtest.Kept, Base: balanced, Patch: `{spec: {type: ClusterIP}}`, Want: `{spec: {type: ClusterIP}}`},
		{Field: "spec.ports[].port", Class: kindtest.Invalid, Base: balanced, Patch: ports(`{port: 10250, nodePort: 30001}`), Error: "Invalid spec.ports[0]"},
	}
}

func statusRows() []kindtest.Row {
	const ingress = "status.loadBalancer.ingress[]."
	point := func(p string) string { return `{status: {loadBalancer: {ingress: [` + p + `]}}}` }
	rows := []kindtest.Row{
		{Field: ingress + "ip", Class: kindtest.Mutable, Base: balanced, Status: true, Patch: point(`{ip: 198.51.100.1, ipMode: Proxy}`)},
		{Field: ingress + "ip", Class: kindtest.Dropped, Base: balanced, Patch: point(`{ip: 198.51.100.1}`)},
		{Field: ingress + "ip", Class: kindtest.Kept, Base: balanced, Patch: point(`{ip: 198.51.100.1}`), Want: `{spec: {type: LoadBalancer}}`},
		{Field: ingress + "ip", Class: kindtest.Immutable, Base: balanced, Status: true, Patch: point(`{ip: x}`), Error: "Invalid status.loadBalancer.ingress[0].ip"},
		{Field: ingress + "ip", Class: kindtest.Immutable, Status: true, Patch: point(`{ip: 198.51.100.1}`), Error: "Forbidden status.loadBalancer.ingress"},
		{Field: ingress + "hostname", Class: kindtest.Mutable, Base: balanced, Status: true, Patch: point(`{hostname: lb.example.com}`)},
		{Field: ingress + "hostname", Class: kindtest.Immutable, Base: balanced, Status: true, Patch: point(`{hostname: 198.51.100.1}`), Error: "Invalid status.loadBalancer.ingress[0].hostname"},
		{Field: ingress + "ipMode", Class: kindtest.Mutable, Base: balanced, Status: true, Patch: point(`{ip: 198.51.100.1}`), Want: point(`{ipMode: VIP}`)},
		{Field: ingress + "ipMode", Class: kindtest.Immutable, Base: balanced, Status: true, Patch: point(`{ip: 198.51.100.1, ipMode: X}`), Error: "NotSupported status.loadBalancer.ingress[0].ipMode"},
		{Field: ingress + "ipMode", Class: kindtest.Immutable, Base: balanced, Status: true, Patch: point(`{hostname: a, ipMode: VIP}`), Error: "Forbidden status.loadBalancer.ingress[0].ipMode"},
		{Field: ingress + "ports[].port", Class: kindtest.Immutable, Base: balanced, Status: true, Patch: point(`{hostname: a, ports: [{port: 0, protocol: TCP}]}`), Error: "Invalid status.loadBalancer.ingress[0].ports[0].port"},
		{Field: ingress + "ports[].protocol", Class: kindtest.Immutable, Base: balanced, Status: true, Patch: point(`{hostname: a, ports: [{port: 1}]}`), Error: "Required status.loadBalancer.ingress[0].ports[0].protocol"},
		{Field: ingress + "ports[].error", Class: kindtest.Mutable, Base: balanced, Status: true, Patch: point(`{hostname: a, ports: [{port: 1, protocol: TCP, error: example.com/e}]}`)},
		{Field: ingress + "ports[].error", Class: kindtest.Immutable, Base: balanced, Status: true, Patch: point(`{hostname: a, ports: [{port: 1, protocol: TCP, error: "a b"}]}`), Error: "Invalid status.loadBalancer.ingress[0].ports[0].error"},
		{Field: "spec.type", Class: kindtest.Kept, Status: true, Patch: `{spec: {type: NodePort}}`, Want: `{spec: {type: ClusterIP}}`},
	}
	conditions := map[string]string{
		"type": "a.example.com/C", "status": `"True"`, "observedGeneration": "3", "lastTransitionTime": `"2030-01-02T03:04:05Z"`, "reason": "R", "message": "m",
	}
	for name, value := range conditions {
		patch := `{status: {conditions: [{` + name + `: ` + value + `}]}}`
		rows = append(rows,
			kindtest.Row{Field: "status.conditions[]." + name, Class: kindtest.Mutable, Status: true, Patch: patch},
			kindtest.Row{Field: "status.conditions[]." + name, Class: kindtest.Dropped, Patch: patch})
	}
	return rows
}
