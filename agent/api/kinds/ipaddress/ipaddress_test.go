package ipaddress_test

import (
	"testing"

	"github.com/podvine/podvine/agent/api/kinds/ipaddress"
	"github.com/podvine/podvine/agent/api/kinds/kindtest"
)

func TestFields(t *testing.T) {
	kindtest.Run(t, kindtest.Table{
		Resource: ipaddress.Resource(),
		Base:     `{metadata: {name: 10.96.0.9}, spec: {parentRef: {resource: services, namespace: ns, name: web}}}`,
		Rows: []kindtest.Row{
			{Field: "metadata.name", Class: kindtest.Valid, Patch: `{metadata: {name: "fd00::1"}}`},
			{Field: "metadata.name", Class: kindtest.Invalid, Patch: `{metadata: {name: "fd00::0:1"}}`, Error: "Invalid metadata.name"},
			{Field: "metadata.name", Class: kindtest.Invalid, Patch: `{metadata: {name: 010.96.0.9}}`, Error: "Invalid metadata.name"},
			{Field: "spec.parentRef", Class: kindtest.Invalid, Patch: `{spec: {parentRef: null}}`, Error: "Required spec.parentRef"},
			{Field: "spec.parentRef", Class: kindtest.Immutable, Patch: `{spec: {parentRef: null}}`, Error: "Invalid spec.parentRef; Required spec.parentRef"},
			{Field: "spec.parentRef.group", Class: kindtest.Valid, Patch: `{spec: {parentRef: {group: example.com}}}`},
			{Field: "spec.parentRef.group", Class: kindtest.Invalid, Patch: `{spec: {parentRef: {group: a..b}}}`, Error: "Invalid spec.parentRef.group"},
			{Field: "spec.parentRef.group", Class: kindtest.Immutable, Patch: `{spec: {parentRef: {group: example.com}}}`, Error: "Invalid spec.parentRef"},
			{Field: "spec.parentRef.resource", Class: kindtest.Invalid, Patch: `{spec: {parentRef: {resource: ""}}}`, Error: "Required spec.parentRef.resource"},
			{Field: "spec.parentRef.resource", Class: kindtest.Invalid, Patch: `{spec: {parentRef: {resource: a/b}}}`, Error: "Invalid spec.parentRef.resource"},
			{Field: "spec.parentRef.resource", Class: kindtest.Immutable, Patch: `{spec: {parentRef: {resource: gateways}}}`, Error: "Invalid spec.parentRef"},
			{Field: "spec.parentRef.namespace", Class: kindtest.Valid, Patch: `{spec: {parentRef: {namespace: null}}}`, Want: `{spec: {parentRef: {name: web}}}`},
			{Field: "spec.parentRef.namespace", Class: kindtest.Invalid, Patch: `{spec: {parentRef: {namespace: a/b}}}`, Error: "Invalid spec.parentRef.namespace"},
			{Field: "spec.parentRef.namespace", Class: kindtest.Immutable, Patch: `{spec: {parentRef: {namespace: other}}}`, Error: "Invalid spec.parentRef"},
			{Field: "spec.parentRef.name", Class: kindtest.Invalid, Patch: `{spec: {parentRef: {name: ""}}}`, Error: "Required spec.parentRef.name"},
			{Field: "spec.parentRef.name", Class: kindtest.Invalid, Patch: `{spec: {parentRef: {name: ".."}}}`, Error: "Invalid spec.parentRef.name"},
			{Field: "spec.parentRef.name", Class: kindtest.Immutable, Patch: `{spec: {parentRef: {name: other}}}`, Error: "Invalid spec.parentRef"},
		},
	})
}
