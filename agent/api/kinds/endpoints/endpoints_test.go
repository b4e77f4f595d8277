package endpoints_test

import (
	"testing"

	"github.com/podvine/podvine/agent/api/kinds/endpoints"
	"github.com/podvine/podvine/agent/api/kinds/kindtest"
)

// addressRows are the rows of ready or of other addresses, which are the same.
func addressRows(list string) []kindtest.Row {
	field := "subsets[]." + list + "[]."
	at := "subsets[0]." + list + "[0]."
	patch := func(address string) string { return `{subsets: [{` + list + `: [` + address + `]}]}` }
	rows := []kindtest.Row{
		{Field: field + "ip", Class: kindtest.Valid, Patch: patch(`{ip: "2001:db8::1"}`)},
		{Field: field + "ip", Class: kindtest.Invalid, Patch: patch(`{ip: ""}`), Error: "Invalid " + at + "ip"},
		{Field: field + "ip", Class: kindtest.Invalid, Patch: patch(`{ip: 127.0.0.1}`), Error: "Invalid " + at + "ip"},
		{Field: field + "ip", Class: kindtest.Invalid, Patch: patch(`{ip: 169.254.0.1}`), Error: "Invalid " + at + "ip"},
		{Field: field + "ip", Class: kindtest.Invalid, Patch: patch(`{ip: 224.0.0.1}`), Error: "Invalid " + at + "ip"},
		{Field: field + "ip", Class: kindtest.Invalid, Patch: patch(`{ip: 0.0.0.0}`), Error: "Invalid " + at + "ip"},
		{Field: field + "ip", Class: kindtest.Mutable, Patch: patch(`{ip: 192.0.2.99}`)},
		{Field: field + "hostname", Class: kindtest.Valid, Patch: patch(`{ip: 192.0.2.1, hostname: a}`)},
		{Field: field + "hostname", Class: kindtest.Invalid, Patch: patch(`{ip: 192.0.2.1, hostname: a.b}`), Error: "Invalid " + at + "hostname"},
		{Field: field + "nodeName", Class: kindtest.Valid, Patch: patch(`{ip: 192.0.2.1, nodeName: n.example}`)},
		{Field: field + "nodeName", Class: kindtest.Invalid, Patch: patch(`{ip: 192.0.2.1, nodeName: A}`), Error: "Invalid " + at + "nodeName"},
	}
	for _, name := range []string{"kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"} {
		rows = append(rows, kindtest.Row{Field: field + "targetRef." + name, Class: kindtest.Valid, Patch: patch(`{ip: 192.0.2.1, targetRef: {` + name + `: "x/y"}}`)})
	}
	return rows
}

func TestFields(t *testing.T) {
	port := func(p string) string { return `{subsets: [{addresses: [{ip: 192.0.2.1}], ports: [` + p + `]}]}` }
	rows := append(addressRows("addresses"), addressRows("notReadyAddresses")...)
	kindtest.Run(t, kindtest.Table{
		Resource: endpoints.Resource(),
		Base:     `{metadata: {name: web, namespace: ns}, subsets: [{addresses: [{ip: 192.0.2.1}]}]}`,
		Rows: append(rows,
			kindtest.Row{Field: "metadata.name", Class: kindtest.Valid, Patch: `{metadata: {name: a.b}}`},
			kindtest.Row{Field: "subsets", Class: kindtest.Invalid, Patch: `{subsets: [{}]}`, Error: "Required subsets[0]"},
			kindtest.Row{Field: "subsets", Class: kindtest.Mutable, Patch: `{subsets: null}`, Want: `{metadata: {name: web}}`},
			kindtest.Row{Field: "subsets[].ports[].name", Class: kindtest.Valid, Patch: port(`{name: a, port: 1}, {name: b, port: 1}`)},
			kindtest.Row{Field: "subsets[].ports[].name", Class: kindtest.Invalid, Patch: port(`{port: 1}, {name: b, port: 1}`), Error: "Required subsets[0].ports[0].name"},
			kindtest.Row{Field: "subsets[].ports[].name", Class: kindtest.Invalid, Patch: port(`{name: A, port: 1}`), Error: "Invalid subsets[0].ports[0].name"},
			kindtest.Row{Field: "subsets[].ports[].port", Class: kindtest.Valid, Patch: port(`{port: 65535}`)},
			kindtest.Row{Field: "subsets[].ports[].port", Class: kindtest.Invalid, Patch: port(`{port: 0}`), Error: "Invalid subsets[0].ports[0].port"},
			kindtest.Row{Field: "subsets[].ports[].protocol", Class: kindtest.Defaulted, Patch: port(`{port: 1}`), Want: port(`{port: 1, protocol: TCP}`)},
			kindtest.Row{Field: "subsets[].ports[].protocol", Class: kindtest.Invalid, Patch: port(`{port: 1, protocol: ICMP}`), Error: "NotSupported subsets[0].ports[0].protocol"},
			kindtest.Row{Field: "subsets[].ports[].appProtocol", Class: kindtest.Valid, Patch: port(`{port: 1, appProtocol: example.com/p}`)},
			kindtest.Row{Field: "subsets[].ports[].appProtocol", Class: kindtest.Invalid, Patch: port(`{port: 1, appProtocol: "a b"}`), Error: "Invalid subsets[0].ports[0].appProtocol"},
		),
	})
}
