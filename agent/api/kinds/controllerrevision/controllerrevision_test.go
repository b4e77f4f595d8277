package controllerrevision

import (
	"testing"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
)

func TestFields(t *testing.T) {
	kindtest.Run(t, kindtest.Table{
		Resource: Resource(),
		Base:     `{metadata: {name: r, namespace: ns}, revision: 1, data: {spec: {a: b}}}`,
		Rows: []kindtest.Row{
			{Field: "revision", Class: kindtest.Invalid, Patch: `{"revision":-1}`, Error: "Invalid revision"},
			{Field: "revision", Class: kindtest.Mutable, Patch: `{"revision":2}`},
			{Field: "data", Class: kindtest.Invalid, Patch: `{"data":null}`, Error: "Required data"},
			{Field: "data", Class: kindtest.Immutable, Patch: `{"data":{"spec":{"a":"c"}}}`, Error: "Invalid data"},
		},
	})
}
