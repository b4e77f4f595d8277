package endpointslice_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/podvine/podvine/agent/api/kinds/endpointslice"
	"github.com/podvine/podvine/agent/api/kinds/kindtest"
)

func repeat(n int, item string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = strings.ReplaceAll(item, "#", fmt.Sprint(i))
	}
	return "[" + strings.Join(items, ", ") + "]"
}

func TestFields(t *testing.T) {
	endpoint := func(e string) string { return `{endpoints: [{addresses: [192.0.2.1], ` + e + `}]}` }
	port := func(p string) string { return `{ports: [` + p + `]}` }
	rows := []kindtest.Row{
		{Field: "metadata.name", Class: kindtest.Valid, Patch: `{metadata: {name: a.b}}`},
		{Field: "metadata.generation", Class: kindtest.Defaulted, Patch: `{metadata: {generation: 7}}`, Want: `{metadata: {generation: 1}}`},
		{Field: "metadata.generation", Class: kindtest.Mutable, Patch: `{metadata: {labels: {a: b}}}`, Want: `{metadata: {generation: 2}}`},
		{Field: "metadata.generation", Class: kindtest.Kept, Patch: `{metadata: {annotations: {a: b}}}`, Want: `{metadata: {generation: 1}}`},
		{Field: "addressType", Class: kindtest.Valid, Patch: `{addressType: FQDN, endpoints: [{addresses: [a.example.com]}]}`},
		{Field: "addressType", Class: kindtest.Invalid, Patch: `{addressType: ""}`, Error: "Required addressType"},
		{Field: "addressType", Class: kindtest.Invalid, Patch: `{addressType: IP}`, Error: "NotSupported addressType"},
		{Field: "addressType", Class: kindtest.Immutable, Patch: `{addressType: IPv6, endpoints: []}`, Error: "Invalid addressType"},
		{Field: "endpoints", Class: kindtest.Valid, Patch: `{endpoints: null}`, Want: `{addressType: IPv4}`},
		{Field: "endpoints", Class: kindtest.Invalid, Patch: `{endpoints: ` + repeat(1001, `{addresses: [192.0.2.1]}`) + `}`, Error: "TooMany endpoints"},
		{Field: "endpoints[].addresses", Class: kindtest.Mutable, Patch: `{endpoints: [{addresses: [192.0.2.2, 192.0.2.3]}]}`},
		{Field: "endpoints[].addresses", Class: kindtest.Invalid, Patch: `{endpoints: [{addresses: []}]}`, Error: "Required endpoints[0].addresses"},
		{Field: "endpoints[].addresses", Class: kindtest.Invalid, Patch: `{endpoints: [{addresses: ` + repeat(101, "192.0.2.1") + `}]}`, Error: "TooMany endpoints[0].addresses"},
		{Field: "endpoints[].addresses", Class: kindtest.Invalid, Patch: `{endpoints: [{addresses: ["2001:db8::1"]}]}`, Error: "Invalid endpoints[0].addresses[0]"},
		{Field: "endpoints[].addresses", Class: kindtest.Invalid, Patch: `{endpoints: [{addresses: [127.0.0.1]}]}`, Error: "Invalid endpoints[0].addresses[0]"},
		{Field: "endpoints[].addresses", Class: kindtest.Invalid, Patch: `{addressType: IPv6, endpoints: [{addresses: [192.0.2.1]}]}`, Error: "Invalid endpoints[0].addresses[0]"},
		{Field: "endpoints[].addresses", Class: kindtest.Invalid, Patch: `{addressType: FQDN, endpoints: [{addresses: [a]}]}`, Error: "Invalid endpoints[0].addresses[0]"},
		{Field: "endpoints[].conditions.ready", Class: kindtest.Mutable, Patch: endpoint(`conditions: {ready: false}`)},
		{Field: "endpoints[].conditions.serving", Class: kindtest.Mutable, Patch: endpoint(`conditions: {serving: true}`)},
		{Field: "endpoints[].conditions.terminating", Class: kindtest.Mutable, Patch: endpoint(`conditions: {terminating: true}`)},
		{Field: "endpoints[].hostname", Class: kindtest.Valid, Patch: endpoint(`hostname: h`)},
		{Field: "endpoints[].hostname", Class: kindtest.Invalid, Patch: endpoint(`hostname: a.b`), Error: "Invalid endpoints[0].hostname"},
		{Field: "endpoints[].deprecatedTopology", Class: kindtest.Dropped, Patch: endpoint(`deprecatedTopology: {a: b}`)},
		{Field: "endpoints[].nodeName", Class: kindtest.Valid, Patch: endpoint(`nodeName: n.example`)},
		{Field: "endpoints[].nodeName", Class: kindtest.Invalid, Patch: endpoint(`nodeName: A`), Error: "Invalid endpoints[0].nodeName"},
		{Field: "endpoints[].zone", Class: kindtest.Mutable, Patch: endpoint(`zone: "any text"`)},
		{Field: "endpoints[].hints.forZones[].name", Class: kindtest.Valid, Patch: endpoint(`hints: {forZones: [{name: z}]}`)},
		{Field: "endpoints[].hints.forZones[].name", Class: kindtest.Invalid, Patch: endpoint(`hints: {forZones: [{name: a/b}]}`), Error: "Invalid endpoints[0].hints.forZones[0].name"},
		{Field: "endpoints[].hints.forZones[].name", Class: kindtest.Invalid, Patch: endpoint(`hints: {forZones: [{name: z}, {name: z}]}`), Error: "Duplicate endpoints[0].hints.forZones[1].name"},
		{Field: "endpoints[].hints.forZones", Class: kindtest.Invalid, Patch: endpoint(`hints: {forZones: ` + repeat(9, "{name: z#}") + `}`), Error: "TooMany endpoints[0].hints.forZones"},
		{Field: "endpoints[].hints.forNodes[].name", Class: kindtest.Valid, Patch: endpoint(`hints: {forNodes: [{name: nn}]}`)},
		{Field: "endpoints[].hints.forNodes[].name", Class: kindtest.Invalid, Patch: endpoint(`hints: {forNodes: [{name: ""}]}`), Error: "Invalid endpoints[0].hints.forNodes[0].name"},
		{Field: "endpoints[].hints.forNodes[].name", Class: kindtest.Invalid, Patch: endpoint(`hints: {forNodes: [{name: nn}, {name: nn}]}`), Error: "Duplicate endpoints[0].hints.forNodes[1].name"},
		{Field: "ports[].name", Class: kindtest.Defaulted, Patch: port(`{port: 80}`), Want: port(`{name: "", port: 80}`)},
		{Field: "ports[].name", Class: kindtest.Invalid, Patch: port(`{name: A}`), Error: "Invalid ports[0].name"},
		{Field: "ports[].name", Class: kindtest.Invalid, Patch: port(`{name: a}, {name: a}`), Error: "Duplicate ports[1].name"},
		{Field: "ports[].protocol", Class: kindtest.Defaulted, Patch: port(`{port: 80}`), Want: port(`{protocol: TCP}`)},
		{Field: "ports[].protocol", Class: kindtest.Invalid, Patch: port(`{protocol: ICMP}`), Error: "NotSupported ports[0].protocol"},
		{Field: "ports[].port", Class: kindtest.Mutable, Patch: port(`{port: 81}`)},
		{Field: "ports[].appProtocol", Class: kindtest.Valid, Patch: port(`{appProtocol: kubernetes.io/ws}`)},
		{Field: "ports[].appProtocol", Class: kindtest.Invalid, Patch: port(`{appProtocol: "a b"}`), Error: "Invalid ports[0].appProtocol"},
	}
	for _, name := range []string{"kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"} {
		rows = append(rows, kindtest.Row{Field: "endpoints[].targetRef." + name, Class: kindtest.Mutable, Patch: endpoint(`targetRef: {` + name + `: "x/y"}`)})
	}
	kindtest.Run(t, kindtest.Table{
		Resource: endpointslice.Resource(),
		Base:     `{metadata: {name: web-1, namespace: ns}, addressType: IPv4, endpoints: [{addresses: [192.0.2.1]}]}`,
		Rows:     rows,
	})
}
